"""The comparison of export formats, on a student and data so small that only its bookkeeping can be tested."""

from pathlib import Path

import numpy as np

from benchmarks.exports import name_of, student_in_all
from benchmarks.images import canonical
from core.data import open_dataset, subset
from core.export import formats
from core.spec import DatasetRef


def test_every_format_is_told_with_its_size_and_time_in_units_of_the_plain_weights(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(300) % 3
    np.savez(tmp_path / "d.npz", x=(draw.integers(0, 80, (300, 6, 6)) + 80 * y[:, None, None]).astype(np.uint8), y=y)
    file, report = canonical(tmp_path / "d.npz", tmp_path)
    splits = subset(open_dataset(file), DatasetRef(id="ds_0", validation=0.0))
    found = student_in_all({"family": "mlp", "hidden": [8]}, splits, report, tmp_path, steps=60, rounds=2, threads=1)
    assert set(found["formats"]) == set(formats())
    plain = found["formats"]["safetensors"]
    assert (plain["bytes_ratio"], plain["latency"]["1"]["ratio"]) == (1, {"n": 2, "median": 1, "min": 1, "max": 1})
    assert found["formats"]["onnx"]["latency"]["32"]["ms"]["n"] == 2
    assert all(figures["refused"] is None for figures in found["formats"].values())


def test_a_student_is_called_by_what_tells_it_apart() -> None:
    assert name_of({"family": "resnet", "depth": 20}) == "resnet-20"
    assert name_of({"family": "mlp", "hidden": [128]}) == "mlp"
