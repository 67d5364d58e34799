"""What a recorded pass says of a network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.anatomy import Anatomy, measure
from core.graph import Node
from tests.core.growing import family, zoo


class Odd(nn.Module):
    """Works in place, calls a layer twice, uses a constant and a weight that no module applies."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.fc(x))
        h += x
        h = self.fc(F.relu_(h)) + self.shift
        logits: Tensor = h * torch.ones(4, device=x.device)
        return logits


def nodes() -> tuple[Node, ...]:
    return measure(family(Odd, (4,), 4)).graph


def test_every_call_is_there_with_what_it_reads_and_gives() -> None:
    assert [(node.function, node.at, node.reads, node.weights, node.gives) for node in nodes()] == [
        ("linear", "fc", (0,), ("fc.weight", "fc.bias"), (1,)),
        ("relu", "act", (1,), (), (2,)),
        ("add", "", (2, 0), (), (3,)),
        ("relu", "", (3,), (), (4,)),
        ("linear", "fc", (4,), ("fc.weight", "fc.bias"), (5,)),
        ("add", "", (5,), ("shift",), (6,)),
        ("mul", "", (6,), (), (7,)),
    ]
    assert [node.shapes for node in nodes()] == [((4,),)] * 7
    assert [node.layer for node in nodes()[:2]] == ["fc", "act"]


def test_settings_tell_tensors_apart_and_a_call_in_place_from_none() -> None:
    assert [node.settings for node in nodes()] == ["x, w, w", "x", "x, x", "x", "x, w, w", "x, w", "x, ?"]


def test_a_report_stored_before_there_was_a_graph_is_read() -> None:
    now = measure(zoo("mlp"))
    old = now.to_json()
    assert len(old.pop("graph")) == 4
    assert Anatomy.model_validate(old) == now.model_copy(update={"graph": ()})
    assert Anatomy.model_validate(now.to_json()) == now
