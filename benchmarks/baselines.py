"""DANet, DRANet and their baselines, of which there is one row each: accuracy, time and memory.

All have the same backbone, recipe and number of steps. DANet is also trained at stride 8, as in the paper, with a
decoder, and on degraded images. Needs the extra `compare`.

    python -m benchmarks.baselines --root CAMVID --seeds 3 --json benchmarks/results/baselines.json

DANet and the FCN are the runs of ablation.py if these are in the same --out. `--only ccnet ocrnet` trains just these.
The speed of all networks is measured again each time, with untrained weights, in one run: repeat the command when the
machine is idle.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import danet
from benchmarks import campaign, command, summary
from benchmarks.measure import interleaved, peak_memory
from benchmarks.summary import Row
from danet.data import registry
from danet.model.device import resolve_device
from danet.recipes import Recipe
from danet.train.build import build
from danet.weights import file as weights_file

BASELINES = {
    "fcn8s": "FCN-8s",
    "deeplabv2": "DeepLab-v2",
    "refinenet": "RefineNet",
    "smp:PSPNet": "PSPNet",
    "smp:DeepLabV3": "DeepLabV3",
    "smp:DeepLabV3Plus": "DeepLabV3+",
    "smp:UPerNet": "UPerNet",
    "bisenet": "BiSeNet",
    "denseaspp": "DenseASPP",
    "encnet": "EncNet",
    "ccnet": "CCNet",
    "gcnet": "GCNet",
    "dnl": "DNL",
    "ocrnet": "OCRNet",
    "emanet": "EMANet",
    "smp:FPN": "FPN",
    "smp:PAN": "PAN",
    "smp:Unet": "U-Net",
    "smp:Linknet": "LinkNet",
    "smp:MAnet": "MA-Net",
    "smp:Segformer": "SegFormer's decoder",
}
"""Architecture -> label."""
WITH_AUXILIARY = ("smp:PSPNet", "ccnet", "dnl", "gcnet", "encnet")
"""Those whose papers train an auxiliary head."""
HEAD_LR_FACTORS = {"deeplabv2": 0.25, "refinenet": 0.25}
"""Architecture -> factor of the head's learning rate, where the recipe's is too high: heads without normalization.

They then have the rate of DeepLab-v2's paper, 0.0025. With the recipe's 0.05, DeepLab-v2's training loss rose, to 19.6%
mIoU, and that of RefineNet was not finite after six steps.
"""
BATCH = 4
REPEATS = 15


def run(options: campaign.Options) -> dict[str, Any]:
    """Train and compare all networks, and measure the speed of those that have results."""
    networks = rows(campaign.base(options))
    result = campaign.run(networks, options)
    found = {row["name"] for row in result["rows"] if row["miou"] is not None}
    classes = registry.load(options.dataset, options.root, "val").classes
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for row in networks:
            if row.name in found:
                recipe = replace(row.recipe, network=replace(row.recipe.network, pretrained=False))
                files[row.name] = Path(folder) / f"{row.name}.safetensors"
                weights_file.save(files[row.name], *build(recipe, classes))
        measured = speed(files, str(resolve_device(options.device)))
    for row in result["rows"]:
        if row["name"] in measured:
            row["speed"] = measured[row["name"]]
    return result


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines = [f"{row['about']:36}{_format_speed(row['speed'])}" for row in result["rows"] if "speed" in row]
    return "\n".join([summary.table(result), *lines])


def rows(base: Recipe) -> Sequence[Row]:
    """Return the rows. DANet and the FCN are last, because an ablation running in parallel may train them first."""
    against, network = ("both",), base.network
    baselines = []
    for name, label in BASELINES.items():
        factor = HEAD_LR_FACTORS.get(name, base.optim.head_lr_factor)
        own = replace(network, architecture=name, auxiliary=name in WITH_AUXILIARY)
        recipe = replace(base, network=own, optim=replace(base.optim, head_lr_factor=factor))
        baselines.append(Row(name.removeprefix("smp:").lower(), label, recipe, against))
    fcn = replace(base, network=replace(network, position=False, channel=False))
    finer = replace(base, network=replace(network, output_stride=8))
    decoder = replace(
        base,
        network=replace(network, decoder=True, output_stride=16, initial_scale=0.1),
        loss=replace(base.loss, attention=0.4),
    )
    degraded = {"data": replace(base.data, degrade=0.5)}
    return [
        *baselines,
        Row("both-8", "DANet, stride 8", finer, against),
        Row("decoder", "DANet, decoder, attention loss", decoder, (*against, "deeplabv3plus", "upernet")),
        Row(
            "decoder-128",
            "DANet, decoder of 128 channels, attention loss",
            replace(decoder, network=replace(decoder.network, decoder_width=128)),
            (*against, "decoder", "upernet"),
        ),
        Row(
            "decoder-2",
            "DANet, decoder to stride 2, attention loss",
            replace(decoder, network=replace(decoder.network, decoder_stride=2)),
            (*against, "decoder", "upernet"),
        ),
        Row("dranet", "DRANet", replace(base, network=replace(network, architecture="dranet")), against),
        Row("robust", "DANet, degraded training", replace(base, **degraded), against),
        Row("robust-decoder", "  + decoder, attention loss", replace(decoder, **degraded), ("decoder",)),
        Row("fcn", "dilated FCN", fcn, against),
        Row("both", "DANet", base),
    ]


def speed(weights: dict[str, Path], device: str) -> dict[str, dict[str, Any]]:
    """Measure latency, throughput in batches and peak memory, from normalized image to logits at its size.

    Latency and memory are those of a single image.
    """
    calls = {f"{name} {batch}": prepare(path, batch, device) for name, path in weights.items() for batch in (1, BATCH)}
    timings = interleaved(calls, REPEATS, device=device)
    return {
        name: {
            "latency": timings[f"{name} 1"].as_dict(),
            "images_per_s": BATCH / timings[f"{name} {BATCH}"].median,
            "batch": BATCH,
            "peak_bytes": peak_memory(prepare, path, 1, device),
        }
        for name, path in weights.items()
    }


def prepare(weights: Path, batch: int, device: str) -> Callable[[], object]:
    """Return a forward pass of noise at the recipe's size, with the network as `danet predict` runs it."""
    predictor = danet.load(weights, device)
    width = predictor.card.size
    assert width is not None
    images = torch.randn(batch, 3, 3 * width // 4, width, generator=torch.Generator().manual_seed(0))
    images = images.to(device, memory_format=torch.channels_last)
    network = predictor.folded
    assert isinstance(network, torch.nn.Module)
    return torch.inference_mode()(lambda: network(images))


def _format_speed(speed: dict[str, Any]) -> str:
    peak = "killed for lack of memory" if speed["peak_bytes"] is None else f"peak {speed['peak_bytes'] / 1e6:.0f} MB"
    return f"{1000 * speed['latency']['median_s']:8.1f} ms{speed['images_per_s']:8.1f} images/s, {peak}"


if __name__ == "__main__":
    sys.exit(command.main("baselines", campaign.Options, run, table, overwrite=True))
