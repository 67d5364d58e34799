"""Declared networks that are too deep, too wide, too many or not what their names say, and names that lead out of timm."""

from collections.abc import Iterator
from typing import Any

from tests.core.declared import node, residual
from tests.hostile.inputs import Input

_END = [node("flat", "flatten"), node("fc", "linear", features=10)]


def graph(*nodes: Any, **fields: Any) -> dict[str, Any]:
    return {"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": list(nodes), **fields}


def named(name: Any) -> dict[str, Any]:
    """A network with a node of this name."""
    return graph(node(name, "relu"), *_END)


def deep(times: int) -> Any:
    inner: Any = 1
    for _ in range(times):
        inner = [inner]
    return inner


def graphs() -> dict[str, Any]:
    """Every declared network by its name."""
    huge = 1 << 40
    doubling = [node("n0", "relu")] + [node(f"n{k + 1}", "concat", f"n{k}", f"n{k}") for k in range(70)]
    adding = [node("n0", "relu")] + [node(f"n{k + 1}", "add", f"n{k}", f"n{k}") for k in range(900)]
    conv = {"channels": 4, "kernel": 3, "padding": 1}
    names = (
        "input", "x", "self", "forward", "training", "__class__", "__init__", "_modules", "weight.data", "a.b", "a/b", "../a", "", " ",
        "a b", "a\nb", "import", "class", "a;b", "a)\nimport os",
        "ä", "a" * 10_000, "0", 7, None, True, ["a"], {"a": 1}, "a\0b", "eval('1')", "\u202ea", "state_dict", "T_destination",
        "call_super_init",
    )  # fmt: skip
    return {
        **{f"a node called {str(name)[:20]!r} of {len(str(name))}": named(name) for name in names},
        "70 doublings": graph(*doubling, *_END),
        "900 additions of itself": graph(*adding, *_END),
        "2001 nodes": graph(*[node(f"n{k}", "relu") for k in range(2001)], *_END),
        "1990 convolutions": graph(*[node(f"n{k}", "conv2d", **conv) for k in range(1990)], *_END),
        "100,000 nodes": graph(*[node(f"n{k}", "relu") for k in range(50_000)]),
        "100,000 nodes of none": graph(*[{}] * 50_000),
        "all read all": graph(
            node("n0", "relu"), *[node(f"n{k}", "add", *[f"n{j}" for j in range(k)], f"n{k - 1}") for k in range(1, 300)], *_END
        ),
        "one reads a million": graph(node("a", "relu"), node("b", "add", *["a"] * 200_000), *_END),
        "channels of 2^40": graph(node("c", "conv2d", channels=huge, kernel=1), *_END),
        "features of 2^63": graph(node("f", "flatten"), node("l", "linear", features=1 << 63), *_END),
        "features of 4096 many times": graph(
            node("f", "flatten"), *[node(f"l{k}", "linear", features=4096) for k in range(400)], node("fc", "linear", features=10)
        ),
        "a kernel of 2^31": graph(node("c", "conv2d", channels=4, kernel=1 << 31), *_END),
        "padding of 2^40": graph(node("c", "conv2d", channels=4, kernel=3, padding=huge), *_END),
        "a stride of nothing": graph(node("c", "conv2d", channels=4, kernel=3, stride=0), *_END),
        "a dilation of 2^40": graph(node("c", "conv2d", channels=4, kernel=3, dilation=huge), *_END),
        "groups of nothing": graph(node("c", "conv2d", channels=4, kernel=3, groups=0), *_END),
        "negative channels": graph(node("c", "conv2d", channels=-4, kernel=3), *_END),
        "half a channel": graph(node("c", "conv2d", channels=4.5, kernel=3), *_END),
        "channels of text": graph(node("c", "conv2d", channels="4; import os", kernel=3), *_END),
        "channels of lists": graph(node("c", "conv2d", channels=deep(900), kernel=3), *_END),
        "an op of lists": graph(node("c", deep(900))),
        "an op of Python": graph(node("c", "__import__('os')"), *_END),
        "an op of torch": graph(node("c", "torch.hub.load"), *_END),
        "no op": graph({"name": "a"}, *_END),
        "no name": graph({"op": "relu"}, *_END),
        "a field too many": graph(node("a", "relu", inplace="os"), *_END),
        "it reads itself": graph(node("a", "relu", "a"), *_END),
        "a circle": graph(node("a", "relu", "b"), node("b", "relu", "a"), *_END),
        "it reads nobody": graph(node("a", "relu", "nobody" * 1000), *_END),
        "from of numbers": graph({"name": "a", "op": "relu", "from": [1, None]}, *_END),
        "from of nothing": graph({"name": "a", "op": "relu", "from": []}, *_END),
        "from of text": graph({"name": "a", "op": "relu", "from": "input"}, *_END),
        "no nodes": graph(),
        "nodes of text": graph(nodes="relu"),
        "nodes of an object": {**graph(), "nodes": {"0": node("a", "relu")}},
        "nodes of lists": {**graph(), "nodes": deep(900)},
        "an input of 2^40": graph(*_END, input=[huge, 8, 8]),
        "an input of 4096 cubed": graph(*_END, input=[4096, 4096, 4096]),
        "an input of lists": graph(*_END, input=deep(900)),
        "an input of nothing": graph(*_END, input=[]),
        "a billion classes": graph(*_END, classes=10**9),
        "classes of text": graph(*_END, classes="10"),
        "NaN classes": graph(*_END, classes=float("nan")),
        "1e400 classes": graph(*_END, classes=10**400),
        "a rate of NaN": graph(node("d", "dropout", p=float("nan")), *_END),
        "a slope of infinity": graph(node("d", "leaky_relu", slope=float("inf")), *_END),
        "good and named twice": graph(*residual(10), *residual(10)),
        "good": graph(*residual(10)),
        "groups of many": graph(node("g", "group_norm", groups=1 << 40), *_END),
        "pools that grow": graph(*[node(f"p{k}", "adaptive_avg_pool", size=[4096, 4096]) for k in range(9)], *_END),
        "enlarged": graph(*[node(f"u{k}", "upsample", factor=4096) for k in range(3)], *_END),
        "heads without end": graph(node("a", "attention", heads=1 << 40), *_END),
    }


def others() -> dict[str, Any]:
    """Other families, and what is no family."""
    small = {"input": [3, 32, 32], "classes": 10}
    names = (
        "../../etc/passwd", "/etc/passwd", "hf-hub:evil/model", "hf_hub:evil/model", "local-dir:/tmp", "local_dir:/etc",
        "resnet18.a1_in1k", "resnet18/../resnet18", "resnet18\0", "resnet18\n", "", "http://localhost:9/model", "file:///etc/passwd",
        "timm.models.resnet18", "__import__('os')", "os.system", "r" * 100_000, "vit_giant_patch14_dinov2", "eva02_enormous_patch14_clip_224",
        None, 7, ["resnet18"], {"a": 1}, "safe_model_name", "RESNET18",
    )  # fmt: skip
    made: dict[str, Any] = {f"timm {str(name)[:30]!r} of {len(str(name))}": {"family": "timm", "name": name, **small} for name in names}
    families = (
        "../graph",
        "graph.py",
        "__init__",
        "os",
        "",
        "timm.library",
        "onnx",
        None,
        7,
        ["graph"],
        {"graph": 1},
        "g" * 100_000,
        "graph\0",
        "\u202egraph",
    )
    made |= {f"family {str(name)[:20]!r} of {len(str(name))}": {"family": name, **small} for name in families}
    made |= {f"{kind} as an architecture": kind for kind in (None, 7, "resnet", True, 1.5)} | {
        "a list": [],
        "nothing": {},
        "lists": deep(900),
        "a field too many": {"family": "mlp", "hidden": [4], "__class__": 1, **small},
    }
    made |= {
        "pretrained": {"family": "timm", "name": "resnet18", "pretrained": True, **small},
        "a checkpoint path": {"family": "timm", "name": "resnet18", "checkpoint_path": "/etc/passwd", **small},
    }
    made |= {
        "hidden of 16384": {"family": "mlp", "hidden": [16384] * 16, **small},
        "hidden of a million": {"family": "mlp", "hidden": [4] * 1_000_000, **small},
        "depth of 2^40": {"family": "resnet", "depth": 6 * (1 << 40) + 2, **small},
    }
    made |= {
        "timm of large images": {"family": "timm", "name": "vit_base_patch16_224", "input": [3, 4096, 4096], "classes": 10},
        "timm of many classes": {"family": "timm", "name": "resnet18", "input": [4096, 32, 32], "classes": 100_000},
    }
    return made


def inputs(canary: str) -> Iterator[Input]:
    for what, architecture in (graphs() | others()).items():
        yield Input(what, "architecture", b"", {"architecture": architecture, "normalization": None})
    for value in (float("nan"), float("inf"), 0.0, -1.0, 1e-320, "1", None, [1.0], 10**400):
        normalization = {"mean": [0.0, 0.0, 0.0], "std": [value, 1.0, 1.0]}
        yield Input(
            f"a deviation of {str(value)[:9]}", "architecture", b"", {"architecture": graph(*residual(10)), "normalization": normalization}
        )
