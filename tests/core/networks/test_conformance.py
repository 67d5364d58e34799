"""What every family must keep, run over the whole folder: a new file there is tested by this one."""

import copy
import itertools
import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from core.anatomy import Anatomy, match, measure
from core.errors import Refused
from core.networks import Family, families, parse
from core.taps import Tapped
from core.watch import BATCH, Operations
from tests.core.declared import required

INPUTS: tuple[tuple[int, ...], ...] = ((64,), (1, 8, 8), (3, 32, 32), (3, 28, 20))


def small(name: str, shape: tuple[int, ...] = (1, 8, 8)) -> Family:
    return parse({"family": name, "input": shape, "classes": 5, **required(name, 5)})


def takes(name: str, shape: tuple[int, ...]) -> bool:
    try:
        small(name, shape)
    except Refused:
        return False
    return True


CASES = [
    pytest.param(name, shape, id=f"{name}-{'x'.join(map(str, shape))}") for name in families() for shape in INPUTS if takes(name, shape)
]
every_family = pytest.mark.parametrize("name", list(families()))
every_family_of_ours = pytest.mark.parametrize("name", [name for name, family in families().items() if not family.needs])
every_case = pytest.mark.parametrize(("name", "shape"), CASES)


def network_of(family: Family) -> nn.Module:
    torch.manual_seed(0)
    return family.build()


@every_family
def test_the_name_is_the_name_of_the_file(name: str) -> None:
    family = families()[name]
    assert family.__module__ == f"core.networks.{name}"
    assert family.model_fields["family"].default == name
    assert issubclass(family.network, nn.Module)


@every_family
def test_it_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    family = families()[name]
    assert family.__doc__
    assert family.reference
    assert all(family.model_fields[field].description for field in family.model_fields if field != "family")


@every_family
def test_images_of_eight_by_eight_are_taken(name: str) -> None:
    assert takes(name, (1, 8, 8))


@every_family
def test_the_schema_describes_what_is_stored_and_what_is_stored_is_read_back(name: str) -> None:
    family = small(name)
    stored = family.model_dump(mode="json")
    schema = families()[name].model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(stored)
    assert parse(stored) == family
    assert {family} == {parse(stored)}


@every_family
def test_an_unknown_field_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refused) as refused:
        parse({**small(name).model_dump(), "widht": 3})
    assert refused.value.where == "/architecture/widht"
    assert refused.value.hint


@every_family
def test_every_number_is_bounded_and_what_is_beyond_is_refused_by_name(name: str) -> None:
    checked = 0
    for field, schema in families()[name].model_json_schema()["properties"].items():
        if field in ("family", "nodes"):  # the layers that a node may be have a test of their own
            continue
        for path, number in numbers(schema, (field,)):
            assert "maximum" in number, f"{'/'.join(path)} has no upper bound"
            assert "minimum" in number, f"{'/'.join(path)} has no lower bound"
            for value in (number["maximum"] + 1, number["minimum"] - 1):
                with pytest.raises(Refused) as refused:
                    parse(planted(small(name).model_dump(mode="json"), path, value))
                assert refused.value.where == "/architecture/" + "/".join(path)
                checked += 1
    assert checked


def numbers(schema: dict[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every number in a JSON schema, with the path of one value that it describes and its bounds."""
    if "enum" in schema and schema.get("type") == "integer":
        return [(path, {"minimum": min(schema["enum"]), "maximum": max(schema["enum"])})]
    if schema.get("type") in {"integer", "number"}:
        return [(path, schema)]
    if "anyOf" in schema:
        return [found for option in schema["anyOf"] for found in numbers(option, path)]
    parts = schema.get("prefixItems", [schema["items"]] if "items" in schema else [])
    assert schema.get("type") != "array" or "maxItems" in schema, f"{path} has no longest length"
    return [found for k, part in enumerate(parts) for found in numbers(part, (*path, str(k)))]


def planted(stored: dict[str, Any], path: tuple[str, ...], value: float) -> dict[str, Any]:
    field, *rest = path
    if not rest:
        return {**stored, field: value}
    items = list(stored[field])
    items[int(rest[0])] = value
    return {**stored, field: items}


@every_family
def test_it_cannot_be_changed(name: str) -> None:
    family, field = small(name), "classes"
    with pytest.raises(ValidationError):
        setattr(family, field, 7)


@every_case
def test_the_meta_device_builds_what_the_cpu_builds(name: str, shape: tuple[int, ...]) -> None:
    family = small(name, shape)
    with torch.device("meta"):
        planned = family.build().state_dict()
    assert {key: value.shape for key, value in planned.items()} == {
        key: value.shape for key, value in network_of(family).state_dict().items()
    }


@every_case
def test_a_forward_pass_gives_logits_and_a_backward_pass_reaches_every_parameter(name: str, shape: tuple[int, ...]) -> None:
    network = network_of(small(name, shape)).train()
    torch.manual_seed(1)
    logits = network(torch.rand(4, *shape))
    assert logits.shape == (4, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()  # type: ignore[no-untyped-call]
    for parameter, weight in network.named_parameters():
        assert weight.grad is not None, parameter
        assert weight.grad.isfinite().all(), parameter


@every_case
def test_the_anatomy_is_true(name: str, shape: tuple[int, ...]) -> None:
    family = small(name, shape)
    anatomy, network = measure(family), network_of(family)
    assert anatomy.weights == {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert anatomy.parameters == sum(p.numel() for p in network.parameters())
    assert (anatomy.input, anatomy.classes, anatomy.family) == (shape, 5, name)
    view = Tapped(network, taps=anatomy.taps).eval()(torch.rand(2, *shape))
    assert {tap: tuple(value.shape[1:]) for tap, value in view.at.items()} == dict(anatomy.taps)
    assert list(view.at) == list(anatomy.taps), "the taps stand in execution order"
    assert Anatomy.model_validate(anatomy.to_json()) == anatomy


@every_family_of_ours
def test_every_module_that_is_called_can_be_tapped_on_both_sides(name: str) -> None:
    anatomy = measure(small(name))
    for module, times in anatomy.calls.items():
        for call in range(1, times + 1):
            tap = f"{module}#{call}" if call > 1 else module
            assert {tap, f"{tap}:in"} <= anatomy.taps.keys(), "an operation that works in place overwrites what a tap would show"


@every_family
def test_every_relu_is_a_module_so_every_pre_activation_can_be_tapped(name: str) -> None:
    network = network_of(small(name)).eval()
    called: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.register_forward_hook(lambda module, args, output: called.append(module))
    counted = Counted()
    with torch.no_grad(), counted:
        network(torch.rand(2, 1, 8, 8))
    assert counted.relus == len(called) > 0


class Counted(Operations):  # type: ignore[no-untyped-call]
    """Counts ReLUs where they are computed, wherever they were called from."""

    relus = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.relus += func.overloadpacket.__name__ in {"relu", "relu_", "clamp_min", "threshold", "hardtanh", "hardtanh_"}
        return super().__torch_dispatch__(func, types, args, kwargs)


@every_family
def test_a_family_with_convolutions_has_stages_that_pair_with_themselves(name: str) -> None:
    anatomy = measure(small(name))
    if not any(len(shape) == 3 for tap, shape in anatomy.taps.items() if not tap.endswith(":in")):
        assert anatomy.stages == ()
        return
    assert anatomy.stages
    for stage in anatomy.stages:
        assert anatomy.taps[stage.out] == (stage.channels, *stage.size)
        assert stage.pre is not None
        assert anatomy.taps[stage.pre] == (stage.pre_channels, *stage.size)
    assert [pair.teacher for pair in match(anatomy, anatomy)] == [stage.out for stage in anatomy.stages]
    assert [pair.student for pair in match(anatomy, anatomy, "pre")] == [stage.pre for stage in anatomy.stages]


@cache
def anatomy_at_32(name: str) -> Anatomy:
    return measure(small(name, (3, 32, 32)))


IMAGES = [name for name in families() if not takes(name, (64,))]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(IMAGES, repeat=2)))
def test_any_two_families_pair_at_every_size_that_both_have(one: str, other: str) -> None:
    teacher, student = anatomy_at_32(one), anatomy_at_32(other)
    common = [stage.size for stage in teacher.stages if stage.size in {stage.size for stage in student.stages}]
    assert len(common) >= 2
    for pairs in (match(teacher, student), match(teacher, student, "pre")):
        assert [teacher.require(pair.teacher)[1:] for pair in pairs] == common
        assert [student.require(pair.student)[1:] for pair in pairs] == common


@every_family
def test_a_gradient_penalty_can_be_differentiated_again(name: str) -> None:
    tapped = Tapped(network_of(small(name))).train()
    x = torch.rand(3, 1, 8, 8, requires_grad=True)
    with tapped.quiet():
        (slope,) = torch.autograd.grad(tapped(x).logits.square().sum(), x, create_graph=True)
    slope.square().sum().backward()  # type: ignore[no-untyped-call]
    weight = next(iter(tapped.network.parameters()))
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().sum() > 0


@every_family
def test_a_copy_shows_its_own_taps(name: str) -> None:
    taps = list(measure(small(name)).taps)
    original = Tapped(network_of(small(name)), taps=taps).eval()
    twin = copy.deepcopy(original)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    x = torch.rand(2, 1, 8, 8)
    assert twin(x).logits.abs().sum() == 0
    assert original(x).logits.abs().sum() > 0
    assert twin(x).at[taps[-1]].abs().sum() == 0


@every_case
def test_its_source_is_the_same_network_in_plain_pytorch(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    family = small(name, shape)
    path = tmp_path / "network.py"
    path.write_text(family.source())
    assert not re.search(r"\bcore\b", path.read_text())
    network = network_of(family).eval()
    stranger: nn.Module = runpy.run_path(str(path))["build"]()
    stranger.load_state_dict(network.state_dict())
    x: Tensor = torch.rand(BATCH, *shape)
    assert torch.equal(stranger.eval()(x), network(x))
