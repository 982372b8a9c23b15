"""Files in, samples out: images with their labels as train ids. Knows no network."""

from collections.abc import Callable
from pathlib import Path

from danet.data.classes import Classes
from danet.data.custom import dataset_yaml
from danet.data.datasets import ade20k, camvid, cityscapes, coco_stuff, pascal_context, pascal_voc, synthetic
from danet.data.samples import Samples
from danet.errors import InputError

DATASETS: dict[str, Callable[[Path, str], Samples]] = {
    "folder": dataset_yaml.load,
    "camvid": camvid.load,
    "cityscapes": cityscapes.load,
    "voc": pascal_voc.load,
    "context": pascal_context.load,
    "context59": pascal_context.load59,
    "coco-stuff": coco_stuff.load,
    "ade20k": ade20k.load,
    "toy": synthetic.load,
    "toy-context": synthetic.load_context,
}
"""name -> function of (root, split) that gives the samples."""

CLASSES: dict[str, Classes] = {
    "camvid": camvid.CLASSES,
    "cityscapes": cityscapes.CLASSES,
    "voc": pascal_voc.CLASSES,
    "context": pascal_context.CLASSES,
    "context59": pascal_context.CLASSES_59,
    "coco-stuff": coco_stuff.CLASSES,
    "ade20k": ade20k.CLASSES,
    "toy": synthetic.CLASSES,
    "toy-context": synthetic.CONTEXT_CLASSES,
}
"""The classes of the datasets that have their own; a folder's stand in its dataset.yaml."""

COUNTS: dict[str, dict[str, int]] = {
    "camvid": camvid.COUNTS,
    "cityscapes": cityscapes.COUNTS,
    "voc": pascal_voc.COUNTS,
    "context": pascal_context.COUNTS,
    "context59": pascal_context.COUNTS,
    "coco-stuff": coco_stuff.COUNTS,
    "ade20k": ade20k.COUNTS,
}
"""Images in each split of the datasets as published."""

DRAWN = ("toy", "toy-context")
"""Datasets drawn by the program: they have no folder."""


def load(name: str, root: Path | None, split: str) -> Samples:
    """The samples of a dataset's split.

    Raises:
        InputError: an unknown dataset, no root where one is needed, or what its module finds wrong.
    """
    if name not in DATASETS:
        raise InputError("--dataset", f"{name!r} is unknown", f"use one of {', '.join(DATASETS)}")
    if root is None and name not in DRAWN:
        raise InputError("--root", f"missing: {name} lies in a folder", "give --root DIR")
    return DATASETS[name](Path() if root is None else root, split)
