"""Rare-class crops, flips, rotations and a user's transform are the same in a resumed run and with any workers."""

import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_states import assert_equal, state_of

from danet import InputError, recipes
from danet.data import registry
from danet.data.class_weights import count_classes
from danet.data.classes import Classes
from danet.data.datasets import synthetic
from danet.data.images.channels import RGB
from danet.data.samples import Sample
from danet.train import loop, schedule
from danet.train.batches import batches
from danet.train.distributed import Process
from danet.train.loop import build, train
from danet.train.run_folder import RunOptions
from danet.train.skipped import SkippedImages


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 6, "val": 1})
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)


@pytest.fixture
def recipe() -> recipes.Recipe:
    data = replace(recipes.TOY.data, batch=2, crop=(32, 32), rare=0.7, vertical_flip=0.5, rotate=0.5, copy_paste=0.5)
    network = replace(recipes.TOY.network, width=8)
    optim = replace(recipes.TOY.optim, steps=4, ema=0.0, layer_decay=0.5)
    return replace(recipes.TOY, data=data, network=network, optim=optim)


def noisy(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Change an image by the global random generators of Python, NumPy and torch."""
    factor = random.random() + np.random.random() + torch.rand(()).item()  # noqa: NPY002
    return {"image": (image * (factor / 3)).astype(np.uint8), "mask": mask}


def interrupt(monkeypatch, step: int) -> Callable[[], None]:
    """Interrupt training before this step; the result undoes it."""
    compute, calls = loop.compute_gradients, iter(range(100))

    def stopping(*args):
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return compute(*args)

    monkeypatch.setattr(loop, "compute_gradients", stopping)
    return lambda: monkeypatch.setattr(loop, "compute_gradients", compute)


@pytest.mark.parametrize("transform", [None, noisy])
def test_resumed_run_repeats_sampling_and_transform(recipe, tmp_path, monkeypatch, transform):
    train(recipe, RunOptions(tmp_path / "whole", workers=0), transform=transform)
    undo = interrupt(monkeypatch, 1)
    stopped = train(recipe, RunOptions(tmp_path / "parts", workers=0), transform=transform)
    assert stopped.stopped_by == signal.SIGINT
    undo()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    train(recipe, RunOptions(tmp_path / "parts", workers=1), resume=True, transform=transform)
    assert_equal(state_of(tmp_path / "parts"), state_of(tmp_path / "whole"))
    counts = count_classes(registry.load("toy", None, "train"))
    assert state_of(tmp_path / "whole")["class_pixels"] == counts.pixels.tolist()


def test_run_with_a_transform_is_not_resumed_without_it(recipe, tmp_path):
    short = replace(recipe, optim=replace(recipe.optim, steps=1))
    train(short, RunOptions(tmp_path / "run", workers=0), transform=noisy)
    with pytest.raises(InputError, match=r"^transform: the run was started with .*noisy, but is resumed with none"):
        train(short, RunOptions(tmp_path / "run", workers=0), resume=True)


class OneDamaged:
    """Ten equal images, of which one cannot be read."""

    classes, bands = Classes.named(("a", "b")), RGB

    def __len__(self) -> int:
        return 10

    def labels(self, index: int) -> np.ndarray:
        return self[index].labels

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            raise InputError("bad.jpg", "truncated or damaged", "copy it again")
        labels = np.zeros((40, 40), np.uint8)
        labels[:20] = 1
        return Sample(f"{index}", np.zeros((40, 40, 3), np.uint8), labels)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_damaged_image_that_would_be_pasted_leaves_the_crop_as_it_is(recipe, tmp_path, probability):
    data = replace(recipe.data, batch=10, copy_paste=probability)
    skipped = SkippedImages(tmp_path, 1)
    process = Process(0, 1, torch.device("cpu"))
    stream = batches(OneDamaged(), replace(recipe, data=data, skip_bad=1), process, 0, 20, 0, skipped)
    assert [len(batch.names) for batch in stream] == [9] * 20  # an epoch per batch
    assert len((tmp_path / "bad.txt").read_text().splitlines()) == 1


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda image, mask: {"image": image[:-1], "mask": mask}, r"made uint8 of shape \(31, 32, 3\) of the image"),
        (lambda image, mask: {"image": image / 255, "mask": mask}, r"made float64 of shape \(32, 32, 3\) of the image"),
        (
            lambda image, mask: {"image": image, "mask": np.full_like(mask, 12)},
            "made mask value 12, but there are 6 classes; keep the values below 6, and use 255 to ignore pixels",
        ),
        (lambda image, mask: (image, mask), "must return a dictionary with image and mask, got tuple"),
    ],
)
def test_wrong_results_of_a_transform_are_named(recipe, tmp_path, made, message, workers):
    with pytest.raises(InputError, match=f"^transform: .*{message}"):
        train(replace(recipe, skip_bad=9), RunOptions(tmp_path / "run", workers=workers), transform=made)
    assert not (tmp_path / "run/bad.txt").exists()


class Composition:
    """Has random numbers of its own, as the compositions of Albumentations have."""

    def __init__(self):
        self.rng = np.random.default_rng()

    def set_random_seed(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": image * np.uint8(self.rng.integers(2)), "mask": mask}


def test_transform_with_its_own_generator_is_seeded(recipe, tmp_path):
    for name in ("a", "b"):
        train(recipe, RunOptions(tmp_path / name, workers=0), transform=Composition())
    assert_equal(state_of(tmp_path / "a"), state_of(tmp_path / "b"))
    assert state_of(Path(tmp_path / "a"))["transform"].endswith("Composition")


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [
        ("test_resnet", 5),
        ("tf_efficientnet_lite0", 5),
        ("test_convnext", 4),
        ("nfnet_f0", 5),
        ("vgg16_bn", 5),
        ("rexnet_100", 5),
        ("xception41", 5),
        ("inception_v3", 5),
    ],
)
def test_layer_decay_lowers_the_rate_stage_by_stage(recipe, backbone, stages):
    decoder = "resnet" not in backbone and "lite0" not in backbone
    chosen = replace(recipe.network, backbone=backbone, decoder=decoder, output_stride=16)
    network, _ = build(replace(recipe, network=chosen), registry.load("toy", None, "train").classes)
    depths = schedule.backbone_depths(network)
    assert sorted(set(depths.values())) == list(range(stages))
    assert list(depths.values()) == sorted(depths.values(), reverse=True)
    optimizer = schedule.make_optimizer(network, replace(recipe.optim, layer_decay=0.5, head_lr_factor=10.0))
    schedule.set_learning_rate(optimizer, 0.1)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = 0.1 * 0.5 ** depths[name] if name.startswith("backbone.") else 1.0
        assert rate_of[id(parameter)] == pytest.approx(expected), name


def test_crops_with_pasted_pixels_are_made_of_two_crops_of_the_training_set(recipe, tmp_path):
    """Each pixel, and its label, is that of the crop without pasting, or of the crop of another image."""
    data = replace(recipe.data, rare=0.0, vertical_flip=0.0, rotate=0.0, flip=0.0, crop=(144, 192), batch=6)
    process = loop.Process(0, 1, torch.device("cpu"))
    samples = registry.load("toy", None, "train")
    scenes = [samples[i] for i in range(len(samples))]

    def crops(copy_paste: float):
        own = replace(recipe, data=replace(data, copy_paste=copy_paste))
        skipped = loop.SkippedImages(tmp_path, 0)
        return next(loop.batches(samples, own, process, 0, 1, 0, skipped))

    plain, pasted = crops(0.0), crops(1.0)
    assert not torch.equal(plain.images, pasted.images)
    for i in range(len(plain.names)):
        changed = (plain.images[i] != pasted.images[i]).any(-1).numpy()
        sources = [
            scene.name
            for scene in scenes
            if (scene.image[changed] == pasted.images[i].numpy()[changed]).all()
            and (scene.labels[changed] == pasted.labels[i].numpy()[changed]).all()
        ]
        assert sources
        assert len(set(pasted.labels[i].numpy()[changed].tolist())) <= 1
