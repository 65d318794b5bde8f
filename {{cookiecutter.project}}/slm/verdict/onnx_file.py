"""Look at the ONNX file of a package from strangers.

    python -m slm.verdict.onnx_file FOLDER      says {"fault": null}, or what is wrong with model.onnx

Its reader, protobuf, is as much at the mercy of the file as the runtime is. So the judge runs this in a
sandbox.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from slm.errors import UserError
from slm.verdict.untrusted import quoted

WEIGHTS = "model.onnx.data"
OPERATORS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
MOST_NODES = MOST_TENSORS = 200_000
MOST_DIMENSIONS = 16
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
# Bits of an element that is stored as raw bytes.
BITS = {
    kind: 4
    if kind in (TensorProto.INT4, TensorProto.UINT4)
    else 8 * helper.tensor_dtype_to_np_dtype(kind).itemsize
    for kind in (
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.BOOL),
        *(TensorProto.INT4, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT4, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    )
}


def check_onnx(folder: Path) -> None:
    """Refuse operators from elsewhere, weights from elsewhere, and tensors that are not as large as they say.

    Raises:
        UserError: says what is wrong.
    """
    path = folder / "model.onnx"
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise UserError(f"{path.name} is not an ONNX model: {quoted(str(error))}") from None
    if model.training_info:
        raise UserError(f"{path.name}: it holds a training graph, which is not allowed in a package")
    weights = folder / WEIGHTS
    size = weights.stat().st_size if weights.exists() else 0
    nodes, domains, tensors = 0, {o.domain for o in model.opset_import}, 0
    for graph in _graphs(model):
        nodes += len(graph.node)
        domains |= {node.domain for node in graph.node}
        for tensor in _tensors(graph):
            tensors += 1
            _check_tensor(tensor, size)
        if nodes > MOST_NODES or tensors > MOST_TENSORS:
            raise UserError(f"{path.name}: more than {MOST_NODES} nodes or {MOST_TENSORS} tensors")
    if domains - OPERATORS:
        raise UserError(
            f"{path.name}: operators of {quoted(min(domains - OPERATORS))} are not allowed in a package"
        )


def _graphs(model: Any) -> Iterator[Any]:
    """The graph, the functions, and every graph inside an attribute of a node of one of these."""
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(graph: Any) -> Iterator[Any]:
    sparse = bool(getattr(graph, "sparse_initializer", ()))
    yield from getattr(graph, "initializer", ())
    for attribute in (a for node in graph.node for a in node.attribute):
        sparse = sparse or attribute.HasField("sparse_tensor") or bool(attribute.sparse_tensors)
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    if sparse:
        raise UserError("model.onnx: sparse tensors are not allowed in a package")


def _check_tensor(tensor: Any, weights_bytes: int) -> None:
    """What a tensor says of its own size must be true; the runtime reserves memory by it."""
    name = f"model.onnx: tensor {quoted(tensor.name)}"
    if tensor.data_type not in BITS:
        raise UserError(f"{name} has the type {tensor.data_type}, which is not allowed in a package")
    if len(tensor.dims) > MOST_DIMENSIONS or any(d < 0 for d in tensor.dims) or tensor.HasField("segment"):
        raise UserError(f"{name} has the shape {quoted(list(tensor.dims[:MOST_DIMENSIONS]))}")
    elements = math.prod(tensor.dims)
    wanted = math.ceil(elements * BITS[tensor.data_type] / 8)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        offset, length = _place(tensor, name)
        if length not in (None, wanted) or offset + wanted > weights_bytes:
            raise UserError(
                f"{name} of {wanted} bytes stands at {offset} with {length} bytes; "
                f"{WEIGHTS} has {weights_bytes}"
            )
        return
    if tensor.raw_data:
        true = len(tensor.raw_data) == wanted
    else:
        fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
        stored = max(len(getattr(tensor, field)) for field in fields)
        packed = elements if BITS[tensor.data_type] >= 8 else math.ceil(elements / 2)
        true = stored in (elements, packed)
    if not true:
        raise UserError(f"{name} does not hold the {elements} elements of its shape")


def _place(tensor: Any, name: str) -> tuple[int, int | None]:
    """Where a tensor's bytes begin in the weights' file, and how many it says they are."""
    keys = Counter(entry.key for entry in tensor.external_data)
    values = {entry.key: entry.value for entry in tensor.external_data}
    if values.get("location") != WEIGHTS:
        raise UserError(
            f"{name} has its weights in {quoted(values.get('location'))}, which is not in the package"
        )
    if set(keys) - EXTERNAL_KEYS or max(keys.values()) > 1:
        raise UserError(f"{name} says where its weights are by {quoted(sorted(keys))}")
    places = {key: values[key] for key in ("offset", "length") if key in values}
    for key, value in places.items():
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            raise UserError(f"{name} has its weights at the {key} {quoted(value)}, which is no number")
    length = places.get("length")
    return int(places.get("offset", "0")), None if length is None else int(length)


def main() -> None:
    try:
        check_onnx(Path(sys.argv[1]))
        fault = None
    except UserError as error:
        fault = str(error)
    print(json.dumps({"fault": fault}), flush=True)


if __name__ == "__main__":
    main()
