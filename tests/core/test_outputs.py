"""Which output answers for which class: by name, by a map of one's own, and not at all."""

import pytest
import torch
from torch import nn

from core.errors import Refused
from core.fold import folded
from core.outputs import answering
from core.taps import Tapped

NAMES = ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [(None, None), (NAMES, None), (("eel", "cat", "dog"), (1, 2, 0)), (("cat", "dog", "moray"), None), (("cat", "dog"), None)],
)
def test_the_same_names_in_another_order_are_found_by_name(labels: tuple[str, ...] | None, outputs: tuple[int, ...] | None) -> None:
    assert answering(NAMES, labels, 3, where="/label_map") == outputs


def test_a_map_picks_outputs_by_label_or_number() -> None:
    labels = [f"n{number}" for number in range(1000)]
    found = answering(NAMES, labels, 1000, {"cat": "n281", "dog": 207, "eel": "n390"}, where="/label_map")
    assert found == (281, 207, 390)


def test_a_map_that_says_what_is_so_anyway_changes_nothing() -> None:
    assert answering(NAMES, None, 3, {"cat": 0, "dog": 1, "eel": 2}, where="/label_map") is None


@pytest.mark.parametrize(
    ("label_map", "where", "message"),
    [
        ({"cat": 0, "dog": 1}, "/label_map", "1 of the dataset's 3 classes are not in it: eel"),
        ({"cat": 0, "dog": 1, "eels": 2}, "/label_map/eels", "no class 'eels'"),
        ({"cat": 0, "dog": 1, "a/b~c": 2}, "/label_map/a~1b~0c", "no class 'a/b~c'"),
        ({"cat": 0, "dog": 1, "eel": 1}, "/label_map/eel", "output 1 answers for 'dog' already"),
        ({"cat": 0, "dog": 1, "eel": 4}, "/label_map/eel", "no output 4: the teacher has 4"),
        ({"cat": 0, "dog": 1, "eel": "moray"}, "/label_map/eel", "no output 'moray'"),
    ],
)
def test_a_map_that_cannot_be_followed_is_refused_at_its_entry(label_map: dict[str, str | int], where: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        answering(NAMES, ("cats", "dogs", "morays", "eels"), 4, label_map, where="/label_map")
    assert refused.value.where == where


def test_a_network_shows_the_chosen_outputs_in_the_chosen_order_folded_too() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 4))
    whole, chosen = Tapped(network).eval(), Tapped(network, outputs=(3, 0)).eval()
    x = torch.rand(5, 2)
    expected = whole(x).logits[:, [3, 0]]
    assert torch.equal(chosen(x).logits, expected)
    assert torch.allclose(folded(chosen)(x).logits, expected)
    assert "outputs" not in chosen.state_dict()
