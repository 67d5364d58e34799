"""ONNX models that name files, lie about their weights, never end, or are far larger than they look."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.inputs import Input

_HUGE = 1 << 40
Edit = Callable[[Any], object]


def model(edit: Edit = lambda made: None, *, shape: tuple[Any, ...] = ("n", 4), opset: int = 17) -> bytes:
    """A linear classifier of three classes that `edit` changes."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["logits"])]
    weights = [numpy_helper.from_array(np.ones((4, 3), np.float32), "w"), numpy_helper.from_array(np.zeros(3, np.float32), "b")]
    entry = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
    leaving = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])]
    made = helper.make_model(
        helper.make_graph(nodes, "g", entry, leaving, weights), opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    )
    edit(made)
    data: bytes = made.SerializeToString()
    return data


def constant(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.asarray(value), name)


def before(*nodes: Any, gives: str, weights: tuple[Any, ...] = ()) -> Edit:
    """Nodes before the last, of which `gives` is added to the logits."""

    def edit(made: Any) -> None:
        made.graph.node[0].output[0] = "z"
        made.graph.node.extend(nodes)
        made.graph.node.append(helper.make_node("Add", ["z", gives], ["logits"]))
        made.graph.initializer.extend(weights)

    return edit


def external(location: str, **more: str) -> Edit:
    def edit(made: Any) -> None:
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=value)

    return edit


def external_in(place: Callable[[Any, Any], object]) -> Edit:
    """A tensor that lies outside, put somewhere else than among the initialisers."""

    def edit(made: Any) -> None:
        tensor = constant("c", np.zeros(3, np.float32))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        place(made, tensor)

    return edit


def loop(times: int, *body: Any) -> Edit:
    """A loop of so many rounds that doubles or keeps a value."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), *(body or (helper.make_node("Add", ["v", "v"], ["w2"]),))],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("w2", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["m", "yes", "one"], ["v_end"], body=inner),
        helper.make_node("ReduceMax", ["v_end"], ["most"], keepdims=0),
    ]
    return before(
        *nodes, gives="most", weights=(constant("m", np.int64(times)), constant("yes", True), constant("one", np.ones(1, np.float32)))
    )


def nested(depth: int) -> Edit:
    def edit(made: Any) -> None:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        )
        for _ in range(depth):
            graph = helper.make_graph(
                [helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)],
                "g",
                [],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            )
        made.graph.node.extend(graph.node)
        made.graph.initializer.append(constant("c", True))

    return edit


def swollen(op: str, *inputs: Any, **attributes: Any) -> Edit:
    """One operator that makes far more than it is given, and what is largest in it."""
    names = tuple(f"i{k}" for k in range(len(inputs)))
    nodes = [
        helper.make_node(op, list(names), ["huge"], **attributes),
        helper.make_node("Cast", ["huge"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["real"], ["most"], keepdims=0),
    ]
    return before(*nodes, gives="most", weights=tuple(constant(name, value) for name, value in zip(names, inputs, strict=True)))


def lie(**fields: Any) -> Edit:
    """The first weight with other fields."""

    def edit(made: Any) -> None:
        tensor = made.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)
            else:
                setattr(tensor, name, value)

    return edit


def models() -> dict[str, bytes]:
    """Every model by its name."""
    one, f32 = np.ones(1, np.float32), np.float32
    node, good = helper.make_node, model()

    def function(made: Any) -> None:
        made.functions.append(
            helper.make_function(
                "evil",
                "F",
                ["a"],
                ["b"],
                [node("F", ["a"], ["b"], domain="evil")],
                [helper.make_opsetid("evil", 1), helper.make_opsetid("", 17)],
            )
        )
        made.opset_import.append(helper.make_opsetid("evil", 1))
        before(node("F", ["x"], ["y"], domain="evil"), node("ReduceMax", ["y"], ["most"], keepdims=0), gives="most")(made)

    def functions(made: Any) -> None:
        for k in range(40):
            inner = (
                [node(f"F{k + 1}", ["a"], ["c"], domain="evil"), node(f"F{k + 1}", ["c"], ["b"], domain="evil")]
                if k < 39
                else [node("Neg", ["a"], ["b"])]
            )
            made.functions.append(
                helper.make_function("evil", f"F{k}", ["a"], ["b"], inner, [helper.make_opsetid("evil", 1), helper.make_opsetid("", 17)])
            )
        made.opset_import.append(helper.make_opsetid("evil", 1))
        before(node("F0", ["x"], ["y"], domain="evil"), node("ReduceMax", ["y"], ["most"], keepdims=0), gives="most")(made)

    def chain(count: int, op: str) -> Edit:
        nodes = [node(op, ["x" if k == 0 else f"c{k - 1}"] * (2 if op == "Add" else 1), [f"c{k}"]) for k in range(count)]
        return before(*nodes, node("ReduceMax", [f"c{count - 1}"], ["most"], keepdims=0), gives="most")

    conv = {"kernel_shape": [3, 3], "pads": [1 << 30] * 4}
    paths = (
        "/etc/passwd",
        "../../../../etc/passwd",
        "weights.bin",
        "upload",
        "",
        "/dev/zero",
        "/proc/self/mem",
        "C:\\x",
        "file:///etc/passwd",
        "\\\\host\\x",
        "a\0b",
    )
    return {
        "empty": b"",
        "zeros": bytes(1000),
        "ones": b"\xff" * 1000,
        "groups": b"\x0b" * 100_000,
        "messages in each other": b"\x3a\xff\xff\xff\xff\x07" * 1000,
        "half of it": good[: len(good) // 2],
        "and more": good + b"\x3a\x02\x0a\x00",
        "twice": good + good,
        **{f"outside: {path[:20]!r}": model(external(path)) for path in paths},
        "outside at an offset": model(external("upload", offset=str(1 << 62), length=str(1 << 62))),
        "outside of minus one": model(external("upload", offset="-1", length="-1")),
        "outside in a constant": model(external_in(lambda made, tensor: made.graph.node.append(node("Constant", [], ["c"], value=tensor)))),
        "outside in a function": model(
            external_in(
                lambda made, tensor: made.functions.append(
                    helper.make_function("f", "F", [], ["c"], [node("Constant", [], ["c"], value=tensor)], [helper.make_opsetid("", 17)])
                )
            )
        ),
        "outside in training": model(external_in(lambda made, tensor: made.training_info.add().initialization.initializer.append(tensor))),
        "outside and sparse": model(external_in(lambda made, tensor: made.graph.sparse_initializer.add().values.CopyFrom(tensor))),
        "a domain of its own": model(lambda made: made.opset_import.append(helper.make_opsetid("com.evil", 1))),
        "a node of another domain": model(lambda made: setattr(made.graph.node[0], "domain", "com.microsoft")),
        "an operator of Python": model(
            lambda made: (setattr(made.graph.node[0], "op_type", "PyOp"), setattr(made.graph.node[0], "domain", "ai.onnx.contrib"))
        ),
        "opset 0": model(opset=0),
        "opset -1": model(opset=-1),
        "opset 2^62": model(opset=1 << 62),
        "format 2^62": model(lambda made: setattr(made, "ir_version", 1 << 62)),
        "no opset": model(lambda made: made.ClearField("opset_import")),
        "dims of 2^40": model(lie(dims=[_HUGE, 3])),
        "a product of 2^64": model(lie(dims=[1 << 32, 1 << 32])),
        "negative dims": model(lie(dims=[-4, -3])),
        "one negative": model(lie(dims=[-1, 3])),
        "fewer bytes": model(lie(raw_data=bytes(8))),
        "more bytes": model(lie(raw_data=bytes(800))),
        "type 99": model(lie(data_type=99)),
        "texts": model(lie(data_type=8)),
        "a thousand dims": model(lie(dims=[1] * 1000)),
        "NaN weights": model(lie(raw_data=b"\xff" * 48)),
        "infinite weights": model(lie(raw_data=np.full(12, np.inf, f32).tobytes())),
        "a circle": model(before(node("Add", ["x", "q"], ["p"]), node("Neg", ["p"], ["q"]), gives="q")),
        "it reads itself": model(before(node("Add", ["x", "p"], ["p"]), gives="p")),
        "a name twice": model(before(node("Neg", ["x"], ["p"]), node("Neg", ["x"], ["p"]), gives="p")),
        "an input of 2^40": model(shape=("n", _HUGE)),
        "an input of 2^62 cubed": model(shape=("n", 1 << 62, 1 << 62, 1 << 62)),
        "an input of minus one": model(shape=("n", -4)),
        "a batch of 2^40": model(shape=(_HUGE, 4)),
        "an input of 9 axes": model(shape=("n", *[1] * 8)),
        "no input": model(lambda made: made.graph.ClearField("input")),
        "no output": model(lambda made: made.graph.ClearField("output")),
        "an input of sequences": model(
            lambda made: made.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [4])))
        ),
        "a constant of 2^40": model(swollen("ConstantOfShape", np.array([_HUGE]))),
        "a constant of 200 MiB": model(swollen("ConstantOfShape", np.array([200 << 18]))),
        "a range of 2^40": model(swollen("Range", np.int64(0), np.int64(_HUGE), np.int64(1))),
        "a range of 2^28": model(swollen("Range", np.int64(0), np.int64(1 << 26), np.int64(1))),
        "a tile of 2^40": model(swollen("Tile", one, np.array([_HUGE]))),
        "an expansion of 2^40": model(swollen("Expand", one, np.array([1 << 20, 1 << 20]))),
        "a padding of 2^40": model(swollen("Pad", one, np.array([_HUGE, 0]), f32(0))),
        "a negative padding": model(swollen("Pad", one, np.array([-_HUGE, 0]), f32(0))),
        "one hot of 2^40": model(swollen("OneHot", np.array([1]), np.int64(_HUGE), np.array([0.0, 1.0], f32))),
        "a resize of 2^40": model(swollen("Resize", np.ones((1, 1, 1, 1), f32), np.zeros(0, f32), np.array([1, 1, 1e6, 1e6], f32))),
        "an eye of 2^40": model(swollen("EyeLike", np.ones((2, 2), f32), k=_HUGE)),
        "noise of 2^40": model(swollen("RandomUniform", shape=[_HUGE])),
        "a convolution of pads": model(swollen("Conv", np.ones((1, 1, 4, 4), f32), np.ones((1, 1, 3, 3), f32), **conv)),
        "a gather past the end": model(swollen("Gather", one, np.array([_HUGE]))),
        "a reshape of 2^40": model(swollen("Reshape", one, np.array([_HUGE]))),
        "a multiplication of 100,000": model(swollen("MatMul", np.ones((9000, 1), f32), np.ones((1, 9000), f32))),
        "a sequence": model(swollen("SequenceEmpty")),
        "a loop of 2^62": model(loop(1 << 62)),
        "a loop of 10^8": model(loop(10**8)),
        "a loop that concatenates": model(loop(60, node("Concat", ["v", "v"], ["w2"], axis=0))),
        "a loop of 10": model(loop(10)),
        "ifs 7 deep": model(nested(7)),
        "ifs 14 deep": model(nested(14)),
        "a function that calls itself": model(function),
        "functions that double forty times": model(functions),
        "30,000 operators": model(chain(30_000, "Neg")),
        "60,000 operators": model(chain(60_000, "Neg")),
        "2000 doublings": model(chain(2000, "Add")),
        "a name of a megabyte": model(lambda made: setattr(made.graph.node[0], "name", "x" * (1 << 20))),
        "a name of lines": model(lambda made: setattr(made.graph.node[0], "op_type", "a\n\x1b[2J\u202e")),
        "a domain of lines": model(lambda made: made.opset_import.append(helper.make_opsetid("a\n\x1b[2J", 1))),
        "100,000 metadata": model(lambda made: [made.metadata_props.add(key=str(k), value="x") for k in range(50_000)]),
        "100,000 inputs": model(
            lambda made: [made.graph.input.append(helper.make_tensor_value_info(f"i{k}", 1, [1])) for k in range(20_000)]
        ),
    }


def inputs(canary: str) -> Iterator[Input]:
    for what, data in models().items():
        yield Input(what, "teacher", data, {"architecture": None, "format": "onnx"})
