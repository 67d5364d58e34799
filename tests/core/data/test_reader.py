"""Rows of a large bank: the same whether they were read ahead or not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.data import reader
from core.data.reader import Reader


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A map of a file that counts as large."""
    monkeypatch.setattr(reader, "LARGE", 1000)
    rows = np.random.default_rng(0).integers(0, 256, (100, 3, 4, 2), dtype=np.uint8)
    rows.tofile(tmp_path / "bank")
    return np.asarray(np.memmap(tmp_path / "bank", np.uint8, "r", 0, rows.shape))


def test_rows_are_those_of_their_positions_whatever_was_read_ahead(bank: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    read = Reader(bank)
    first, second, third = torch.tensor([5, 99, 5]), torch.tensor([0, 1]), torch.tensor([7])
    for position, then in ((first, second), (second, third), (first, None), (third, second), (third, None)):
        assert read(position, then).numpy().tolist() == bank[position.numpy()].tolist()


def test_floats_are_gathered_too() -> None:
    bank = np.random.default_rng(0).random((5000, 9000), np.float32)
    assert np.array_equal(Reader(bank)(torch.tensor([3, 4999]), torch.tensor([1])).numpy(), bank[[3, 4999]])


def test_what_is_gathered_may_be_written_to(bank: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    rows = Reader(bank)(torch.tensor([1]))
    rows += 1
    assert not np.array_equal(rows.numpy()[0], bank[1])


def test_a_file_is_known_by_its_map_and_an_array_has_none(tmp_path: Path, bank: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    assert reader._file_of(bank) == (tmp_path / "bank", 0, bank.nbytes)
    assert reader._file_of(np.zeros(3)) is None
