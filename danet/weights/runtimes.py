"""Run exported networks on the CPU: `.onnx` by ONNX Runtime, `.xml` with `.bin` by OpenVINO, `.pte` by ExecuTorch.

`danet.load` accepts them in place of a weights file. The graph has one input, `images`, B,N,H,W float32 of any B, H and
W, normalized as the card says, and two outputs: `logits`, B,K,h,w float32 at the feature grid, and `labels`, B,H,W
uint8 train ids at the size of the images. Its metadata has `danet.card`, the JSON of `weights.card.Card`, and
`danet.sha256`, the hash of the weights, for ExecuTorch that of the file with `NO_SHA256` in its place. Nothing here but
ExecuTorch imports torch, so that it need not be installed.
"""

import contextlib
import hashlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from danet.arrays import Array, on_device_of, to_numpy
from danet.errors import InputError, first_line, missing_package
from danet.weights import onnx_file
from danet.weights.card import Card

SUFFIXES = (".onnx", ".xml", ".pte")
CARD, SHA256, USAGE = "danet.card", "danet.sha256", "danet.usage"
NO_SHA256 = "0" * 64
MAX_BYTES = 1 << 30
"""The largest file that is read."""

Run = Callable[[str, np.ndarray], np.ndarray]
"""A function of an output's name and images that returns this output; the other one is not computed."""


class Opened(NamedTuple):
    """An exported file that has been opened.

    Args:
        run: runs the graph.
        card: the card as JSON.
        sha256: the hash of the weights in the file.
        size: height and width of the images that the graph takes, one at a time; None: any.
    """

    run: Run
    card: str
    sha256: str
    size: tuple[int, int] | None


class ExportedOutputs(NamedTuple):
    """The output of an exported network, named as in `danet.model.danet.Outputs`."""

    fused: Float[Array, "B K h w"]


class ExportedNetwork:
    """An exported network, which a `Predictor` uses like a `DANet`.

    Args:
        run: runs the graph.
        card: the card in the file.
        dtype: the precision in which it computes.
        sha256: the hash of the weights in the file, which an int8 export of the same network does not have.
        size: height and width of the images that it takes; None: any.
        path: the file, for messages.
    """

    def __init__(
        self,
        run: Run,
        card: Card,
        dtype: str = "float32",
        sha256: str = "",
        size: tuple[int, int] | None = None,
        path: Path | str = "weights",
    ):
        self._run, self._path = run, path
        self.dtype, self.sha256, self.size = dtype, sha256, size
        self.in_channels: int = card.network.get("in_channels", 3)
        self.align_corners: bool = card.network.get("align_corners", True)

    def logits(self, images: Float[Array, "B N H W"]) -> ExportedOutputs:
        """Return `fused` at the feature grid, B,K,h,w, as `DANet.logits` does; the file has no other outputs.

        NumPy arrays give NumPy arrays, and tensors give tensors.

        Raises:
            InputError: the wrong number of channels, another size than the file takes, or out of memory.
        """
        return ExportedOutputs(on_device_of(images, self._output("logits", images)))

    def labels(self, images: Float[Array, "B N H W"]) -> UInt8[Array, "B H W"]:
        """Return train ids at the size of the images, computed by the graph; arrays or tensors as in `logits`.

        Raises:
            InputError: the wrong number of channels, another size than the file takes, or out of memory.
        """
        return on_device_of(images, self._output("labels", images))

    def check_size(self, size: int | None) -> None:
        """Check that images which are resized to a long side can have the size that the file takes.

        Args:
            size: the long side in pixels; None: images are not resized.

        Raises:
            InputError: none has.
        """
        if self.size is not None and size not in (None, max(self.size)):
            what = f"{self._takes}, but images are resized to a long side of {size}"
            raise InputError(self._path, what, "export it again, for any size")

    @property
    def _takes(self) -> str:
        height, width = self.size or (0, 0)
        return f"takes only images of {width} x {height} pixels, as it was exported for one size"

    def _output(self, name: str, images: Array) -> np.ndarray:
        shape = tuple(images.shape)
        if shape[1] != self.in_channels:
            what = f"have {shape[1]} channels, but the network takes {self.in_channels}"
            raise InputError("images", what, "use images with as many bands")
        if self.size is not None and shape[2:] != self.size:
            remedy = f"use `size` {max(self.size)} for images of this shape, or export it again, for any size"
            raise InputError(self._path, f"{self._takes}, got {shape[3]} x {shape[2]}", remedy)
        array = np.ascontiguousarray(to_numpy(images))
        try:
            if self.size is None:
                return self._run(name, array)
            return np.concatenate([self._run(name, array[i : i + 1]) for i in range(len(array))])
        except Exception as error:  # each runtime has its own types
            what = f"cannot segment {shape[0]} of {shape[3]} x {shape[2]} ({first_line(error)})"
            raise InputError("images", what, "use smaller ones; the .safetensors file needs less memory") from error


def load(path: Path, dtype: str = "float32") -> tuple[ExportedNetwork, Card]:
    """Return the network of an exported file, and its card.

    It runs on `thread_count()` threads, and quantized layers compute in int8.

    Args:
        path: a .onnx, .xml or .pte file.
        dtype: "float32", or "bfloat16" for an .xml file, on a CPU that computes in it.

    Raises:
        InputError: a missing package; the file is incomplete, was not written by danet, or refers to other files; a
            precision that its runtime or this CPU does not support.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(path, f"has suffix {path.suffix!r}", f"use a file with suffix {' or '.join(SUFFIXES)}")
    if dtype != "float32":
        _check_bfloat16(path)
    openers = {".onnx": _open_onnx, ".xml": partial(_open_openvino, dtype=dtype), ".pte": _open_executorch}
    opened = openers[path.suffix](path)
    try:
        card = Card.from_json(opened.card)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"invalid metadata ({error!r})", "use the danet version that wrote it") from error
    return ExportedNetwork(opened.run, card, dtype, opened.sha256, opened.size, path), card


def import_optional(name: str, extra: str, where: object) -> ModuleType:
    """Import a package that belongs to an extra of danet.

    Args:
        name: the package.
        extra: the extra.
        where: the file or parameter that needs it, for the message.

    Raises:
        InputError: the package is not installed.
    """
    # ONNX Runtime, from 1.29 on, reports each session to a server unless this is set before its import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_package(where, f"needs the package {name}", extra) from error


def import_openvino(where: object) -> ModuleType:
    """Import OpenVINO with its telemetry disabled.

    OpenVINO and NNCF report every import and conversion to a server unless a file in the home folder forbids it. They
    send nothing if the package `openvino_telemetry` cannot be imported.

    Args:
        where: the file or parameter that needs it, for the message.

    Raises:
        InputError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]  (None: cannot be imported)
    return import_optional("openvino", "openvino", where)


def thread_count() -> int:
    """Return the number of threads to compute on: torch's if torch is used, or OMP_NUM_THREADS; 0 means all cores."""
    torch, given = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None:
        return torch.get_num_threads()
    return int(given) if given.isdecimal() else 0


@cache
def openvino_core() -> Any:
    """Return the only OpenVINO core of this process, which is never freed.

    The CPU plugin of each core installs a signal stack for its thread. Freeing one core while another exists leaves the
    thread with a freed stack, and the next signal crashes the process.
    """
    return import_openvino("OpenVINO models").Core()


def compile_output(model: Any, output: str, dtype: str = "float32") -> Callable[[np.ndarray], np.ndarray]:
    """Compile one output of an OpenVINO model, in float32 even if the CPU supports bfloat16, or in bfloat16."""
    ov = import_openvino("OpenVINO models")
    pruned = ov.Model([model.output(output)], model.get_parameters())
    options = {
        "INFERENCE_NUM_THREADS": thread_count(),
        "INFERENCE_PRECISION_HINT": "f32" if dtype == "float32" else "bf16",
        "PERFORMANCE_HINT": "LATENCY",
    }
    infer = openvino_core().compile_model(pruned, "CPU", options)
    return lambda images: np.array(infer({"images": images})[output])


def onnx_sha256(model: Any) -> str:
    """Return the SHA-256 of the weights in a `ModelProto`, in their order."""
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}\n".encode() + tensor.raw_data)
    return digest.hexdigest()


def executorch_sha256(content: bytes, stored: str = NO_SHA256) -> str:
    """Return the SHA-256 of a .pte file without the hash that is stored in it."""
    return hashlib.sha256(content.replace(stored.encode(), NO_SHA256.encode(), 1)).hexdigest()


def _open_onnx(path: Path) -> Opened:
    runtime = import_optional("onnxruntime", "export", path)
    content = _read(path)
    try:
        file = onnx_file.read(content)
    except ValueError as error:
        raise InputError(path, "not a valid ONNX file, or truncated", "copy or export it again") from error
    if USAGE in file.metadata and CARD not in file.metadata:
        raise InputError(path, "has preprocessing inside, so danet cannot run it", "export it without preprocessing")
    if not file.self_contained:
        raise InputError(path, "stores weights in other files, or has functions", "export it again with danet export")
    entries = _checked(path, file.metadata.get(CARD), file.metadata.get(SHA256), file.sha256)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = thread_count(), 4
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has its own types
        raise InputError(path, f"cannot run it ({first_line(error)})", "copy or export it again") from error
    run_options = runtime.RunOptions()
    run_options.only_execute_path_to_fetches = True  # the labels would need a map K,H,W
    run_options.log_severity_level = 4
    taken = tuple(session.get_inputs()[0].shape[2:])  # names in place of numbers: any
    return Opened(
        lambda name, images: session.run([name], {"images": images}, run_options)[0],
        *entries,
        taken if all(isinstance(side, int) for side in taken) else None,
    )


def supports_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this CPU, which needs AVX512-BF16 or AMX."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _check_bfloat16(path: Path) -> None:
    if path.suffix != ".xml":
        what = f"bfloat16 is not supported: {path.suffix} files have a fixed precision"
        raise InputError("dtype", what, "use float32, an .xml file for OpenVINO, or the .safetensors file")
    if not supports_bfloat16():
        raise InputError("dtype", "bfloat16 is not supported by this CPU", "use float32")


def _open_openvino(path: Path, dtype: str) -> Opened:
    import_openvino(path)
    graph, weights = _read(path), _read(path.with_suffix(".bin"))
    try:
        model = openvino_core().read_model(graph, weights)
        known = model.has_rt_info([CARD]) and model.has_rt_info([SHA256])
        card, sha256 = (model.get_rt_info([key]).astype(str) if known else None for key in (CARD, SHA256))
        entries = _checked(path, card, sha256, hashlib.sha256(weights).hexdigest())
        compiled = cache(lambda name: compile_output(model, name, dtype))
        compiled("logits")
        shape = model.input("images").partial_shape
        taken = None if shape.is_dynamic else tuple(shape.to_shape())[2:]
    except InputError:
        raise
    except Exception as error:  # the runtime has its own types
        raise InputError(path, f"cannot run it ({first_line(error)})", "copy or export it again") from error
    return Opened(lambda name, images: compiled(name)(images), *entries, taken)


def _open_executorch(path: Path) -> Opened:
    with silence():
        runtime = import_optional("executorch.runtime", "executorch", path)
    import torch

    content = _read(path)
    try:
        program = runtime.Runtime.get().load_program(content)
        known = {CARD, SHA256} <= program.method_names
        card, sha256 = (program.load_method(key).execute([])[0] if known else None for key in (CARD, SHA256))
        entries = _checked(path, card, sha256, executorch_sha256(content, sha256 or NO_SHA256))
        taken = tuple(program.load_method("forward").metadata.input_tensor_meta(0).sizes())
    except InputError:
        raise
    except Exception as error:  # the runtime has its own types
        raise InputError(path, f"cannot run it ({first_line(error)})", "copy or export it again") from error

    def run(name: str, images: np.ndarray) -> np.ndarray:
        method = program.load_method("forward")  # kept by the program, whose content it reads
        return method.execute([torch.from_numpy(images)])[("logits", "labels").index(name)].numpy()

    return Opened(run, *entries, taken[2:])


def _read(path: Path) -> bytes:
    if not path.is_file():
        what = "no such file" if not path.exists() else "not a file"
        raise InputError(path, what, "use a file of danet export; an .xml file needs its .bin in the same folder")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(path, f"has {size:,} bytes, the limit is {MAX_BYTES:,}", "export a smaller network")
    return path.read_bytes()


def _checked(path: Path, card: str | None, expected: str | None, actual: str) -> tuple[str, str]:
    """Return the card as JSON and the hash of the weights, after checking it."""
    if card is None or expected is None:
        raise InputError(path, "has no danet metadata", "use a file of danet export")
    if expected != actual:
        what = "its weights differ from those that were exported (SHA-256 mismatch)"
        raise InputError(path, what, "copy or export it again" + (", both files" if path.suffix == ".xml" else ""))
    return card, actual


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hide what exporters and quantizers write to standard output, their log and their warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
