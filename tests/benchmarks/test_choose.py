"""The choice of parameters: on training images that nobody learnt from, and never on the test images."""

from pathlib import Path

import numpy as np

from benchmarks.choose import candidates, without_test
from benchmarks.images import canonical
from core.data import open_dataset
from core.presets import tables


def test_some_training_images_take_the_place_of_the_test_images(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    x_train = np.ones((40, 6, 6), np.uint8) * np.arange(40, dtype=np.uint8)[:, None, None]  # an image is its number
    np.savez(tmp_path / "n.npz", x_train=x_train, y_train=labels, x_test=np.full((4, 6, 6), 99, np.uint8), y_test=np.array([0, 1, 0, 1]))
    data, _ = canonical(tmp_path / "n.npz", tmp_path)
    apart = open_dataset(without_test(data, tmp_path / "apart.safetensors", held_out=10))
    assert dict(apart.report.counts) == {"train": 30, "test": 10}
    learnt, judged = ({int(image.flat[0]) for image in apart.split(split).x} for split in ("train", "test"))
    assert learnt | judged == set(range(40))
    assert not learnt & judged
    assert list(np.bincount(apart.split("test").y)) == [5, 5]
    assert [int(image.flat[0]) % 2 for image in apart.split("test").x] == list(apart.split("test").y)


def test_candidates_are_the_tables_own_row_with_other_values() -> None:
    table = tables()["few_data_fashion_mnist"]
    asked = candidates(table, "wasserstein", "500", {"epsilon": [0.1, 1.0], "norm": ["l2", "l1"]})
    assert list(asked.columns) == ["500"]
    assert list(asked.rows) == [
        "kd",
        "none",
        "epsilon 0.1, norm l2",
        "epsilon 0.1, norm l1",
        "epsilon 1.0, norm l2",
        "epsilon 1.0, norm l1",
    ]
    changed = asked.job("epsilon 1.0, norm l1", "500")
    assert changed["methods"] == [{**table.rows["wasserstein"].train[0], "epsilon": 1.0, "norm": "l1"}]
    assert {field: value for field, value in changed.items() if field not in ("name", "methods")} == {
        field: value for field, value in table.job("wasserstein", "500").items() if field not in ("name", "methods")
    }


def test_a_candidate_of_a_row_with_a_transfer_has_that_rows_epochs() -> None:
    asked = candidates(tables()["anti_distillation"], "trace", "30", {"trace_weight": [0.5]})
    job = asked.job("trace_weight 0.5", "30")
    assert [(method["trace_weight"], method["epochs"]) for method in job["methods"]] == [(0.5, 15)]
    assert job["recipe"]["epochs"] == 15
