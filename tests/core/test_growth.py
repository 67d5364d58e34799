"""Which unit of the teacher each unit of a larger student repeats; and conv networks that grow inside a job."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from core.anatomy import measure
from core.growth import calibrate, grow
from core.networks import Family
from core.taps import Tapped
from tests.core.folders import fill, weights_of, work
from tests.core.growing import family, network, zoo


def test_the_first_units_are_the_teachers_in_order_and_all_counts_add_up() -> None:
    growth = grow(measure(zoo("mlp", hidden=[5, 3])), measure(zoo("mlp", hidden=[12, 4])))
    chosen = growth.repeat(torch.Generator().manual_seed(0))
    rows, columns = growth.places("linear2.weight", chosen)
    assert rows[:3].tolist() == [0, 1, 2]
    assert columns[:5].tolist() == [0, 1, 2, 3, 4]
    counts = torch.bincount(columns, minlength=5)
    assert counts.sum() == len(columns) == 12
    assert counts.min() >= 1
    assert growth.places("linear1.weight", chosen)[0].tolist() == columns.tolist()


def test_without_a_generator_new_units_repeat_nothing() -> None:
    growth = grow(measure(zoo("mlp", hidden=[2])), measure(zoo("mlp", hidden=[4])))
    assert growth.places("fc.weight", growth.repeat(None))[1].tolist() == [0, 1, -1, -1]


def test_every_pixel_of_a_copied_map_stays_in_its_place_when_it_is_laid_flat() -> None:
    def made(width: int) -> Family:
        return family(lambda: nn.Sequential(nn.Conv2d(2, width, 1), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4 * width, 3)))

    growth = grow(measure(made(2)), measure(made(3)))
    columns = growth.places("3.weight", growth.repeat(torch.Generator().manual_seed(1)))[1].tolist()
    assert columns[:8] == list(range(8))
    assert columns[8:] in ([0, 1, 2, 3], [4, 5, 6, 7])


def test_calibrated_batch_norms_undo_themselves_and_leave_others_alone() -> None:
    made = zoo("convnet", channels=[3, 4])
    student, x = network(made, 0), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    student.network.get_submodule("block1.conv").eval()
    modes = [module.training for module in student.modules()]
    other = student.network.get_submodule("block1.bn").state_dict()
    kept = {name: value.clone() for name, value in other.items()}
    calibrate(student, ["block2.bn"], x)
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(value, kept[name]) for name, value in other.items())
    seen = Tapped(student.network, taps=["block2.bn:in", "block2.bn"])
    for training in (False, True):
        view = seen.train(training)(x)
        torch.testing.assert_close(view.at["block2.bn"], view.at["block2.bn:in"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("teacher", "larger", "layer"),
    [
        ({"family": "wrn", "depth": 10, "widen": 2}, {"widen": 3}, "block1.0.conv1"),
        ({"family": "resnet", "depth": 8}, {"depth": 14}, "conv1"),
    ],
    ids=["a WRN widened", "a ResNet deepened"],
)
def test_a_convolutional_network_grows_in_a_job(tmp_path: Path, teacher: dict[str, Any], larger: dict[str, Any], layer: str) -> None:
    """With a learning rate of almost nothing the exported student is what it began as."""
    teacher = {**teacher, "input": [1, 8, 8], "classes": 10, "stem_stride": 2}
    recipe = {"epochs": 1, "batch_size": 32, "optimizer": {"name": "adamw", "lr": 1e-9, "weight_decay": 0}}
    folder = fill(tmp_path / "job", networks=(teacher, {**teacher, **larger}), methods=[{"name": "net2net"}], recipe=recipe)
    ended = work("run", folder)
    assert ended.code == 0, ended.log
    ours, theirs = load_file(folder / "out" / "export" / "model.safetensors"), weights_of(teacher, 1)
    assert len(ours) >= len(theirs)
    first = theirs[f"{layer}.weight"]
    torch.testing.assert_close(ours[f"{layer}.weight"][: len(first)], first, rtol=0, atol=1e-6)
