"""Reading an architecture that somebody sent."""

import pytest

from core.errors import Refused
from core.networks import families, parse


def test_the_zoo_is_that_of_the_distillation_literature() -> None:
    assert {"mlp", "convnet", "resnet", "wrn", "vgg", "mobilenetv2", "shufflenetv2"} <= families().keys()


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": "resnte", "input": [3, 32, 32], "classes": 10})
    assert refused.value.where == "/architecture/family"
    assert "'resnet'" in refused.value.hint


@pytest.mark.parametrize("family", [None, 3, ["mlp"], ""])
def test_a_family_that_is_no_name_is_refused(family: object) -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": family, "input": [3, 32, 32], "classes": 10})
    assert refused.value.where == "/architecture/family"


def test_a_missing_family_is_said_to_be_missing() -> None:
    with pytest.raises(Refused, match="does not say its family"):
        parse({"input": [3, 32, 32], "classes": 10})


def test_a_misspelt_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": "resnet", "input": [3, 32, 32], "classes": 10, "dept": 20})
    assert (refused.value.where, refused.value.hint) == ("/architecture/dept", "did you mean 'depth'?")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": "resnet", "classes": 10})
    assert refused.value.where == "/architecture/input"


def test_all_that_is_wrong_is_told_at_once_in_words_of_json() -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": "resnet", "dpth": 20, "input": "wide", "classes": "ten"})
    told = {each.where: each.reason for each in refused.value.all}
    assert told.keys() == {"/architecture/dpth", "/architecture/input", "/architecture/classes"}
    assert (refused.value.where, told["/architecture/input"]) == ("/architecture/dpth", "a list is wanted")
    with pytest.raises(Refused, match="a list of at least 1 is wanted, here are 0"):
        parse({"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": []})
    with pytest.raises(Refused) as refused:
        parse({"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": [5]})
    assert [each.where for each in refused.value.all] == ["/architecture/nodes/0"]


def test_the_pointer_begins_where_the_architecture_stood() -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": "resnet", "input": [3, 32, 0], "classes": 10}, where="/student/architecture")
    assert refused.value.where == "/student/architecture/input/2"


@pytest.mark.parametrize(("family", "depth"), [("resnet", 21), ("wrn", 18)])
def test_a_depth_that_no_block_count_gives_is_refused_with_its_neighbours(family: str, depth: int) -> None:
    with pytest.raises(Refused, match=r"as \d+ or \d+") as refused:
        parse({"family": family, "depth": depth, "input": [3, 32, 32], "classes": 10})
    assert refused.value.where == "/architecture/depth"


def test_flat_data_is_refused_by_a_family_of_images() -> None:
    with pytest.raises(Refused) as refused:
        parse({"family": "convnet", "input": [64], "classes": 10})
    assert refused.value.where.startswith("/architecture/input")


@pytest.mark.parametrize("nonsense", [None, [1, 2], "resnet", 3])
def test_what_is_no_object_is_refused(nonsense: object) -> None:
    with pytest.raises(Refused) as refused:
        parse(nonsense)
    assert refused.value.where == "/architecture"
