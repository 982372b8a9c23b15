"""Training on few images: danet's default command, and segmentation-models-pytorch in a loop like that of its docs.

Both start from the same backbone weights and see the same number of images at the same size. The loop is that of the
example "CamVid multiclass segmentation" of segmentation-models-pytorch: Dice loss, Adam with learning rate 2e-4, cosine
annealing; with random flips, scaling and crops. The mIoU is that of the last weights on full validation images. The
same command continues an interrupted benchmark. Needs the extra `compare`.

    python -m benchmarks.small_data --data DATA --backbone-weights FILE --json benchmarks/results/small_data.json

DATA has one folder per dataset: images/{train,val}, labels/{train,val} and classes.txt.
"""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.markdown import miou_and_minutes
from benchmarks.measure import environment
from danet.data import registry
from danet.data.augment import Augmentation
from danet.data.sampler import generator, sample_index
from danet.data.samples import Samples
from danet.errors import InputError
from danet.evaluate.confusion import Confusion
from danet.files import make_folder, write_json
from danet.model.criterion import IGNORE
from danet.model.preprocess import normalize
from danet.weights import file as weights_file
from danet.weights.file import Card

SMP_BATCH, SMP_CROP, SMP_RATE, SMP_LEAST_RATE = 4, 320, 2e-4, 1e-5
MULTIPLE = 32
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Options:
    """Train on few images with danet's default command and with segmentation-models-pytorch.

    Example: python -m benchmarks.small_data --data DATA --datasets msrc21 --images 20
    """

    data: Path
    """folder of the datasets"""
    datasets: tuple[str, ...] = ("labelmefacade", "msrc21", "idd_lite")
    """folders in it"""
    images: tuple[int, ...] = (20, 50, 100, 200)
    """numbers of training images; those above the size of a dataset are left out"""
    validation: int = 60
    """number of validation images"""
    architectures: tuple[str, ...] = ("Unet", "DeepLabV3Plus")
    """of segmentation-models-pytorch"""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone; default: timm's from the Hugging Face hub"""
    out: Path = Path("runs/small_data")
    """folder of the subsets and runs"""
    seed: int = 1
    """of danet and of the loop"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Train and evaluate what is missing in `options.json`."""
    weights = options.backbone_weights and options.backbone_weights.name
    rows = Rows({"seed": options.seed, "validation": options.validation, "backbone_weights": weights})
    rows.continue_from(options.out, options.json)
    for name in options.datasets:
        for count in options.images:
            folder = make_subset(options.data / name, options.out / f"{name}-{count}", count, options.validation)
            done = {row["way"] for row in rows.rows if (row["dataset"], row["images"]) == (name, count)}
            for way in ("danet", *options.architectures):
                if folder is not None and way not in done:
                    measured = _measure(way, folder, options)
                    print(f"{name}, {count} images, {way}: mIoU {100 * measured['miou']:.1f}%", file=sys.stderr)
                    rows.add({"dataset": name, "images": count, "way": way, **measured})
    return rows.result()


@dataclass
class Rows:
    """The rows of a benchmark that goes on where it was interrupted.

    Args:
        settings: what all rows have in common; rows and runs of others are refused.
    """

    settings: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    _json: Path | None = None

    def continue_from(self, out: Path, json_file: Path | None) -> None:
        """Read the rows of an earlier start, and keep further ones in the same file.

        Args:
            out: folder of the runs.
            json_file: of the rows; None or "-" keeps none.

        Raises:
            InputError: runs or rows were made with other settings.
        """
        self._json = None if json_file == Path("-") else json_file
        for file in (out / "settings.json", self._json):
            found = json.loads(file.read_text()) if file is not None and file.exists() else {}
            self.rows = found.get("rows", [])
            for name, value in found.get("settings", {}).items():
                if value != self.settings[name]:
                    raise InputError(file, f"was made with {name} {value}", "choose another `out` and `json`")
        make_folder(out)
        write_json(out / "settings.json", {"settings": self.settings})

    def add(self, row: dict[str, Any]) -> None:
        """Add a row and write all."""
        self.rows.append(row)
        if self._json is not None:
            write_json(self._json, self.result())

    def result(self) -> dict[str, Any]:
        """Return the contents of the JSON."""
        return {"environment": environment(), "settings": self.settings, "rows": self.rows}


def make_subset(source: Path, folder: Path, count: int, validation: int) -> Path | None:
    """Copy evenly spaced images of a dataset and their masks; None if it has fewer."""
    for split, wanted in (("train", count), ("val", validation)):
        images = sorted((source / "images" / split).glob("*"))
        if not images:
            raise InputError("data", f"{source} has no images", "give the folder of the datasets")
        if split == "train" and len(images) < wanted:
            return None
        for image in (images[i] for i in np.linspace(0, len(images) - 1, min(wanted, len(images))).astype(int)):
            mask = source / "labels" / split / f"{image.stem}.png"
            for file, kind in ((image, "images"), (mask, "labels")):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / kind / split / file.name)
    shutil.copyfile(source / "classes.txt", folder / "classes.txt")
    if not (folder / "dataset.yaml").exists():
        subprocess.run([sys.executable, "-m", "danet", "init", str(folder)], check=True)
    return folder


def train_smp(architecture: str, card: Card, folder: Path, steps: int, options: Options) -> float:
    """Train a network of segmentation-models-pytorch and return its mIoU, a fraction.

    Args:
        architecture: a class of segmentation-models-pytorch.
        card: of danet's run: backbone, size and normalization.
        folder: a subset.
        steps: number of training steps.
        options: backbone weights and seed.
    """
    import segmentation_models_pytorch as smp

    torch.manual_seed(options.seed)
    samples = registry.load("folder", folder, "train")
    encoder, classes, size = card.network["backbone"], len(samples.classes), card.size
    assert isinstance(size, int)
    pretrained = "imagenet" if options.backbone_weights is None else None
    network: Any = smp.create_model(architecture, f"tu-{encoder}", encoder_weights=pretrained, classes=classes)
    if options.backbone_weights is not None:
        found = network.encoder.model.load_state_dict(load_file(options.backbone_weights), strict=False)
        assert not found.missing_keys, found.missing_keys
    loss = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True, ignore_index=IGNORE)
    optimizer = torch.optim.Adam(network.parameters(), SMP_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, SMP_LEAST_RATE)
    augment = Augmentation((SMP_CROP, SMP_CROP), (0.75, 1.5), long_side=size)
    network.train()
    for step in range(steps):
        drawn = [_drawn(samples, options.seed, SMP_BATCH * step + i, augment) for i in range(SMP_BATCH)]
        images, labels = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
        value = loss(network(normalize(torch.from_numpy(images), card.mean, card.std)), torch.from_numpy(labels).long())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return _miou(network.eval(), card, registry.load("folder", folder, "val"), size)


def table(result: dict[str, Any]) -> str:
    """Format mIoU and minutes of each way, a line per subset."""
    ways = list(dict.fromkeys(row["way"] for row in result["rows"]))
    lines = [f"| dataset | images | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for key in dict.fromkeys((row["dataset"], row["images"]) for row in result["rows"]):
        found = {row["way"]: row for row in result["rows"] if (row["dataset"], row["images"]) == key}
        cells = [miou_and_minutes(found[way]) if way in found else "" for way in ways]
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measure(way: str, folder: Path, options: Options) -> dict[str, Any]:
    """Return mIoU (a fraction), minutes (None of a run that was interrupted), and the number of images seen."""
    start, danet_run = time.perf_counter(), folder.with_name(f"{folder.name}-danet")
    resumed = way == "danet" and danet_run.exists()
    if way == "danet":
        train_danet(folder, danet_run, options.seed, options.backbone_weights)
    last = list(csv.DictReader((danet_run / "metrics.csv").open()))[-1]
    card = weights_file.read(danet_run / "best.safetensors")[1]
    seen = int(last["step"]) * card.recipe["data"]["batch"]
    miou = float(last["miou"]) if way == "danet" else train_smp(way, card, folder, seen // SMP_BATCH, options)
    return {"miou": miou, "minutes": None if resumed else (time.perf_counter() - start) / 60, "seen": seen}


def train_danet(
    folder: Path,
    out: Path,
    seed: int,
    backbone_weights: Path | None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run the default command, with further options by their names without dashes, or continue it."""
    given = {"data.root": folder, "out": out, "seed": seed, **settings}
    if backbone_weights is not None:
        given["backbone-weights"] = backbone_weights
    arguments = ["folder", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]
    if (out / "last.ckpt").exists():
        arguments = ["--resume", str(out)]
    subprocess.run([sys.executable, "-m", "danet", "train", *arguments], check=True)


def _drawn(samples: Samples, seed: int, position: int, augment: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    sample = samples[sample_index(seed, position, len(samples))]
    return augment(sample.image, sample.labels, generator(seed, position))


@torch.inference_mode()
def _miou(network: nn.Module, card: Card, samples: Samples, size: int) -> float:
    """Return the mIoU at the original size of images that are segmented at `size`."""
    confusion = Confusion(len(samples.classes))
    for i in range(len(samples)):
        sample = samples[i]
        height, width = (round(side * size / max(sample.labels.shape)) for side in sample.labels.shape)
        image = normalize(torch.tensor(sample.image)[None], card.mean, card.std)
        image = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
        padded = F.pad(image, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        logits = network(padded)[..., :height, :width]
        labels = F.interpolate(logits, sample.labels.shape, mode="bilinear").argmax(1)[0]
        confusion.update(sample.labels, labels.numpy())
    return confusion.scores().miou


if __name__ == "__main__":
    sys.exit(command.main("small_data", Options, run, table, overwrite=True))
