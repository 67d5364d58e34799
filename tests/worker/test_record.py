"""Events on their way into the history."""

from core.events import Evaluated, Event, Log, Phase, Step
from worker.ledger import Ledger, columns
from worker.record import Inbox


def point(done: int, *, fit: int = 0, phase: str = "train", **values: float) -> Step:
    return Step(phase, fit, 0, done, done, 100, values, 8.0)


def test_many_points_become_one_event_of_columns_with_its_least_and_greatest() -> None:
    kind, data = columns([point(1, loss=3.0, kd=0.5), point(2, loss=1.0), point(3, loss=2.0, lr=0.1)])
    assert kind == "metrics"
    assert data == {
        "phase": "train", "fit": 0, "first": 1, "last": 3, "of": 100, "samples_per_second": 8.0,
        "columns": {
            "done": [1, 2, 3], "epoch": [0, 0, 0], "step": [1, 2, 3],
            "loss": [3.0, 1.0, 2.0], "kd": [0.5, None, None], "lr": [None, None, 0.1],
        },
        "min": {"loss": 1.0, "kd": 0.5, "lr": 0.1},
        "max": {"loss": 3.0, "kd": 0.5, "lr": 0.1},
    }  # fmt: skip


def test_a_loss_that_is_not_finite_is_no_least_and_no_greatest() -> None:
    _, data = columns([Step("train", 0, 0, 1, 1, 2, {"loss": None})])  # type: ignore[dict-item]  # what `encode` makes of a NaN
    assert (data["columns"]["loss"], data["min"], data["max"]) == ([None], {}, {})


def test_everything_keeps_its_place_and_a_block_never_spans_two_fits() -> None:
    ledger = Ledger()
    transfer = (Phase("transfer"), point(1, phase="transfer"), point(2, phase="transfer"))
    train = (Phase("train", 1), point(3, fit=1), point(4, fit=1), Evaluated(1, 0, 4, "test", {"accuracy": 1.0}), point(5, fit=1))
    for event in (*transfer, *train, Log("\x00done")):
        ledger.add(event)
    rows = ledger.rows()
    assert [kind for kind, _ in rows] == ["phase", "metrics", "phase", "metrics", "evaluated", "metrics", "log"]
    assert [data["columns"]["done"] for kind, data in rows if kind == "metrics"] == [[1, 2], [3, 4], [5]]
    assert rows[-1][1] == {"level": "info", "message": "done"}


def test_a_block_holds_at_most_five_hundred_points() -> None:
    ledger = Ledger()
    for done in range(1, 1101):
        ledger.add(point(done))
    assert [len(data["columns"]["done"]) for _, data in ledger.rows()] == [500, 500, 100]


def test_while_nothing_can_be_written_the_oldest_points_go_and_nothing_else() -> None:
    ledger = Ledger()
    ledger.add(Phase("train"))
    for done in range(1, 1101):
        ledger.add(point(done))
    ledger.bound(700)
    assert [(kind, data.get("first")) for kind, data in ledger.rows()] == [("phase", None), ("metrics", 501), ("metrics", 1001)]


def test_a_full_inbox_drops_its_oldest_point_and_never_a_change_of_state() -> None:
    inbox = Inbox(limit=3)
    told: list[Event] = [Phase("train"), point(1), point(2), point(3), Evaluated(0, 0, 3, "test", {})]
    for event in told:
        inbox.put(event)
    assert inbox.take() == [told[0], told[3], told[4]]
    assert inbox.dropped == 2
    assert inbox.take() == []
