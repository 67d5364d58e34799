"""The multilayer perceptron by hand."""

import torch

from core.anatomy import measure
from core.networks import parse


def test_its_parameters_are_those_of_its_layers() -> None:
    anatomy = measure(parse({"family": "mlp", "input": [1, 8, 8], "classes": 10, "hidden": [32, 16]}))
    assert anatomy.parameters == (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)
    assert list(anatomy.weights) == ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "fc.weight", "fc.bias"]
    assert anatomy.flops == 2 * (64 * 32 + 32 * 16 + 16 * 10)


def test_the_default_has_the_stated_number_of_parameters() -> None:
    anatomy = measure(parse({"family": "mlp", "input": [784], "classes": 10}))
    assert anatomy.parameters == 784 * 128 + 128 + 128 * 10 + 10 == 101_770


def test_without_hidden_layers_it_is_a_linear_classifier() -> None:
    network = parse({"family": "mlp", "input": [3], "classes": 2, "hidden": []}).build()
    network.load_state_dict({"fc.weight": torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]), "fc.bias": torch.tensor([0.5, -1.0])})
    assert torch.equal(network(torch.tensor([[1.0, 2.0, 3.0]])), torch.tensor([[7.5, 1.0]]))


def test_an_image_is_laid_flat_channel_by_channel() -> None:
    network = parse({"family": "mlp", "input": [2, 1, 2], "classes": 2, "hidden": []}).build()
    network.load_state_dict({"fc.weight": torch.tensor([[1.0, 10.0, 100.0, 1000.0], [0.0, 0.0, 0.0, 0.0]]), "fc.bias": torch.zeros(2)})
    assert network(torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]))[0, 0] == 4321


def test_rectified_outputs_are_those_of_the_same_weights_where_they_are_above_zero() -> None:
    plain, rectified = (parse({"family": "mlp", "input": [6], "classes": 4, "rectified": told}).build() for told in (False, True))
    rectified.load_state_dict(plain.state_dict())
    x = torch.randn(50, 6)
    assert torch.equal(rectified(x), plain(x).clamp_min(0))
    assert (plain(x) < 0).any()
