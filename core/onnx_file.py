"""ONNX models as they come: read, and looked through, before anything runs them. They may name files, and nothing is read but this one."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.errors import Refused, first_line
from core.isolation import bounded

_MAX_BYTES = 2 << 30
"""What one message of protocol buffers can hold; more lies in files beside it, and those are not taken."""
_MAX_NODES, _MAX_DEPTH = 50_000, 8
_OPSETS = {"": 26, "ai.onnx": 26, "ai.onnx.ml": 5}
"""The newest operator set of each domain that is taken."""
_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
"""The element types of a tensor, by their number in the format."""
_ENDLESS = frozenset({"Loop", "Scan"})
_SPARE = 128 << 20


class Port(NamedTuple):
    """The input or the output of a model: an extent is None where the model leaves it open."""

    name: str
    dtype: Any
    shape: tuple[int | None, ...]


def read_model(path: Path, where: str) -> Any:
    """The model, read without the files that it may name. Raises Refused at `where` for one that is not whole or not sound, or leads
    anywhere, and at /format where ONNX cannot be read here.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401  # whether it is there
    except ImportError as missing:
        hint = "the operator installs the extra: retort-service[export]"
        raise Refused("/format", f"this worker cannot read ONNX: {missing}", hint=hint) from missing
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise Refused(where, f"the model has {size:,} bytes; at most {_MAX_BYTES:,} are read", hint="export it in half precision")
    try:
        with bounded(4 * size + _SPARE):
            model = onnx.load_model(path, load_external_data=False)
    except Exception as wrong:  # whatever the parser says of bytes that are none of its own
        raise Refused(
            where, f"this is no ONNX model: {first_line(wrong)}", hint="torch.onnx.export, tf2onnx or skl2onnx make one"
        ) from wrong
    if not model.graph.node or not model.opset_import:
        raise Refused(where, "this is no ONNX model: it has no operators", hint="torch.onnx.export, tf2onnx or skl2onnx make one")
    own = {(function.domain, function.name) for function in model.functions}
    for opset in model.opset_import:
        if opset.domain not in _OPSETS and all(domain != opset.domain for domain, _ in own):
            reason = f"the model needs operators of the domain {opset.domain!r}"
            raise Refused(where, reason, hint=f"export it with the operators of {', '.join(filter(None, _OPSETS))} alone")
        if opset.version > _OPSETS.get(opset.domain, opset.version):
            reason = f"the model needs version {opset.version} of the operators; up to {_OPSETS[opset.domain]} are known here"
            raise Refused(where, reason, hint="export it with an older opset")
    for tensor in _tensors(model.graph, where, *(node for function in model.functions for node in function.node)):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            reason = f"the weights of {tensor.name[:80]!r} lie in a file beside the model"
            raise Refused(where, reason, hint="save it as one file: onnx.save_model(model, path, save_as_external_data=False)")
    _check_work(model, where)
    try:
        with bounded(4 * size + _SPARE):
            onnx.checker.check_model(model)
    except Exception as wrong:  # the checker is C++ and gives its errors many types
        raise Refused(where, f"the model is not sound: {first_line(wrong)}", hint="onnx.checker.check_model says more") from wrong
    return model


def _check_work(model: Any, where: str) -> None:
    """Refuse loops, which may never end, and functions that call others into far more operators than are written down."""
    held: dict[tuple[str, str], int] = {}
    waiting = list(model.functions)
    for _ in range(len(waiting) + 1):  # from those that call nobody up, a round for each level at most
        later = []
        for function in waiting:
            called = [(node.domain, node.op_type) for node in _nodes(function, where)]
            unknown = any(name not in held and any(name == (each.domain, each.name) for each in waiting) for name in called)
            if unknown:
                later.append(function)
            else:
                held[function.domain, function.name] = sum(held.get(name, 1) for name in called)
        if len(later) == len(waiting):
            break
        waiting = later
    if waiting:
        raise Refused(where, f"the function {waiting[0].name[:80]!r} of the model calls itself", hint="export it without functions")
    total = 0
    for node in _nodes(model.graph, where, *(node for function in model.functions for node in function.node)):
        if node.op_type in _ENDLESS:
            raise Refused(where, f"the model has a loop, {node.op_type}, which may never end", hint="export it for one step, or unrolled")
        total += held.get((node.domain, node.op_type), 1)
    if total > _MAX_NODES:
        raise Refused(where, f"the model's functions unfold into more than {_MAX_NODES:,} operators", hint="export it without functions")


def _nodes(graph: Any, where: str, *more: Any) -> Iterator[Any]:
    """Every operator of a graph and of the graphs inside it, and `more`; `Refused` where they are absurdly many or deep."""
    waiting, count = [(node, 0) for node in (*graph.node, *more)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise Refused(where, f"the model has more than {_MAX_NODES:,} operators, or graphs inside each other {_MAX_DEPTH} deep")
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                waiting += [(each, depth + 1) for each in inner.node]


def _graphs(graph: Any, where: str, *more: Any) -> Iterator[Any]:
    yield graph
    for node in _nodes(graph, where, *more):
        for attribute in node.attribute:
            yield from ([attribute.g] if attribute.HasField("g") else [])
            yield from attribute.graphs


def _tensors(graph: Any, where: str, *more: Any) -> Iterator[Any]:
    """Every tensor that a model holds."""
    for inner in _graphs(graph, where, *more):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(graph, where, *more):
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []), *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _port(value: Any) -> Port | None:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in _FLOATS or not kind.HasField("shape"):
        return None
    shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Port(value.name, _FLOATS[kind.elem_type], shape)


def entry_of(model: Any, where: str) -> Port:
    """The one input of a model; Refused where there is another, or its batch is neither free nor 1."""
    known = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in known]
    ports = [port for value in values if (port := _port(value)) is not None]
    if len(values) != 1 or len(ports) != 1 or len(ports[0].shape) not in (2, 3, 4):
        named = ", ".join(value.name[:40] for value in values[:8]) or "none"
        raise Refused(where, f"a teacher has one input, a batch of real numbers; this model's inputs are {named}", hint="export one input")
    port = ports[0]
    if port.shape[0] not in (None, 1):
        reason = f"the model takes exactly {port.shape[0]} samples at a time"
        raise Refused(where, reason, hint="export it with a free batch: dynamic_axes or dynamic_shapes of torch.onnx.export")
    return port


def leaving_of(model: Any, where: str) -> Port:
    """The one output of a model that can be its logits; Refused where that cannot be told."""
    ports = [port for value in model.graph.output if (port := _port(value)) is not None]
    rows = [port for port in ports if len(port.shape) == 2]
    found = ports if len(ports) == 1 else rows if len(rows) == 1 else [port for port in rows if port.name in ("logits", "output")]
    if len(found) != 1:
        named = ", ".join(value.name[:40] for value in model.graph.output[:8])
        hint = "export one output, or call it 'logits'"
        raise Refused(where, f"it cannot be told which output has the logits, (batch, classes): {named}", hint=hint)
    return found[0]


def numbers_in(model: Any, where: str) -> int:
    """How many real numbers a model holds: its parameters, as far as a format without that word can tell."""
    return sum(math.prod(tensor.dims) for tensor in _tensors(model.graph, where) if tensor.data_type in _FLOATS)
