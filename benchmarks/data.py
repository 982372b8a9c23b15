"""`danet bench data`: what a training sample costs, from two 2048 x 1024 PNG files to a normalized crop.

    released   the released code's steps with its Cityscapes options: decode, flip, resize the whole image, crop
    ours       decode, and resize nothing but the crop
    cached     `--cache`: decoded before, memory-mapped, and nothing read but the crop

Every way is shown the same pairs in turn; the files are drawn for the run, with noise, so that a PNG has about the size
of one of Cityscapes.
"""

import itertools
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import measure
from danet.data.augment import Augmentation
from danet.data.cache import open_cache
from danet.data.classes import LabelMap
from danet.data.datasets import synthetic
from danet.data.images.read import read_image, read_mask
from danet.data.samples import Pair, PairedFiles, Samples
from danet.model.preprocess import normalize

BASE, CROP = 1024, 768
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run(pairs: int = 4, repeats: int = 20, device: str = "cpu") -> dict[str, Any]:
    """Milliseconds a sample by each way, on one thread.

    Args:
        pairs: how many drawn images take turns.
        repeats: samples of each way.
        device: named in the result; samples are made on the CPU.
    """
    with tempfile.TemporaryDirectory() as name:
        samples = _draw(Path(name), pairs)
        through = open_cache(samples, Path(name) / "cache")
        for index in range(pairs):
            _ = through[index]
        augment = Augmentation((CROP, CROP), scale=(0.75, 2.0), short_side=BASE)
        counts = {way: itertools.count() for way in ("released", "ours", "cached")}
        ways = {
            "released": lambda: _released(samples, next(counts["released"])),
            "ours": lambda: _ours(samples, augment, next(counts["ours"])),
            "cached": lambda: _ours(through, augment, next(counts["cached"])),
            "decoding alone": lambda: (read_image(samples.pairs[0].image), read_mask(samples.pairs[0].mask)),
        }
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            timings = measure.interleaved(ways, repeats, warmup=2)
        finally:
            torch.set_num_threads(threads)
        file_bytes = median(pair.image.stat().st_size for pair in samples.pairs)
    reference = timings["released"].median
    rows = {way: timing.as_dict() | {"of_released": timing.median / reference} for way, timing in timings.items()}
    return {"environment": measure.environment(device), "image_bytes": file_bytes, "ways": rows}


def table(result: dict[str, Any]) -> str:
    """The result in words."""
    lines = [f"a 2048 x 1024 pair, PNG of {result['image_bytes'] / 1e6:.1f} MB -> a crop of {CROP} x {CROP}"]
    lines += [
        f"{way:16} {1000 * row['median_s']:7.1f} ms   {row['of_released']:.2f} of the released pipeline"
        for way, row in result["ways"].items()
    ]
    return "\n".join(lines)


def _draw(folder: Path, pairs: int) -> PairedFiles:
    rng = np.random.default_rng(0)
    made = []
    for index in range(pairs):
        scene = synthetic.load(folder, "train")[index]
        size = 2 * BASE, BASE
        image = np.asarray(Image.fromarray(scene.image).resize(size, Image.Resampling.BICUBIC), np.float32)
        grain = Image.fromarray(rng.normal(0, 6, (BASE // 2, BASE)).astype(np.float32)).resize(size)
        noisy = (image + np.asarray(grain)[..., None]).clip(0, 255).astype(np.uint8)
        pair = Pair(f"{index}", folder / f"{index}.png", folder / f"{index}-labels.png")
        Image.fromarray(noisy).save(pair.image)
        Image.fromarray(scene.labels).resize(size, Image.Resampling.NEAREST).save(pair.mask)
        made.append(pair)
    return PairedFiles(synthetic.CLASSES, made, LabelMap.identity(len(synthetic.CLASSES)))


def _ours(samples: Samples, augment: Augmentation, count: int) -> torch.Tensor:
    sample = samples[count % len(samples)]
    image, _ = augment(sample.image, sample.labels, np.random.default_rng(count))
    return normalize(torch.from_numpy(image)[None], _MEAN, _STD)


def _released(samples: PairedFiles, count: int) -> torch.Tensor:
    """The 2018 code's steps: the short side to randint(0.75, 2.0) of 1,024, then torchvision's ToTensor and
    Normalize.
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
