"""What a training pass keeps for its backward pass."""

from typing import Any

import pytest
import torch

from core.anatomy import measure
from core.networks import parse
from core.taps import Tapped


def test_what_a_training_pass_keeps_is_counted_by_hand() -> None:
    """The first layer keeps its input, 64 values, and the ReLU and the second layer both keep what the ReLU gives, 16: in fp32."""
    assert measure(parse({"family": "mlp", "input": [64], "hidden": [16], "classes": 10})).activations == 4 * (64 + 16)


@pytest.mark.parametrize("architecture", [{"family": "resnet", "depth": 8}, {"family": "mobilenetv2", "width": 0.25}, {"family": "wrn"}])
def test_what_a_training_pass_keeps_is_what_autograd_holds_with_weights(architecture: dict[str, Any]) -> None:
    """Sizes of what the graph of a real pass refers to, found by walking it, and not by the hooks that measured."""
    family = parse({"input": [3, 16, 16], "classes": 10, **architecture})
    network, batch = Tapped(family.build()).network.train(), 64
    held, seen, todo = dict[int, int](), set[Any](), [network(torch.rand(batch, 3, 16, 16)).grad_fn]
    own = {tensor.data_ptr() for tensor in network.state_dict().values()}
    while todo:
        here = todo.pop()
        if here is None or here in seen:
            continue
        seen.add(here)
        todo += [before for before, _ in here.next_functions]
        for name in dir(here):
            value = getattr(here, name) if name.startswith("_saved_") else None
            if isinstance(value, torch.Tensor) and value.data_ptr() not in own:
                held[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    assert measure(family).activations == sum(held.values()) // batch
