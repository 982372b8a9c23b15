"""Export a network as one ONNX file, an OpenVINO pair .xml + .bin or a .pte file, after comparing it with the network.

Command: `danet export W --to onnx`. The graph takes normalized images, as `DANet` does, so every testing protocol works
on it. It has two outputs, and a runtime can compute just one: `logits` at the feature grid (at the size of the images
for baselines that pad them), which needs the least memory and which danet uses, and `labels` at the size of the images
for other programs: bilinear upsampling with the network's own align_corners, then argmax. Position attention is written
as two products and a softmax, so its N x N map is in memory, N being the positions of the feature grid: 4 N^2 bytes per
image, with OpenVINO twice that. At N = 32,768 (2048 x 1024 at stride 8) this is 4.3 GB.
"""

import copy
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danet.data.images.pillow import MAX_PIXELS
from danet.errors import InputError
from danet.files import check_new, make_folder, write_atomically
from danet.model.baselines import AnyNetwork
from danet.startup import without_dynamo
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.export_check import Comparison, Inputs, compare, compare_whole, float_inputs, pixel_inputs
from danet.weights.export_executorch import to_executorch
from danet.weights.export_preprocessing import with_preprocessing
from danet.weights.export_variants import quantize_onnx, to_float16, triton_repository
from danet.weights.file import Card
from danet.weights.quantize import CALIBRATION_COUNT, calibration_images, quantize
from danet.weights.runtimes import CARD, SHA256, USAGE

with without_dynamo():
    from timm.layers.conv2d_same import Conv2dSame

Runtime = Literal["onnx", "openvino", "executorch", "triton"]
OPSET = 18
OPSETS = range(18, 24)
MAX_DIFFERENCE = 1e-4
"""Of the logits, relative to the largest logit if that is above 1."""
MIN_AGREEMENT = {"float32": 0.9999, "float16": 0.99, "int8": 0.95}
"""The share of pixels whose labels must be equal, by precision; for int8 on images."""
TRITON_NAME = "danet"
FORMATS = {"onnx": ("ONNX", ".onnx"), "openvino": ("OpenVINO", ".xml"), "executorch": ("ExecuTorch", ".pte")}
"""Name of a format, and suffix of its file with the graph."""


@dataclass(frozen=True)
class Graph:
    """The form of an exported graph.

    Args:
        size: height and width of the only image that it takes, one at a time; None: any batch, height and width, which
            ExecuTorch does not take.
        opset: version of the ONNX operators.
        float16: half precision; ONNX and Triton only.
        preprocessing: take uint8 images of any size, and return labels and confidence at that size; see
            `export_preprocessing`. ONNX only; Triton's always do.
    """

    size: tuple[int, int] | None = None
    opset: int = OPSET
    float16: bool = False
    preprocessing: bool = False


@dataclass(frozen=True)
class Report:
    """The result of `export`.

    Args:
        files: the output files.
        compared: one comparison per input; empty if nothing was compared.
        precision: a key of `MIN_AGREEMENT`.
    """

    files: tuple[Path, ...]
    compared: tuple[Comparison, ...]
    precision: str = "float32"

    @property
    def agreement(self) -> float:
        """The share of the compared pixels with the same label, in [0, 1]."""
        return sum(c.equal for c in self.compared) / sum(c.pixels for c in self.compared)

    @property
    def good(self) -> bool:
        """Whether enough labels are equal and, in float32, all logits are close; True if nothing was compared."""
        if not self.compared:
            return True
        close = all(c.difference <= MAX_DIFFERENCE * max(1, c.largest) for c in self.compared)  # False for NaN
        return (close or self.precision != "float32") and self.agreement >= MIN_AGREEMENT[self.precision]


_ANY_SIZE = Graph()


def export(
    weights: Path | None,
    out: Path,
    to: Runtime,
    calibration: Path | None = None,
    calibration_count: int = CALIBRATION_COUNT,
    verify: bool = True,
    images: Sequence[Path] = (),
    overwrite: bool = False,
    graph: Graph = _ANY_SIZE,
) -> Report:
    """Export a weights file to one of the formats; write nothing if a comparison with the network fails.

    Args:
        weights: a .safetensors file; None: the bundled weights.
        out: the .onnx, .xml or .pte file to write; for OpenVINO a .bin file of the same name is written too; for Triton
            the folder of the model repository.
        to: the format.
        calibration: a folder of images; quantize to int8, calibrated on them.
        calibration_count: the number of calibration images.
        verify: compare with the network before writing: a float file on noise, an int8 file on up to 8 of the
            calibration images.
        images: more images to compare on.
        overwrite: replace existing files.
        graph: the form of the graph.

    Raises:
        InputError: a missing package, an existing file, a wrong suffix, invalid weights or images, or options that do
            not go together.
    """
    _check(out, to, graph, calibration)
    if images and not verify:
        raise InputError("images", "are compared only if `verify` is True", "leave them out")
    check_new(*_names(out, to), overwrite=overwrite)
    network, card = weights_file.load(weights)
    calibrated = () if calibration is None else calibration_images(calibration, calibration_count, card)
    compare_on = (*images, *calibrated[:: -(-len(calibrated) // 8) or 1])
    if calibrated:
        card = replace(card, metrics={})  # those of the float32 network
    precision = "int8" if calibrated else "float16" if graph.float16 else "float32"
    whole = graph.preprocessing or to == "triton"
    inputs: Inputs = {}
    if verify:
        inputs = (pixel_inputs if whole else float_inputs)(card, compare_on, not calibrated, graph.size)
    contents = _contents(network, card, out, to, graph, calibrated)
    compared = []
    if verify and whole:
        compared = compare_whole(network, card, list(contents.values())[-1], inputs)
    elif verify:
        with tempfile.TemporaryDirectory() as folder:
            for path, content in contents.items():
                Path(folder, path.name).write_bytes(content)
            compared = compare(network, runtimes.load(Path(folder, out.name))[0], inputs)
    report = Report(tuple(contents), tuple(compared), precision)
    if report.good:
        for path, content in contents.items():
            make_folder(path.parent)
            write_atomically(path, content, overwrite)
    return report


def _check(out: Path, to: Runtime, graph: Graph, calibration: Path | None) -> None:
    """Check that the options go together.

    Raises:
        InputError: they do not.
    """
    name, suffix = FORMATS.get(to, ("", out.suffix))
    if out.suffix != suffix:
        raise InputError(out, f"{name} files must end in {suffix}", "change `out`")
    if graph.opset not in OPSETS:
        what = f"must be from {OPSETS[0]} to {OPSETS[-1]}, got {graph.opset}"
        raise InputError("opset", what, f"for example, use {OPSET}")
    if graph.size is not None:
        height, width = graph.size
        if min(graph.size) < 32:
            raise InputError("size", f"must be at least 32 x 32, got {height} x {width}", "use a larger size")
        if height * width > MAX_PIXELS:
            what = f"must have at most {MAX_PIXELS:,} pixels, got {height} x {width}"
            raise InputError("size", what, "use a smaller size")
    if to == "executorch" and graph.size is None:
        raise InputError("size", "is needed by executorch", "specify height and width, for example 480x640")
    if to == "executorch" and calibration is not None:
        raise InputError("int8", "is not supported by executorch", "use `to` onnx or openvino")
    if to in ("openvino", "executorch") and (graph.float16 or graph.preprocessing):
        name = "float16" if graph.float16 else "preprocessing"
        raise InputError(name, "is only supported by onnx and triton", "use `to` onnx")
    if graph.float16 and calibration is not None:
        raise InputError("float16", "conflicts with int8", "choose one of them")
    if graph.size is not None and (graph.preprocessing or to == "triton"):
        what = "conflicts with preprocessing, which takes images of any size"
        raise InputError("size", what, "leave out `size`" + ("" if to == "triton" else " or `preprocessing`"))


def _names(out: Path, to: Runtime) -> tuple[Path, ...]:
    """Return the files to write, the one with the graph last."""
    if to == "triton":
        return out / TRITON_NAME / "config.pbtxt", out / TRITON_NAME / "1/model.onnx"
    return (out.with_suffix(".bin"), out) if to == "openvino" else (out,)


def _contents(
    network: AnyNetwork, card: Card, out: Path, to: Runtime, graph: Graph, calibrated: Sequence[Path]
) -> dict[Path, bytes]:
    if to == "executorch":
        assert graph.size is not None
        return {out: to_executorch(_Graph(network), card, graph.size, usage(card, graph.size))}
    content = to_onnx(network, card, graph.size, graph.opset)
    if to == "openvino":
        return dict(zip(_names(out, to), to_openvino(content, card, calibrated), strict=True))
    if calibrated:
        content = quantize_onnx(content, card, calibrated)
    if graph.float16:
        content = to_float16(content)
    if graph.preprocessing or to == "triton":
        content = with_preprocessing(content, card)
    files = triton_repository(content, TRITON_NAME).values() if to == "triton" else (content,)
    return dict(zip(_names(out, to), files, strict=True))


def to_onnx(network: AnyNetwork, card: Card, size: tuple[int, int] | None = None, opset: int = OPSET) -> bytes:
    """Return the content of an ONNX file with weights and card.

    Args:
        network: to export.
        card: of the network.
        size: height and width of the only image that it takes; None: any batch size, height and width.
        opset: version of the ONNX operators.

    Raises:
        InputError: a missing package, or a network that cannot be traced for all sizes.
    """
    for package in ("onnx", "onnxscript"):
        runtimes.import_optional(package, "export", "to")
    graph = _with_operator_for_padding(_Graph(network)).eval()
    images = (
        torch.zeros(2, network.in_channels, 75, 101) if size is None else torch.zeros(1, network.in_channels, *size)
    )
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    try:
        with runtimes.silence(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=["images"],
                output_names=["logits", "labels"],
                dynamic_shapes=None if size is not None else {"images": sizes},
            )
    except torch.onnx.OnnxExporterError as error:
        names = [card.network.get(key) for key in ("architecture", "backbone")]
        what = f"cannot export {' with '.join(filter(None, names))} for all image sizes"
        raise InputError("size", what, "specify the height and width of your images, for example 480x640") from error
    assert program is not None
    model = program.model_proto
    _remove_sources(model)
    model.doc_string = usage(card, size)
    for key, value in {CARD: card.json(), SHA256: runtimes.onnx_sha256(model)}.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_openvino(graph: bytes, card: Card, calibrated: Sequence[Path] = ()) -> list[bytes]:
    """Convert the result of `to_onnx` to the contents of a .bin and an .xml file; in int8 if there are images.

    Raises:
        InputError: a missing package, or an image that cannot be read.
    """
    ov = runtimes.import_openvino("to")
    model = runtimes.openvino_core().read_model(graph)
    if calibrated:
        model = quantize(model, card, calibrated)
    with tempfile.TemporaryDirectory() as folder:
        xml, binary = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        ov.serialize(model, xml, binary)
        entries = {CARD: card.json(), SHA256: hashlib.sha256(binary.read_bytes()).hexdigest(), USAGE: usage(card)}
        for key, value in entries.items():
            model.set_rt_info(value, [key])
        ov.serialize(model, xml, binary)  # the weights stay the same
        return [binary.read_bytes(), xml.read_bytes()]


def usage(card: Card, fixed: tuple[int, int] | None = None) -> str:
    """Describe the graph in one paragraph, for programs that do not use danet.

    Args:
        card: of the network.
        fixed: height and width of the only image that it takes; None: any.
    """
    size = "" if card.size is None else f", after resizing the longer side of the image to {card.size} pixels"
    shape = f"B,{len(card.mean)},H,W"
    if fixed is not None:
        size, shape = (
            f", after resizing the image to {fixed[1]} x {fixed[0]}",
            f"1,{len(card.mean)},{fixed[0]},{fixed[1]}",
        )
    return (
        f"images: float32 {shape}, RGB if there are three bands, (value / 255 - mean) / std with "
        f"mean {list(card.mean)} and std {list(card.std)}{size}. logits: float32 B,{len(card.classes)},h,w at the "
        f"feature grid. labels: uint8 B,H,W, indices into the classes: {', '.join(card.classes.names)}. "
        f"The metadata {CARD} has all of this as JSON."
    )


class _Graph(nn.Module):
    """The module to export: returns the logits and the labels."""

    def __init__(self, network: AnyNetwork):
        super().__init__()
        self.network = copy.deepcopy(network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.logits(images).fused
        shape, corners = images.shape[-2:], self.network.align_corners
        labels = F.interpolate(logits, size=shape, mode="bilinear", align_corners=corners).argmax(1)
        return logits, labels.to(torch.uint8)


def _with_operator_for_padding(graph: nn.Module) -> nn.Module:
    padded = [(name, module) for name, module in graph.named_modules() if isinstance(module, Conv2dSame)]
    for name, convolution in padded:
        graph.set_submodule(name, _SameConvolution(convolution))
    return graph


class _SameConvolution(nn.Module):
    """TensorFlow's "same" padding as one operator, which both runtimes support.

    timm computes the padding from the input's size. Nested over a network, these formulas take torch.export minutes.
    """

    def __init__(self, convolution: Conv2dSame):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        conv = self.convolution
        assert isinstance(conv, nn.Conv2d)
        (down, right), dilations = conv.stride, list(conv.dilation)
        inputs = [x, conv.weight] if conv.bias is None else [x, conv.weight, conv.bias]
        attributes = {"auto_pad": "SAME_UPPER", "strides": [down, right], "dilations": dilations, "group": conv.groups}
        shape = [x.shape[0], conv.out_channels, (x.shape[2] + down - 1) // down, (x.shape[3] + right - 1) // right]
        return torch.onnx.ops.symbolic("Conv", inputs, attributes, dtype=x.dtype, shape=shape)


def _remove_sources(model: Any) -> None:
    """Remove the paths of this machine, which the exporter adds to every node."""
    graph = model.graph
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info, graph, model):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
