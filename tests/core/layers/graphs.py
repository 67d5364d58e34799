"""Random declared networks: small inputs, every op, branches that are brought together again."""

from typing import Any

from hypothesis import strategies as st

from core.layers import LAYERS, Misfit
from tests.core.declared import node

Shape = tuple[int, ...]

_SIZES = st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4)).map(list))
_STRIDES = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)).map(list))
_MARGINS = st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)).map(list))
_POOL = {"kernel": _SIZES, "stride": st.one_of(st.none(), _STRIDES), "padding": _MARGINS, "ceil": st.booleans()}
_FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "conv2d": {
        "channels": st.sampled_from([1, 2, 4, 6]),
        "kernel": _SIZES,
        "stride": _STRIDES,
        "padding": _MARGINS,
        "dilation": _STRIDES,
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
    },
    "linear": {"features": st.integers(1, 6), "bias": st.booleans()},
    "batch_norm": {"eps": st.sampled_from([1e-5, 1e-3]), "momentum": st.sampled_from([0.1, 0.5])},
    "group_norm": {"groups": st.sampled_from([1, 2])},
    "leaky_relu": {"slope": st.sampled_from([0.01, 0.2])},
    "max_pool": _POOL,
    "avg_pool": _POOL,
    "adaptive_avg_pool": {"size": _SIZES},
    "upsample": {"factor": st.integers(1, 2), "mode": st.sampled_from(["nearest", "bilinear"])},
    "dropout": {"p": st.sampled_from([0.1, 0.5])},
    "attention": {"heads": st.sampled_from([1, 2])},
    "take_token": {"index": st.integers(0, 2)},
}


_OPS = [*sorted(LAYERS), *["conv2d", "max_pool", "avg_pool", "group_norm", "linear", "attention"] * 4]
"""Those that often do not fit, or of which there is more to get wrong, are drawn more often."""


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """An architecture of the family graph that fits; each node that was drawn and does not fit was left out."""
    entrance: Shape = draw(st.sampled_from([(7,), (4, 6), (2, 6, 6), (3, 9, 7), (4, 5, 8)]))
    shapes: dict[str, Shape] = {"input": entrance}
    nodes: list[dict[str, Any]] = []
    for k in range(draw(st.integers(1, 9))):
        op = draw(st.sampled_from(_OPS))
        count = draw(st.integers(2, 3)) if LAYERS[op].joins else 1
        # Of those that join, most of one shape; of the others, most the newest.
        first = draw(st.one_of(st.just(next(reversed(shapes))), st.sampled_from(sorted(shapes))))
        alike = sorted(name for name, shape in shapes.items() if shape == shapes[first])
        sources = [first, *(draw(st.sampled_from(alike)) for _ in range(count - 1))]
        made = node(f"n{k}", op, *sources, **{field: draw(values) for field, values in _FIELDS.get(op, {}).items()})
        layer = LAYERS[op].model_validate(made)
        try:
            shapes[f"n{k}"] = layer.shape([shapes[source] for source in sources])
        except Misfit:
            continue
        nodes.append(made)
    read = {source for each in nodes for source in each["from"]}
    loose = [each["name"] for each in nodes if each["name"] not in read] or ["input"]
    nodes += [node(f"flat{k}", "flatten", name) for k, name in enumerate(loose)]
    if len(loose) > 1:
        nodes.append(node("all", "concat", *(f"flat{k}" for k in range(len(loose)))))
    nodes.append(node("fc", "linear", features=3))
    return {"family": "graph", "input": list(entrance), "classes": 3, "nodes": nodes}
