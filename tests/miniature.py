"""Folders of small images and masks, as users have them."""

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from danet.data.custom import dataset_yaml
from danet.data.palette import voc_palette

HEIGHT, WIDTH = 12, 16


def save(file: Path, array: np.ndarray, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)
    return file


def image(file: Path, height: int = HEIGHT, width: int = WIDTH, **options: Any) -> Path:
    """Write an image of noise; images in other folders or with other names have other noise."""
    rng = np.random.default_rng(zlib.crc32(os.fsencode("/".join(file.parts[-2:]))))
    return save(file, rng.integers(0, 256, (height, width, 3), np.uint8), **options)


def stripes(*values: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """H,W uint8: a column of each value in turn."""
    return np.tile(np.resize(np.array(values, np.uint8), width), (height, 1))


def build(root: Path, masks: list[np.ndarray], images: str = "images", where: str = "masks", end: str = ".png") -> Path:
    """An image for each mask: H,W ids or H,W,3 colors."""
    for i, mask in enumerate(masks):
        image(root / images / f"p{i}.jpg")
        save(root / where / f"p{i}{end}", mask)
    return root


def labels(root: Path) -> set[int]:
    """All train ids that the folder's dataset.yaml makes of its masks."""
    parts = [dataset_yaml.load(root, split) for split in ("train", "val")]
    return {int(v) for part in parts for i in range(len(part)) for v in np.unique(part[i].labels)}


PALETTE = ((0, 0, 0), *voc_palette(20))


def save_palette(file: Path, indices: np.ndarray, palette: tuple) -> None:
    image = Image.frombytes("P", (indices.shape[1], indices.shape[0]), indices.tobytes())
    image.putpalette([channel for color in palette for channel in color])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def colored(*colors: tuple[int, int, int]) -> np.ndarray:
    return np.resize(np.array(colors, np.uint8), (HEIGHT, WIDTH, 3))


ROAD, TREE, VOID = (128, 64, 128), (0, 128, 0), (0, 0, 0)
