"""Export a network as one ONNX file, or as an OpenVINO pair .xml + .bin, after comparing it with the network.

Command: `danet export W --to onnx`. The graph takes normalized images, as `DANet` does, so every testing protocol works
on it. It has two outputs, and a runtime can compute just one: `logits` at the feature grid (at the size of the images
for baselines that pad them), which needs the least memory and which danet uses, and `labels` at the size of the images
for other programs: bilinear upsampling with the network's own align_corners, then argmax. Position attention is written
as two products and a softmax, so its N x N map is in memory, N being the positions of the feature grid: 4 N^2 bytes per
image, with OpenVINO twice that. At N = 32,768 (2048 x 1024 at stride 8) this is 4.3 GB.
"""

import contextlib
import copy
import hashlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danet.errors import InputError
from danet.files import check_new, make_folder, write_atomically
from danet.model.baselines import AnyNetwork
from danet.startup import without_dynamo
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.file import Card
from danet.weights.quantize import CALIBRATION_COUNT, calibration_images, load_normalized, quantize
from danet.weights.runtimes import CARD, SHA256

with without_dynamo():
    from timm.layers.conv2d_same import Conv2dSame

USAGE = "danet.usage"
Runtime = Literal["onnx", "openvino"]
OPSET = 18
MAX_DIFFERENCE = 1e-4
"""Of the logits, relative to the largest logit if that is above 1."""
MIN_AGREEMENT = 0.9999
"""The share of pixels whose labels must be equal, for float32 files."""
MIN_QUANTIZED_AGREEMENT = 0.95
"""The same for int8 files, measured on images."""
NOISE = ((1, 97, 130), (1, 64, 192), (3, 97, 130), (3, 64, 192))
"""B,H,W of the seeded noise on which a file is compared with the network."""


class Comparison(NamedTuple):
    """The differences between the outputs of a file and of the network.

    Args:
        input: the name of the input.
        difference: the largest absolute difference of the logits.
        largest: the largest absolute logit of the network.
        equal: the number of pixels with the same label.
        pixels: the number of pixels.
    """

    input: str
    difference: float
    largest: float
    equal: int
    pixels: int


@dataclass(frozen=True)
class Report:
    """The result of `export`.

    Args:
        files: the output files.
        compared: one comparison per input; empty if nothing was compared.
        quantized: whether the file is int8.
    """

    files: tuple[Path, ...]
    compared: tuple[Comparison, ...]
    quantized: bool

    @property
    def agreement(self) -> float:
        """The share of the compared pixels with the same label, in [0, 1]."""
        return sum(c.equal for c in self.compared) / sum(c.pixels for c in self.compared)

    @property
    def good(self) -> bool:
        """Whether enough labels are equal and, in float32, all logits are close; True if nothing was compared."""
        if not self.compared or self.quantized:
            return not self.compared or self.agreement >= MIN_QUANTIZED_AGREEMENT
        close = all(c.difference <= MAX_DIFFERENCE * max(1, c.largest) for c in self.compared)  # False for NaN
        return close and self.agreement >= MIN_AGREEMENT


def export(
    weights: Path | None,
    out: Path,
    to: Runtime,
    calibration: Path | None = None,
    calibration_count: int = CALIBRATION_COUNT,
    verify: bool = True,
    images: Sequence[Path] = (),
    overwrite: bool = False,
) -> Report:
    """Export a weights file to ONNX or OpenVINO; write nothing if a comparison with the network fails.

    Args:
        weights: a .safetensors file; None: the bundled weights.
        out: the .onnx or .xml file to write; for OpenVINO a .bin file of the same name is written too.
        to: the format.
        calibration: a folder of images; quantize to int8, calibrated on them. OpenVINO only.
        calibration_count: the number of calibration images.
        verify: compare with the network before writing: a float32 file on noise, an int8 file on up to 8 of the
            calibration images.
        images: more images to compare on.
        overwrite: replace existing files.

    Raises:
        InputError: a missing package, an existing file, a wrong suffix, invalid weights or images.
    """
    suffix = ".onnx" if to == "onnx" else ".xml"
    if out.suffix != suffix:
        raise InputError(out, f"{'ONNX' if to == 'onnx' else 'OpenVINO'} files must end in {suffix}", "change `out`")
    if calibration is not None and to == "onnx":
        raise InputError("int8", "is only supported by OpenVINO", "use `to` openvino")
    files = (out,) if to == "onnx" else (out.with_suffix(".bin"), out)
    check_new(*files, overwrite=overwrite)
    network, card = weights_file.load(weights)
    calibrated = () if calibration is None else calibration_images(calibration, calibration_count, card)
    compare_on = (*images, *calibrated[:: -(-len(calibrated) // 8) or 1])
    inputs = {str(file): load_normalized(file, card) for file in compare_on}
    if calibrated:
        card = replace(card, metrics={})  # those of the float32 network
    contents = [to_onnx(network, card)]
    if to == "openvino":
        contents = to_openvino(contents[0], card, calibrated)
    compared = []
    if verify:
        with tempfile.TemporaryDirectory() as folder:
            for path, content in zip(files, contents, strict=True):
                Path(folder, path.name).write_bytes(content)
            exported, _ = runtimes.load(Path(folder, out.name))
            compared = compare(network, exported, inputs if calibrated else _noise(network.in_channels) | inputs)
    report = Report(files, tuple(compared), quantized=bool(calibrated))
    if report.good:
        make_folder(out.parent)
        for path, content in zip(files, contents, strict=True):
            write_atomically(path, content, overwrite)
    return report


def to_onnx(network: AnyNetwork, card: Card) -> bytes:
    """Return the content of an ONNX file with weights and card, for any batch size, height and width.

    Raises:
        InputError: a missing package, or a network that cannot be traced for all sizes.
    """
    for package in ("onnx", "onnxscript"):
        runtimes.import_optional(package, "export", "to")
    graph = _Graph(network).eval()
    images = torch.zeros(2, network.in_channels, 75, 101)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits", "labels"],
                dynamic_shapes={"images": sizes},
            )
    except torch.onnx.OnnxExporterError as error:
        name = card.network.get("backbone", "network")
        raise InputError("backbone", f"cannot export {name!r} for all image sizes", "use a ResNet") from error
    assert program is not None
    model = program.model_proto
    _remove_sources(model)
    model.doc_string = usage(card)
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


def usage(card: Card) -> str:
    """Describe the graph in one paragraph, for programs that do not use danet."""
    size = "" if card.size is None else f", after resizing the longer side of the image to {card.size} pixels"
    return (
        f"images: float32 B,{len(card.mean)},H,W, RGB if there are three bands, (value / 255 - mean) / std with "
        f"mean {list(card.mean)} and std {list(card.std)}{size}. logits: float32 B,{len(card.classes)},h,w at the "
        f"feature grid. labels: uint8 B,H,W, indices into the classes: {', '.join(card.classes.names)}. "
        f"The metadata {CARD} has all of this as JSON."
    )


@torch.inference_mode()
def compare(network: AnyNetwork, exported: runtimes.ExportedNetwork, inputs: dict[str, Tensor]) -> list[Comparison]:
    """Compare a network with an exported file of it on normalized images B,N,H,W, given by name."""
    result = []
    for name, images in inputs.items():
        ours, theirs = network.logits(images).fused, exported.logits(images).fused
        equal = network(images).fused.argmax(1) == exported.labels(images)
        difference, largest = float((ours - theirs).abs().max()), float(ours.abs().max())
        result.append(Comparison(name, difference, largest, int(equal.sum()), equal.numel()))
    return result


def _noise(channels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, height, width) for batch, height, width in NOISE]
    return {f"noise {'x'.join(map(str, shape))}": torch.randn(shape, generator=generator) for shape in shapes}


class _Graph(nn.Module):
    """The module to export: returns the logits and the labels."""

    def __init__(self, network: AnyNetwork):
        super().__init__()
        self.network = copy.deepcopy(network)
        padded = [(name, m) for name, m in self.network.named_modules() if isinstance(m, Conv2dSame)]
        for name, convolution in padded:
            self.network.set_submodule(name, _SameConvolution(convolution))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.logits(images).fused
        shape, corners = images.shape[-2:], self.network.align_corners
        labels = F.interpolate(logits, size=shape, mode="bilinear", align_corners=corners).argmax(1)
        return logits, labels.to(torch.uint8)


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


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide the progress and deprecation warnings of the exporter."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
