"""Names in a file and names in an architecture: what is stripped, what is mended, and how the rest is told."""

import pytest

from core.errors import Refused
from core.keys import Shape, matched

EXPECTED: dict[str, Shape] = {"conv1.weight": (4, 3, 3, 3), "bn1.num_batches_tracked": (), "fc.weight": (2, 4), "fc.bias": (2,)}


def named(prefix: str = "", **changes: Shape) -> dict[str, Shape]:
    return {prefix + name: shape for name, shape in EXPECTED.items()} | changes


def test_equal_names_are_left_as_they_are() -> None:
    found = matched(named(), EXPECTED, {}, where="/upload")
    assert found.names == {name: name for name in EXPECTED}
    assert not found.is_changed


@pytest.mark.parametrize(
    ("prefix", "stripped"),
    [
        ("module.", ("module.",)),
        ("_orig_mod.", ("_orig_mod.",)),
        ("module._orig_mod.module.", ("module.", "_orig_mod.", "module.")),
    ],
)
def test_prefixes_that_every_name_has_are_stripped_again_and_again(prefix: str, stripped: tuple[str, ...]) -> None:
    found = matched(named(prefix), EXPECTED, {}, where="/upload")
    assert found.names["fc.bias"] == f"{prefix}fc.bias"
    assert (found.stripped, found.is_changed) == (stripped, True)


def test_a_prefix_that_one_name_lacks_is_none() -> None:
    with pytest.raises(Refused, match=r"unexpected: module\.conv1\.weight"):
        matched({**named("module."), "extra": (1,)}, EXPECTED, {}, where="/upload")


def test_a_network_whose_own_names_begin_so_keeps_them() -> None:
    own = named("module.")
    assert matched(own, own, {}, where="/upload").names == {name: name for name in own}


def test_the_counter_of_an_average_is_no_weight() -> None:
    found = matched(named("module.", n_averaged=()), EXPECTED, {}, where="/upload")
    assert "n_averaged" not in found.names.values()


def test_counters_of_batch_norm_may_be_missing_and_begin_at_zero() -> None:
    less = {name: shape for name, shape in named().items() if name != "bn1.num_batches_tracked"}
    assert matched(less, EXPECTED, {}, where="/upload").filled == ("bn1.num_batches_tracked",)


def test_the_longest_rule_is_applied_once() -> None:
    """ "net.head." and not "net."; and what "net." gives is not renamed again by "conv1."."""
    theirs = {"net.conv1.weight": (4, 3, 3, 3), "net.bn1.num_batches_tracked": (), "net.head.weight": (2, 4), "net.head.bias": (2,)}
    rules = {"net.": "", "net.head.": "fc."}
    found = matched(theirs, EXPECTED, rules, where="/upload")
    assert found.names == dict(zip(EXPECTED, theirs, strict=True))
    assert found.renamed == 4


def test_rules_apply_behind_the_usual_prefixes() -> None:
    theirs = {name.replace("module.fc", "module.head"): shape for name, shape in named("module.").items()}
    found = matched(theirs, EXPECTED, {"head.": "fc."}, where="/upload")
    assert found.names["fc.bias"] == "module.head.bias"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"encoder.": ""}, 'no tensor\'s name begins with "encoder."'),
        ({"conv1.weight": "fc.weight"}, 'make one name of "conv1.weight" and "fc.weight"'),
    ],
)
def test_a_rule_that_does_nothing_or_harm_is_refused(rules: dict[str, str], message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        matched(named(), EXPECTED, rules, where="/upload")
    assert refused.value.where == "/weights/rename"


def test_the_rule_that_would_mend_most_is_the_hint() -> None:
    theirs = {f"backbone.layers.{name}": shape for name, shape in EXPECTED.items()}
    with pytest.raises(Refused) as refused:
        matched(theirs, EXPECTED, {}, where="/upload")
    # The counter may be missing, so three are.
    assert refused.value.hint == '"weights": {"rename": {"backbone.layers.": ""}} would mend 3 of 3 names'
    assert matched(theirs, EXPECTED, {"backbone.layers.": ""}, where="/upload").renamed == 4


def test_no_rule_is_made_up_where_none_explains_much() -> None:
    with pytest.raises(Refused) as refused:
        matched({"a.weight": (7,), "b.bias": (9,)}, EXPECTED, {}, where="/upload")
    assert refused.value.hint == "the file must hold the state dict of exactly this architecture"
