"""A network that `danet export` wrote, run on the processor: an `.onnx` file by ONNX Runtime, an `.xml` file with its
`.bin` by OpenVINO. `danet.load` takes either wherever it takes a weights file.

The graph has one input, `images`, B,N,H,W float32 of any B, H and W, normalized as the card says, and two outputs:
`logits`, B,K,h,w float32 at the feature grid, and `labels`, B,H,W uint8 train ids at the images' own size. Its metadata
hold `danet.card`, the JSON of `weights.Card`, and `danet.sha256`, of the weights' bytes.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from danet.errors import InputError
from danet.model.danet import Outputs
from danet.weights.file import Card

SUFFIXES = (".onnx", ".xml")
CARD, SHA256 = "danet.card", "danet.sha256"
MAX_BYTES = 1 << 30
"""Larger files are refused before they are read."""

Run = Callable[[str, np.ndarray], np.ndarray]
"""The name of an output, and images -> that output; the other is not computed."""


class Exported:
    """What stands in for a `DANet` in a `Predictor`.

    Args:
        run: the graph.
        card: the one that the file holds.
    """

    def __init__(self, run: Run, card: Card):
        self._run = run
        self.in_channels: int = card.network.get("in_channels", 3)
        self.align_corners: bool = card.network.get("align_corners", True)

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """`fused` at the feature grid's size, B,K,h,w, as `DANet.logits`; the other outputs are not in the file.

        Raises:
            InputError: images of other channels; too little memory.
        """
        return Outputs(torch.from_numpy(self._output("logits", images)).to(images.device))

    def labels(self, images: Float[Tensor, "B N H W"]) -> UInt8[Tensor, "B H W"]:
        """Train ids at the images' own size, by the graph itself. Errors are those of `logits`."""
        return torch.from_numpy(self._output("labels", images)).to(images.device)

    def _output(self, name: str, images: Tensor) -> np.ndarray:
        shape = tuple(images.shape)
        if shape[1] != self.in_channels:
            raise InputError("images", f"have {shape[1]} channels, the network takes {self.in_channels}", "give those")
        try:
            return self._run(name, images.detach().cpu().contiguous().numpy())
        except Exception as error:  # each runtime has errors of its own
            what = f"{shape[0]} of {shape[2]} x {shape[3]} could not be segmented ({_first_line(error)})"
            raise InputError("images", what, "give smaller ones; the .safetensors file needs less memory") from error


def load(path: Path) -> tuple[Exported, Card]:
    """The network in an exported file, and its card. It computes in float32, but for the layers that were quantized, on
    `torch.get_num_threads()` threads.

    Raises:
        InputError: a missing package; no whole file, one that danet did not write, or one that refers to others.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(path, f"ends in {path.suffix!r}", f"give a file that ends in {' or '.join(SUFFIXES)}")
    run, entries = (_open_onnx if path.suffix == ".onnx" else _open_openvino)(path)
    try:
        card = Card.from_json(entries)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"its description cannot be read ({error!r})"
        raise InputError(path, what, "use the danet version that wrote it") from error
    return Exported(run, card), card


def optional(name: str, extra: str, where: object) -> ModuleType:
    """A package that comes with an extra of danet. ONNX Runtime, whichever package imports it, from 1.29 on tells a
    server of every session, unless the environment forbids it before.

    Raises:
        InputError: it is not there; `where` is what needs it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(where, f"needs the package {name}", f"pip install 'danet[{extra}]'") from error


def openvino(where: object) -> ModuleType:
    """OpenVINO without its telemetry, which tells a server of every import and conversion unless a file in the home
    folder forbids it. Without the package `openvino_telemetry` it sends nothing, and so does NNCF.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]  (None: cannot be imported)
    return optional("openvino", "openvino", where)


@cache
def openvino_core() -> Any:
    """The one of this process, never freed: a core's CPU plugin gives its thread a stack for signals, and a core freed
    before a younger one leaves the thread a stack that is no more, on which the next signal ends the process.
    """
    return openvino("OpenVINO models").Core()


def compiled(model: Any, output: str) -> Callable[[np.ndarray], np.ndarray]:
    """One output of an OpenVINO model, in float32 also where the processor has bfloat16."""
    ov = openvino("OpenVINO models")
    kept = ov.Model([model.output(output)], model.get_parameters())
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    infer = openvino_core().compile_model(kept, "CPU", options)
    return lambda images: np.array(infer({"images": images})[output])


def onnx_sha256(model: Any) -> str:
    """Of the weights in a `ModelProto`, in their order."""
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}\n".encode() + tensor.raw_data)
    return digest.hexdigest()


def _open_onnx(path: Path) -> tuple[Run, str]:
    onnx, runtime = optional("onnx", "export", path), optional("onnxruntime", "export", path)
    content = _read(path)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own
        raise InputError(path, f"not a whole ONNX file ({_first_line(error)})", "copy or export it again") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)) or model.functions:
        raise InputError(path, "keeps weights in other files, or has functions", "export it again by danet export")
    entries = {entry.key: entry.value for entry in model.metadata_props}
    _check(path, entries.get(CARD), entries.get(SHA256), onnx_sha256(model))
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own
        raise InputError(path, f"cannot be run ({_first_line(error)})", "copy or export it again") from error
    only = runtime.RunOptions()
    only.only_execute_path_to_fetches = True  # the labels cost a map of K,H,W
    only.log_severity_level = 4
    return lambda name, images: session.run([name], {"images": images}, only)[0], entries[CARD]


def _open_openvino(path: Path) -> tuple[Run, str]:
    openvino(path)
    graph, weights = _read(path), _read(path.with_suffix(".bin"))
    try:
        model = openvino_core().read_model(graph, weights)
        known = model.has_rt_info([CARD]) and model.has_rt_info([SHA256])
        card, sha256 = (model.get_rt_info([key]).astype(str) if known else None for key in (CARD, SHA256))
        _check(path, card, sha256, hashlib.sha256(weights).hexdigest())
        opened = cache(lambda name: compiled(model, name))
        opened("logits")
    except InputError:
        raise
    except Exception as error:  # the runtime's own
        raise InputError(path, f"cannot be run ({_first_line(error)})", "copy or export it again") from error
    assert card is not None
    return lambda name, images: opened(name)(images), card


def _read(path: Path) -> bytes:
    if not path.is_file():
        what = "no such file" if not path.exists() else "is not a file"
        raise InputError(path, what, "give a file of danet export; an .xml file needs its .bin beside it")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(path, f"has {size:,} bytes, more than the limit of {MAX_BYTES:,}", "export a smaller network")
    return path.read_bytes()


def _check(path: Path, card: str | None, expected: str | None, found: str) -> None:
    if card is None or expected is None:
        raise InputError(path, "was not exported by danet: it does not say how to use it", "use danet export")
    if expected != found:
        what = "its weights are not those that were exported (SHA-256 differs)"
        raise InputError(path, what, "copy or export it again" + (", both files" if path.suffix == ".xml" else ""))


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of an ONNX graph, of its nodes' attributes, and of the graphs in them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
