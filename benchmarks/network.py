"""Forward pass of the whole network, optimized in several ways: time, memory, and changes in the output.

python -m benchmarks.network --json network.json
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import announce, environment, interleaved, peak_memory
from danet.model.danet import DANet
from danet.model.device import resolve_device
from danet.model.fold_batchnorm import fold_batchnorm
from danet.weights import file as weights_file


class Case(NamedTuple):
    """A network, its image size in pixels, and the number of runs."""

    network: str
    height: int
    width: int
    repeats: int


CASES = {
    "default, 480 x 360": Case("default", 360, 480, 15),
    "default, 1024 x 512": Case("default", 512, 1024, 7),
    "DANet-50, 1024 x 512": Case("danet50", 512, 1024, 3),
}
"""The bundled network, and the paper's untrained network with ResNet-50 at stride 8."""

WAYS = ("eager", "channels_last", "folded", "bfloat16")
"""Each includes the one before it; `bfloat16` uses autocast."""

COMPILED = ("compiled", "compiled bfloat16")
"""`folded` and `bfloat16` compiled by inductor for one image size; on the CPU with frozen weights."""


@dataclass(frozen=True)
class Options:
    """Measure the forward pass of the whole network, optimized in several ways: time, memory, output changes.

    Example: python -m benchmarks.network --json network.json
    """

    compiled: bool = False
    """also compile with torch.compile; takes a minute or more each"""
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Run all variants in turns on one image, from normalized image to logits at the feature grid.

    Returns:
        `{"environment", "cases": {case: {way: {"median_s", ..., "images_per_s", "speedup", "prepared_s", "peak_bytes",
        "largest_difference", "largest_logit", "same_labels"}}}}`; outputs are compared with "eager".
    """
    device = str(resolve_device(options.device))
    ways = WAYS + COMPILED if options.compiled else WAYS
    cases = {name: _case(case, ways, device) for name, case in CASES.items()}
    return {"environment": environment(device), "cases": cases}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    return "\n".join(line for name, rows in result["cases"].items() for line in _lines(name, rows))


def prepare(way: str, case: Case, device: str) -> Callable[[], Tensor]:
    """Return the forward pass of one image; compiled variants are compiled by a first call."""
    network, images = _network(case).to(device), _image(case).to(device)
    if way != "eager":
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        images = images.contiguous(memory_format=torch.channels_last)
    if way not in ("eager", "channels_last"):
        network = fold_batchnorm(network, images[..., :64, :64])
    reduced = torch.autocast(device, torch.bfloat16, enabled="bfloat16" in way)

    def forward(images: Tensor) -> Tensor:
        with reduced:
            return network.logits(images).fused.float()

    logits = forward
    if "compiled" in way:
        torch.compiler.reset()
        logits = torch.compile(forward, dynamic=False, options={"freezing": True} if device == "cpu" else None)

    @torch.inference_mode()
    def call() -> Tensor:
        return logits(images)

    if "compiled" in way:
        call()
    return call


def _network(case: Case) -> DANet:
    if case.network == "default":
        network, _ = weights_file.load()
        assert isinstance(network, DANet)
        return network
    torch.manual_seed(0)
    network = DANet(19, "resnet50", layer4_dilations=(4, 8, 16))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # so that folding changes the weights
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    for branch in (network.position, network.channel):
        assert branch is not None
        torch.nn.init.constant_(branch.attention.scale, 0.5)  # type: ignore[arg-type]
    return network.eval()


def _image(case: Case) -> Tensor:
    """Return normalized smooth noise, 1,3,H,W."""
    grain = torch.randn(1, 3, case.height // 16, case.width // 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(grain, (case.height, case.width), mode="bilinear")


def _case(case: Case, ways: Sequence[str], device: str) -> dict[str, dict[str, Any]]:
    calls, prepared = {}, {}
    for way in ways:
        announce(f"{case.network}: preparing {way}")
        start = time.perf_counter()
        calls[way] = prepare(way, case, device)
        prepared[way] = time.perf_counter() - start
    outputs = {way: call() for way, call in calls.items()}
    timings = interleaved(calls, case.repeats, device=device)
    first, rows = outputs["eager"], {}
    for way, timing in timings.items():
        announce(f"{case.network}: memory of {way}")
        rows[way] = timing.as_dict() | {
            "images_per_s": 1 / timing.median,
            "speedup": timings["eager"].median / timing.median,
            "prepared_s": prepared[way],
            "peak_bytes": peak_memory(prepare, way, case, device),
            "largest_difference": (outputs[way] - first).abs().max().item(),
            "largest_logit": first.abs().max().item(),
            "same_labels": (outputs[way].argmax(1) == first.argmax(1)).double().mean().item(),
        }
    return rows


def _lines(name: str, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield name
    heads = ("median ms", "images/s", "speedup", "prepared s", "peak MB", "difference", "same labels")
    yield f"  {'':18}" + "".join(f"{head:>12}" for head in heads)
    for way, row in rows.items():
        peak = "killed" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
        yield (
            f"  {way:18}{1e3 * row['median_s']:12.1f}{row['images_per_s']:12.2f}{row['speedup']:12.2f}"
            f"{row['prepared_s']:12.1f}{peak:>12}{row['largest_difference']:12.1e}{row['same_labels']:12.2%}"
        )


if __name__ == "__main__":
    sys.exit(command.main("network", Options, run, table))
