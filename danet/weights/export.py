"""A network out as one ONNX file, or as an OpenVINO pair .xml + .bin; compared with the network before it is left under
its name. Command: `danet export W --to onnx`.

The graph takes normalized images, as `DANet` does, so that every testing protocol works on it. It holds two outputs:
`logits` at the feature grid, the least memory, which `danet` itself uses, and `labels` at the images' size for programs
that want the answer only: bilinear upsampling with the network's own align_corners, then the largest. A runtime can be
asked for one of them. Position attention is written as two products and a softmax: its N x N map, N the positions of
the feature grid, is held, 4 N^2 bytes an image, by OpenVINO twice: 4.3 GB at N = 32,768, 2048 x 1024 at stride 8.
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
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from danet.errors import InputError
from danet.files import make_folder, write_atomically
from danet.model.danet import DANet
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.file import Card
from danet.weights.quantize import COUNT, normalized, quantized, spaced
from danet.weights.runtimes import CARD, SHA256

USAGE = "danet.usage"
Runtime = Literal["onnx", "openvino"]
OPSET = 18
LARGEST_DIFFERENCE = 1e-4
"""Of the logits, in units of the largest logit where that is above 1."""
AGREEMENT = 0.9999
QUANTIZED_AGREEMENT = 0.95
"""Shares of the pixels that must get the network's own label: of a float32 file, and of an int8 file, over images."""
NOISE = ((1, 97, 130), (1, 64, 192), (3, 97, 130), (3, 64, 192))
"""B,H,W of the seeded noise that a file is compared on."""


class Comparison(NamedTuple):
    """How a file's answers differ from the network's.

    Args:
        shown: what was shown to both.
        difference: the largest absolute difference of the logits.
        largest: the network's largest absolute logit.
        equal, pixels: how many pixels have the same label, of how many.
    """

    shown: str
    difference: float
    largest: float
    equal: int
    pixels: int


@dataclass(frozen=True)
class Report:
    """What `export` did.

    Args:
        files: that were to be written.
        compared: empty if nothing was.
    """

    files: tuple[Path, ...]
    compared: tuple[Comparison, ...]
    quantized: bool

    @property
    def agreement(self) -> float:
        """The share of the compared pixels that have the network's own label, in [0, 1]."""
        return sum(c.equal for c in self.compared) / sum(c.pixels for c in self.compared)

    @property
    def good(self) -> bool:
        """Nothing was compared, or enough labels are the network's own and, in float32, every logit is near enough."""
        if not self.compared or self.quantized:
            return not self.compared or self.agreement >= QUANTIZED_AGREEMENT
        near = all(c.difference <= LARGEST_DIFFERENCE * max(1, c.largest) for c in self.compared)  # NaN is not
        return near and self.agreement >= AGREEMENT


def export(
    source: Path | None,
    destination: Path,
    runtime: Runtime,
    calibration: Path | None = None,
    count: int = COUNT,
    verify: bool = True,
    images: Sequence[Path] = (),
    overwrite: bool = False,
) -> Report:
    """Write `destination`, for OpenVINO also the .bin beside it; nothing is written if it was compared and found wrong.

    Args:
        source: a .safetensors file; None: the weights that come with the package.
        calibration: quantize to int8 by `count` images of this folder; OpenVINO only.
        verify: compare before it is left under its name: a float32 file on noise, an int8 file on up to 8 of the
            calibration's images.
        images: compared on too.

    Raises:
        InputError: a missing package, a file that exists, a wrong suffix, wrong weights or images, no DANet.
    """
    suffix = ".onnx" if runtime == "onnx" else ".xml"
    if destination.suffix != suffix:
        raise InputError(destination, f"a file for {runtime} ends in {suffix}", "give --out another name")
    if calibration is not None and runtime == "onnx":
        raise InputError("--int8", "is for OpenVINO", "use --to openvino")
    files = (destination,) if runtime == "onnx" else (destination.with_suffix(".bin"), destination)
    for path in files:
        if path.exists() and not overwrite:
            raise InputError(path, "exists already", "give --out another name, or --overwrite")
    network, card = weights_file.load(source)
    if not isinstance(network, DANet):
        raise InputError(source, f"holds {card.network['architecture']}", "only DANet can be exported")
    calibrated = () if calibration is None else spaced(calibration, count, card)
    shown = {str(file): normalized(file, card) for file in (*images, *calibrated[:: -(-len(calibrated) // 8) or 1])}
    if calibrated:
        card = replace(card, metrics={})  # they were measured of the float32 network
    contents = [to_onnx(network, card)]
    if runtime == "openvino":
        contents = to_openvino(contents[0], card, calibrated)
    compared = []
    if verify:
        with tempfile.TemporaryDirectory() as folder:
            for path, content in zip(files, contents, strict=True):
                Path(folder, path.name).write_bytes(content)
            file, _ = runtimes.load(Path(folder, destination.name))
            compared = compare(network, file, shown if calibrated else _noise(network.in_channels) | shown)
    report = Report(files, tuple(compared), quantized=bool(calibrated))
    if report.good:
        make_folder(destination.parent)
        for path, content in zip(files, contents, strict=True):
            write_atomically(path, content)
    return report


def to_onnx(network: DANet, card: Card) -> bytes:
    """The network as an ONNX file with the card in it, weights included, for any batch, height and width.

    Raises:
        InputError: a missing package; a network that cannot be traced for all sizes.
    """
    for package in ("onnx", "onnxscript"):
        runtimes.optional(package, "export", "the export")
    graph = _Graph(network).eval()
    images = torch.zeros(2, network.in_channels, 75, 101)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    try:
        with _silent(), torch.no_grad():
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
        raise InputError(f"backbone {name!r}", "cannot be exported for all sizes", "use a ResNet") from error
    assert program is not None
    model = program.model_proto
    _forget_sources(model)
    model.doc_string = usage(card)
    for key, value in {CARD: card.json(), SHA256: runtimes.onnx_sha256(model)}.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_openvino(graph: bytes, card: Card, calibrated: Sequence[Path] = ()) -> list[bytes]:
    """What the .bin and the .xml file hold, of a graph that `to_onnx` wrote; in int8 by these images, if any.

    Raises:
        InputError: a missing package; images that cannot be read.
    """
    ov = runtimes.openvino("--to openvino")
    model = runtimes.openvino_core().read_model(graph)
    if calibrated:
        model = quantized(model, card, calibrated)
    with tempfile.TemporaryDirectory() as folder:
        xml, binary = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        ov.serialize(model, xml, binary)
        entries = {CARD: card.json(), SHA256: hashlib.sha256(binary.read_bytes()).hexdigest(), USAGE: usage(card)}
        for key, value in entries.items():
            model.set_rt_info(value, [key])
        ov.serialize(model, xml, binary)  # the same weights again
        return [binary.read_bytes(), xml.read_bytes()]


def usage(card: Card) -> str:
    """What a program without danet must know of the graph, in one paragraph."""
    size = "" if card.size is None else f", the image's longer side brought to {card.size} pixels before"
    return (
        f"images: float32 B,{len(card.mean)},H,W, RGB where there are three bands, (value / 255 - mean) / std with "
        f"mean {list(card.mean)} and std {list(card.std)}{size}. logits: float32 B,{len(card.classes)},h,w at the "
        f"feature grid. labels: uint8 B,H,W, indices into the classes: {', '.join(card.classes.names)}. "
        f"The metadata {CARD} is all of it as JSON."
    )


@torch.inference_mode()
def compare(network: DANet, file: runtimes.Exported, shown: dict[str, Tensor]) -> list[Comparison]:
    """The network beside an exported file of it, on normalized images B,N,H,W by name."""
    result = []
    for name, images in shown.items():
        ours, theirs = network.logits(images).fused, file.logits(images).fused
        equal = network(images).fused.argmax(1) == file.labels(images)
        difference, largest = float((ours - theirs).abs().max()), float(ours.abs().max())
        result.append(Comparison(name, difference, largest, int(equal.sum()), equal.numel()))
    return result


def _noise(channels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, channels, height, width) for batch, height, width in NOISE]
    return {f"noise {'x'.join(map(str, shape))}": torch.randn(shape, generator=generator) for shape in shapes}


class _Graph(nn.Module):
    """What is written: the network's prediction, and the labels."""

    def __init__(self, network: DANet):
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
    """TensorFlow's padding as the one operator that both runtimes have for it. timm pads by formulas of the input's
    size: nested over a network, they keep torch.export busy for minutes.
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


def _forget_sources(model: Any) -> None:
    """The exporter notes its machine's paths at every node."""
    graph = model.graph
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info, graph, model):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter tells its own developers of its progress and of coming changes."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
