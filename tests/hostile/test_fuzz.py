"""The fuzzer: what it starts from is good, a step can be taken again, and a short run finds nothing."""

from pathlib import Path

import pytest

from core.errors import EXIT_REFUSED
from tests.hostile.fuzz import Fuzz
from tests.hostile.inputs import faults
from tests.hostile.mutate import FORMATS, mutant, valid
from tests.hostile.reader import Outcome, Reader


def test_what_is_changed_is_read_before_it_is_changed(tmp_path: Path) -> None:
    fuzz = Fuzz(1, tmp_path)
    with Reader() as reader:
        ended = {form: fuzz.read(reader, item)[0] for form, (item, _) in valid().items()}
    assert {form: (outcome.code, outcome.refusal) for form, outcome in ended.items()} == dict.fromkeys(valid(), (0, None))


def test_a_seed_and_a_step_make_the_same_input_again() -> None:
    steps = range(3 * len(FORMATS))
    assert [mutant(5, step) for step in steps] == [mutant(5, step) for step in steps]
    assert mutant(5, 0).data != mutant(6, 0).data


def test_sixty_steps_find_nothing(tmp_path: Path) -> None:
    fuzz = Fuzz(2, tmp_path)
    with Reader() as reader:
        idle = fuzz.read(reader, mutant(2, 0))[0].peak
        for step in range(60):
            item = mutant(2, step)
            fuzz.note(step, item, *fuzz.read(reader, item)[:1], idle, [])
    assert fuzz.found == []
    assert sum(sum(each.values()) for each in fuzz.counts.values()) == 60


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(-11, 0.1, 0, (), "", ()),
        Outcome(1, 0.1, 0, (), "Traceback", ()),
        Outcome(0, 0.1, 0, (), "", ()),
        Outcome(EXIT_REFUSED, 0.1, 0, (), "", ()),
        Outcome(EXIT_REFUSED, 0.1, 0, ({"event": "refusal", "where": "", "reason": "no"},), "", ()),
        Outcome(
            EXIT_REFUSED, 0.1, 0, ({"event": "refusal", "where": "/upload", "reason": "<_io.BytesIO object at 0x7f0012345678>"},), "", ()
        ),
        Outcome(EXIT_REFUSED, 0.1, 0, ({"event": "refusal", "where": "/upload", "reason": "two\nlines"},), "", ()),
        Outcome(0, 5.1, 0, ({"event": "result"},), "", ()),
        Outcome(0, 0.1, 257 << 20, ({"event": "result"},), "", ()),
        Outcome(0, 0.1, 0, ({"event": "result"},), "", ("os.system 'true'",)),
    ],
)
def test_each_way_to_fail_is_seen(outcome: Outcome) -> None:
    assert len(faults(outcome, 0)) == 1
