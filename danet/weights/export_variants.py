"""Other forms of an exported ONNX graph: half precision, int8 for ONNX Runtime, and a model repository for Triton."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danet.weights import runtimes
from danet.weights.file import Card
from danet.weights.quantize import load_normalized
from danet.weights.runtimes import SHA256


def to_float16(graph: bytes) -> bytes:
    """Return a graph of `to_onnx` with weights and computation in half precision; inputs and outputs keep their types.

    Raises:
        InputError: a missing package.
    """
    onnx, _ = (runtimes.import_optional(name, "export", "float16") for name in ("onnx", "onnxruntime"))
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with runtimes.silence():
        model = convert_float_to_float16(onnx.load_model_from_string(graph), keep_io_types=True)
    OnnxModel.graph_topological_sort(model.graph)  # the casts of inputs come last, which ONNX does not allow
    return _sealed(model)


def quantize_onnx(graph: bytes, card: Card, images: Sequence[Path]) -> bytes:
    """Return an int8 version of a graph of `to_onnx` for ONNX Runtime, calibrated on image files.

    Convolutions compute in int8 with the activations after them: one scale per channel of the weights, and asymmetric
    inputs. Everything else stays in float32.

    Args:
        graph: the ONNX file.
        card: of the network.
        images: typical ones.

    Raises:
        InputError: a missing package, or an image that cannot be read.
    """
    onnx, _ = (runtimes.import_optional(name, "export", "int8") for name in ("onnx", "onnxruntime"))
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, runtimes.silence():
        files = [Path(folder, name) for name in ("float32.onnx", "prepared.onnx", "int8.onnx")]
        files[0].write_bytes(graph)
        quant_pre_process(files[0], files[1], skip_symbolic_shape=True)
        quantize_static(
            files[1],
            files[2],
            _Calibration(card, images),  # pyright: ignore[reportArgumentType]
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "Clip"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load_model(files[2])
    original = onnx.load_model_from_string(graph)
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    model.doc_string = original.doc_string
    return _sealed(model)


def triton_repository(graph: bytes, name: str) -> dict[str, bytes]:
    """Return the files of a model repository for the Triton inference server, by their paths in it.

    Args:
        graph: the ONNX file.
        name: of the model.

    Raises:
        InputError: a missing package.
    """
    onnx = runtimes.import_optional("onnx", "export", "to")
    model = onnx.load_model_from_string(graph)
    types = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}

    def entry(kind: str, value: Any) -> str:
        tensor = value.type.tensor_type
        dims = ", ".join(str(dim.dim_value or -1) for dim in tensor.shape.dim)
        return f'{kind} [ {{ name: "{value.name}" data_type: {types[tensor.elem_type]} dims: [ {dims} ] }} ]'

    lines = [f'name: "{name}"', 'backend: "onnxruntime"', "max_batch_size: 0  # the first dimension is the batch"]
    lines += [entry("input", value) for value in model.graph.input]
    lines += [entry("output", value) for value in model.graph.output]
    return {f"{name}/config.pbtxt": "\n".join([*lines, ""]).encode(), f"{name}/1/model.onnx": graph}


class _Calibration:
    """Yields each image as the graph's input, as ONNX Runtime's `CalibrationDataReader` does."""

    def __init__(self, card: Card, images: Sequence[Path]):
        self._inputs = ({"images": load_normalized(file, card).contiguous().numpy()} for file in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def _sealed(model: Any) -> bytes:
    """Return the file with the hash of its new weights."""
    for entry in model.metadata_props:
        if entry.key == SHA256:
            entry.value = runtimes.onnx_sha256(model)
    return model.SerializeToString()
