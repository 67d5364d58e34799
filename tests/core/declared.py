"""The fields that some families cannot do without, for tests that go through all families."""

from typing import Any


def node(name: str, op: str, *sources: str, **fields: Any) -> dict[str, Any]:
    """One node of a declared network; without sources it reads the one before."""
    return {"name": name, "op": op, **({"from": list(sources)} if sources else {}), **fields}


def residual(classes: int, *, wider: int = 0, deeper: bool = False) -> list[dict[str, Any]]:
    """A small residual network for images of any size: an identity shortcut, then a convolution where the size halves."""
    more = [node("conv6", "conv2d", channels=16 + wider, kernel=3, padding=1), node("bn6", "batch_norm"), node("last", "relu")]
    return [
        node("conv1", "conv2d", channels=8 + wider, kernel=3, padding=1, bias=False),
        node("bn1", "batch_norm"),
        node("relu1", "relu"),
        node("conv2", "conv2d", channels=8 + wider, kernel=3, padding=1, bias=False),
        node("bn2", "batch_norm"),
        node("add1", "add", "relu1", "bn2"),
        node("relu2", "relu"),
        node("conv3", "conv2d", channels=16 + wider, kernel=3, stride=2, padding=1, bias=False),
        node("bn3", "batch_norm"),
        node("relu3", "relu"),
        node("conv4", "conv2d", channels=16 + wider, kernel=3, padding=1, bias=False),
        node("bn4", "batch_norm"),
        node("shortcut", "conv2d", "relu2", channels=16 + wider, kernel=1, stride=2),
        node("add2", "add", "bn4", "shortcut"),
        node("relu4", "relu"),
        node("conv5", "conv2d", channels=16 + wider, kernel=3, stride=2, padding=1, bias=False),
        node("bn5", "batch_norm"),
        node("relu5", "relu"),
        *(more if deeper else ()),
        node("pool", "adaptive_avg_pool"),
        node("flatten", "flatten"),
        node("fc", "linear", features=classes),
    ]


def required(family: str, classes: int) -> dict[str, Any]:
    """What must be said of a family beside its input and its classes."""
    fields: dict[str, dict[str, Any]] = {"graph": {"nodes": residual(classes)}, "timm": {"name": "test_resnet"}}
    return fields.get(family, {})
