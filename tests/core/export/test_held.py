"""Which data exports are made and judged with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.export import held
from core.export.held import calibrating, hold
from tests.core.export.making import facts_of, rows_of, student_of


def test_small_splits_are_held_whole_with_the_students_answers(tmp_path: Path) -> None:
    student, rows = student_of(facts_of()), rows_of(1200, 300, classes=3)
    assert hold(student, rows, tmp_path / "held", flops=5_000) == 300
    kept = load_file(tmp_path / "held")
    batch = next(rows.batches(300))
    assert torch.equal(kept["x"], batch.x)
    assert torch.equal(kept["y"], batch.y)
    with torch.no_grad(), student.quiet():
        assert torch.equal(kept["logits"], student(batch.x).logits)
    hold(student, rows_of(1200, 300, classes=3, labelled=False), tmp_path / "held", flops=5_000)
    assert set(load_file(tmp_path / "held")["y"].tolist()) == {-1}


def test_of_a_large_network_fewer_are_held_and_they_are_spread_over_the_split(tmp_path: Path) -> None:
    student, rows = student_of(facts_of()), rows_of(1200, 300, classes=3)
    assert hold(student, rows, tmp_path / "held", flops=int(2e10)) == 100
    kept = load_file(tmp_path / "held")["y"]
    assert torch.equal(kept[[0, -1]], torch.from_numpy(rows.y[[0, -1]]))
    assert hold(student, rows, tmp_path / "held", flops=int(1e15)) == 64


def test_of_large_inputs_no_more_are_held_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_BYTES", 10 * 64 * 4)  # ten digits of 64 values in four bytes
    assert hold(student_of(facts_of()), rows_of(0, 300, classes=3), tmp_path / "held", flops=1) == 10
    assert len(calibrating(rows_of(0, 300), 0)) == 10


def test_calibration_draws_rows_of_the_split_it_is_given_from_the_seed_and_draws_nothing_else() -> None:
    rows = rows_of(0, 600)
    state = torch.get_rng_state()
    first, again, other = calibrating(rows, 1), calibrating(rows, 1), calibrating(rows, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    known = {x.numpy().tobytes() for x in next(rows.batches(600)).x.contiguous()}
    assert len(first) == 256
    assert {x.numpy().tobytes() for x in first} <= known
    assert len(calibrating(rows_of(0, 30), 1)) == 30
