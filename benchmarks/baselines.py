"""DANet beside its baselines: FCN, PSPNet, DeepLabV3, DeepLabV3+ and UPerNet on the same backbone, recipe and budget,
and DANet on features of stride 8, as in the paper: mIoU, parameters, and time and memory of one image, all networks
in turns in one run. Needs the extra compare.

    python -m benchmarks.baselines --camvid DIR --seeds 3 --json benchmarks/results/baselines.json

DANet and the FCN are the runs of ablation.py, where these are in the same --out. The speed is measured anew each time,
once every network has its weights: run the same command again when the machine is quiet.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import danet
from benchmarks import campaign
from benchmarks.measure import interleaved, peak_memory
from benchmarks.summary import Row, table
from danet.model.device import resolve_device
from danet.recipes import Recipe

BASELINES = ("PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet")
BATCH = 4
REPEATS = 15


def main() -> None:
    options = campaign.parser(__doc__).parse_args()
    networks = rows(campaign.base(options))
    result = campaign.run(networks, options)
    weights = {row.name: campaign.weights_of(row, 1, options) for row in networks}
    if all(path.exists() for path in weights.values()):
        measured = speed(weights, str(resolve_device(options.device)))
        for row in result["rows"]:
            row["speed"] = measured[row["name"]]
    campaign.write(options.json, result)
    print(table(result))
    for row in result["rows"]:
        if "speed" in row:
            print(f"{row['about']:36}{_in_words(row['speed'])}")


def rows(base: Recipe) -> Sequence[Row]:
    """DANet and the FCN come last: by then an ablation that was begun beside this has trained them."""
    against, network = ("both",), base.network
    baselines = [
        Row(name.lower(), name, replace(base, network=replace(network, architecture=f"smp:{name}")), against)
        for name in BASELINES
    ]
    fcn = replace(base, network=replace(network, position=False, channel=False))
    finer = replace(base, network=replace(network, output_stride=8))
    return [
        *baselines,
        Row("both-8", "DANet, stride 8", finer, against),
        Row("fcn", "dilated FCN", fcn, against),
        Row("both", "DANet", base),
    ]


def speed(weights: dict[str, Path], device: str) -> dict[str, dict[str, Any]]:
    """From normalized image to logits at its size: latency of one, images a second in batches, and the peak of
    memory above the start of one, in a process of its own.
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
    """The forward pass of noise of the recipe's size, as `danet predict` runs the network."""
    predictor = danet.load(weights, device)
    width = predictor.card.size
    assert width is not None
    images = torch.randn(batch, 3, 3 * width // 4, width, generator=torch.Generator().manual_seed(0))
    images = images.to(device, memory_format=torch.channels_last)
    network = predictor.folded
    assert isinstance(network, torch.nn.Module)
    return torch.inference_mode()(lambda: network(images))


def _in_words(found: dict[str, Any]) -> str:
    peak = "ended for want of memory" if found["peak_bytes"] is None else f"{found['peak_bytes'] / 1e6:.0f} MB above"
    return f"{1000 * found['latency']['median_s']:8.1f} ms{found['images_per_s']:8.1f} images/s, {peak}"


if __name__ == "__main__":
    main()
