"""Networks of timm: made by name, measured, and refused with timm's own reasons; the name is looked up where networks are built."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from core.anatomy import measure
from core.errors import Refused
from core.networks import Family, parse
from core.networks.timm import library


def named(name: str, size: int = 32, **more: Any) -> Family:
    return parse({"family": "timm", "name": name, "input": [3, size, size], "classes": 5, **more})


def refusal(family: Family) -> Refused:
    with pytest.raises(Refused) as refused:
        measure(family)
    return refused.value


def test_reading_a_request_does_not_import_timm() -> None:
    program = """
import sys
from core.networks import parse
parse({"family": "timm", "name": "no_such_network", "input": [3, 32, 32], "classes": 5})
assert "timm" not in sys.modules and "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_without_the_extra_it_is_refused_and_the_extra_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # Python's own way to say that there is none
    refused = refusal(named("resnet18"))
    assert refused.where == "/architecture/family"
    assert "retort-service[timm]" in refused.hint


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_its_figures_are_those_of_a_network_with_weights(name: str) -> None:
    """Against timm itself and the flop counter on the CPU: the anatomy was taken without weights."""
    anatomy = measure(named(name))
    network = library().create_model(name, num_classes=5, **({"img_size": (32, 32)} if "vit" in name else {})).eval()
    assert anatomy.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert anatomy.weights == {key: tuple(value.shape) for key, value in network.state_dict().items()}
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network(torch.rand(2, 3, 32, 32))
    assert anatomy.flops == flops.get_total_flops() // 2


def test_a_transformer_made_for_another_size_is_made_for_the_size_of_the_input() -> None:
    anatomy = measure(named("vit_tiny_patch16_224", 64))
    assert anatomy.weights["pos_embed"] == (1, 17, 192)


def test_attention_can_be_differentiated_twice() -> None:
    network = named("test_vit").build().eval()
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None or bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


def test_a_rate_reaches_the_network() -> None:
    assert named("test_resnet", drop_rate=0.25).build().drop_rate == 0.25


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    refused = refusal(named("resnet81"))
    assert refused.where == "/architecture/name"
    assert "'resnet18'" in refused.hint


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "hf_hub:timm/resnet18", "../resnet18", ""])
def test_a_name_that_would_fetch_weights_is_none(name: str) -> None:
    with pytest.raises(Refused) as refused:
        named(name)
    assert refused.value.where == "/architecture/name"


def test_a_size_that_does_not_fit_is_refused_with_timms_reason() -> None:
    refused = refusal(named("test_vit", 40))
    assert refused.where == "/architecture/input"
    assert "should be divisible by patch size" in refused.reason


def test_a_setting_that_a_network_lacks_is_refused_with_timms_reason() -> None:
    refused = refusal(named("vgg11", drop_path_rate=0.1))
    assert refused.where == "/architecture"
    assert "drop_path_rate" in refused.reason


def test_the_exported_file_says_first_that_it_needs_timm_and_runs_without_retort(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(named("test_vit").source())
    assert "needs timm" in (tmp_path / "network.py").read_text().splitlines()[0]
    program = (
        "import sys; sys.path.insert(0, '.'); from network import build; print(len(build().state_dict())); assert 'core' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True, timeout=300, capture_output=True, text=True)
    assert int(told.stdout) == len(named("test_vit").build().state_dict())


def test_a_class_token_that_is_handed_to_a_block_does_not_hinder_the_counting() -> None:
    assert measure(named("cait_xxs24_224", 32)).flops > 0
