"""Time to make a training sample, from two 2048 x 1024 PNG files to a normalized crop.

    python -m benchmarks.data --repeats 40

    released   the released code's steps with its Cityscapes options: decode, flip, resize the whole image, crop
    ours       decode, and resize only the crop
    cached     `--cache`: decoded before and memory-mapped; only the crop is read

All use the same images in turn. The images are generated with noise, so that a PNG is about as large as in Cityscapes.
"""

import itertools
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import command, measure
from benchmarks.command import JsonFile
from danet.data.augment import Augmentation
from danet.data.cache import open_cache
from danet.data.classes import LabelMap
from danet.data.datasets import synthetic
from danet.data.images.read import read_image, read_mask
from danet.data.samples import Pair, PairedFiles, Samples
from danet.model.preprocess import normalize

BASE, CROP = 1024, 768
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Options:
    """Time to make a training sample from two 2048 x 1024 PNG files: the released pipeline, ours, ours with --cache.

    Example: python -m benchmarks.data --repeats 40
    """

    pairs: int = 4
    """number of generated images, used in turn"""
    repeats: int = 20
    """samples of each pipeline"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Time each pipeline on one CPU thread."""
    with tempfile.TemporaryDirectory() as name:
        samples = _generate(Path(name), options.pairs)
        cached = open_cache(samples, Path(name) / "cache")
        for index in range(options.pairs):
            _ = cached[index]
        augment = Augmentation((CROP, CROP), scale=(0.75, 2.0), short_side=BASE)
        counts = {way: itertools.count() for way in ("released", "ours", "cached")}
        ways = {
            "released": lambda: _released(samples, next(counts["released"])),
            "ours": lambda: _ours(samples, augment, next(counts["ours"])),
            "cached": lambda: _ours(cached, augment, next(counts["cached"])),
            "decoding alone": lambda: (read_image(samples.pairs[0].image), read_mask(samples.pairs[0].mask)),
        }
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            timings = measure.interleaved(ways, options.repeats, warmup=2)
        finally:
            torch.set_num_threads(threads)
        file_bytes = median(pair.image.stat().st_size for pair in samples.pairs)
    reference = timings["released"].median
    rows = {way: timing.as_dict() | {"of_released": timing.median / reference} for way, timing in timings.items()}
    return {"environment": measure.environment(), "image_bytes": file_bytes, "ways": rows}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines = [f"2048 x 1024 pixels, PNG of {result['image_bytes'] / 1e6:.1f} MB -> crop of {CROP} x {CROP}"]
    lines += [
        f"{way:16} {1000 * row['median_s']:7.1f} ms   {row['of_released']:.2f} of the released pipeline"
        for way, row in result["ways"].items()
    ]
    return "\n".join(lines)


def _generate(folder: Path, pairs: int) -> PairedFiles:
    rng = np.random.default_rng(0)
    generated = []
    for index in range(pairs):
        scene = synthetic.load(folder, "train")[index]
        size = 2 * BASE, BASE
        image = np.asarray(Image.fromarray(scene.image).resize(size, Image.Resampling.BICUBIC), np.float32)
        grain = Image.fromarray(rng.normal(0, 6, (BASE // 2, BASE)).astype(np.float32)).resize(size)
        noisy = (image + np.asarray(grain)[..., None]).clip(0, 255).astype(np.uint8)
        pair = Pair(f"{index}", folder / f"{index}.png", folder / f"{index}-labels.png")
        Image.fromarray(noisy).save(pair.image)
        Image.fromarray(scene.labels).resize(size, Image.Resampling.NEAREST).save(pair.mask)
        generated.append(pair)
    return PairedFiles(synthetic.CLASSES, generated, LabelMap.identity(len(synthetic.CLASSES)))


def _ours(samples: Samples, augment: Augmentation, count: int) -> torch.Tensor:
    sample = samples[count % len(samples)]
    image, _ = augment(sample.image, sample.labels, np.random.default_rng(count))
    return normalize(torch.from_numpy(image)[None], _MEAN, _STD)


def _released(samples: PairedFiles, count: int) -> torch.Tensor:
    """Make a sample as the 2018 code does.

    Random flip, short side resized to 0.75 to 2 times 1,024, crop, and torchvision's ToTensor and Normalize.
    """
    pair, rng = samples.pairs[count % len(samples)], np.random.default_rng(count)
    image, mask = Image.open(pair.image).convert("RGB"), Image.open(pair.mask)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    short = int(rng.integers(int(BASE * 0.75), int(BASE * 2.0) + 1))
    size = round(image.width * short / image.height), short
    image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)
    if short < CROP:
        padded, ignored = Image.new("RGB", (size[0], CROP)), Image.new("L", (size[0], CROP), 255)
        padded.paste(image)
        ignored.paste(mask)
        image, mask = padded, ignored
    left, top = (int(rng.integers(0, side - CROP + 1)) for side in image.size)
    box = left, top, left + CROP, top + CROP
    pixels = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1).contiguous().float().div(255)
    labels = torch.from_numpy(np.array(mask.crop(box))).long()
    assert labels.shape == pixels.shape[1:]
    return pixels.sub(torch.tensor(_MEAN)[:, None, None]).div(torch.tensor(_STD)[:, None, None])


if __name__ == "__main__":
    sys.exit(command.main("data", Options, run, table))
