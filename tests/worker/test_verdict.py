"""From what a process left behind to one word of the list."""

import signal

import pytest

from core.errors import EXIT_DIVERGED, EXIT_NO_ROOM, EXIT_OUT_OF_MEMORY, EXIT_REFUSED, EXIT_UNRESUMABLE, EXIT_YIELDED
from core.events import Refusal
from db.states import Code
from worker.child import Ending
from worker.verdict import Stop, Verdict, judge

GIB = 1 << 30


def of(
    code: int | None = None,
    number: int | None = None,
    *,
    stop: Stop | None = None,
    refusal: Refusal | None = None,
    finished: bool = False,
    tail: str = "",
    rss: int = 0,
    memory: int | None = None,
) -> Verdict:
    return judge(Ending(code, number, rss), stop=stop, refusal=refusal, finished=finished, tail=tail, memory=memory)


@pytest.mark.parametrize("stop", [None, "pause", "shutdown", "deadline", "stalled"])
def test_work_that_was_done_counts_whatever_was_wished_meanwhile(stop: Stop | None) -> None:
    assert of(0, stop=stop, finished=True).action == "complete"


@pytest.mark.parametrize("stop", ["cancel", "graceful"])
def test_work_that_was_cancelled_does_not_count(stop: Stop) -> None:
    assert of(0, stop=stop, finished=True).action == "yield"


@pytest.mark.parametrize("code", [EXIT_REFUSED, EXIT_DIVERGED])
def test_a_refusal_is_final_and_keeps_its_words(code: int) -> None:
    verdict = of(code, refusal=Refusal("/recipe", "too bold", "be humble", "diverged"))
    assert (verdict.action, verdict.code, verdict.where, verdict.reason, verdict.hint) == (
        "fail",
        "diverged",
        "/recipe",
        "too bold",
        "be humble",
    )


def test_a_code_that_is_not_on_the_list_becomes_invalid_input() -> None:
    assert of(EXIT_REFUSED, refusal=Refusal("", "no", code="because")).code == "invalid_input"


def test_a_refusal_without_a_word_is_a_defect() -> None:
    assert (of(EXIT_REFUSED).action, of(EXIT_REFUSED).code) == ("retry", "internal_error")


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (of(EXIT_OUT_OF_MEMORY, refusal=Refusal("/recipe/batch_size", "out of memory", "less", "oom_gpu")), "oom_gpu"),
        (of(1, tail="MemoryError"), "oom_host"),
        (of(None, signal.SIGABRT, tail="terminate called after throwing an instance of 'std::bad_alloc'"), "oom_host"),
        (of(None, signal.SIGKILL, stop="memory"), "oom_host"),
    ],
)
def test_a_job_that_ran_out_of_memory_by_its_own_account_is_not_tried_again_unchanged(verdict: Verdict, code: Code) -> None:
    assert (verdict.action, verdict.code, verdict.max_crashes(9)) == ("retry", code, 1)
    assert "smaller" in verdict.problem("")["hint"] or verdict.hint == "less"


def test_a_job_that_the_system_killed_for_want_of_memory_is_tried_once_more() -> None:
    verdict = of(None, signal.SIGKILL, rss=GIB, memory=GIB)
    assert (verdict.code, verdict.max_crashes(9), verdict.max_crashes(1)) == ("oom_host", 2, 1)


def test_any_other_crash_is_tried_as_often_as_the_operator_says() -> None:
    assert of(None, signal.SIGSEGV).max_crashes(9) == 9


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stop", ["graceful", "pause", "shutdown"])
def test_a_child_that_had_to_be_killed_at_a_gentle_stop_did_not_crash(stop: Stop, number: int) -> None:
    assert of(None, number, stop=stop).action == "yield"


@pytest.mark.parametrize("stop", ["graceful", "pause", "shutdown"])
def test_a_child_that_crashed_at_a_gentle_stop_did_crash(stop: Stop) -> None:
    assert of(None, signal.SIGSEGV, stop=stop).code == "native_crash"


def test_a_child_that_yields_unasked_is_not_punished() -> None:
    assert of(EXIT_YIELDED).action == "yield"


@pytest.mark.parametrize(
    ("rss", "memory", "code"),
    [(GIB, GIB, "oom_host"), (GIB // 2, GIB, "worker_lost"), (1 << 50, None, "oom_host"), (GIB // 64, None, "worker_lost")],
)
def test_a_kill_from_outside_is_for_memory_when_there_was_little_left(rss: int, memory: int | None, code: Code) -> None:
    assert of(None, signal.SIGKILL, rss=rss, memory=memory).code == code


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "oom_gpu"),
        ("MemoryError", "oom_host"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "oom_host"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "native_crash"),
        ("KeyError: 'x'", "internal_error"),
    ],
)
def test_a_crash_is_named_by_its_last_words(tail: str, code: Code) -> None:
    verdict = of(1, tail=f"Traceback\n{tail}\n")
    assert (verdict.action, verdict.code) == ("retry", code)
    assert tail in verdict.reason


def test_the_problem_holds_the_last_fifty_lines() -> None:
    problem = of(1, tail="\n".join(map(str, range(80)))).problem("\n".join(map(str, range(80))))
    assert problem["lines"] == [str(line) for line in range(30, 80)]
    assert problem["fault"] == "system"


def test_a_child_that_found_no_room_waits_for_some_and_has_not_crashed() -> None:
    tail = "OSError: [Errno 28] No space left on device"
    told = of(EXIT_NO_ROOM, refusal=Refusal("", "the worker's disk is full", code="storage_full"))
    for verdict in (of(1, tail=f"Traceback\n{tail}\n"), of(None, signal.SIGBUS, tail=tail), told, of(EXIT_YIELDED, stop="storage")):
        assert (verdict.action, verdict.code) == ("shelve", "storage_full")
        assert verdict.reason
        assert verdict.problem("")["hint"]
        assert verdict.problem("")["fault"] == "system"


def test_a_checkpoint_that_cannot_be_read_is_no_crash() -> None:
    assert of(EXIT_UNRESUMABLE, refusal=Refusal("", "cannot be read", code="internal_error")).action == "fall back"
