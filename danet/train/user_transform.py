"""Call a user's own augmentation, such as one of Albumentations, with random numbers that depend on the position alone.

The position is that of a sample in the stream of `danet.data.sampler`. A resumed run therefore repeats exactly what an
uninterrupted one does, whatever the number of workers.
"""

import multiprocessing
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from danet.data.classes import IGNORE
from danet.errors import InputError

Transform = Callable[..., Mapping[str, Any]]
"""`transform(image=, mask=)` -> {"image": , "mask": }: H,W,N uint8 or float32, and H,W uint8 with 255 = ignore."""


def name_of(transform: Transform) -> str:
    """Return the name of a transform's function or class, for checkpoints and messages."""
    named = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}.{named.__qualname__}"


def apply(
    transform: Transform, image: np.ndarray, labels: np.ndarray, seed: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and labels that a transform makes of a crop; they must keep its size and types.

    Args:
        transform: the transform.
        image: H,W,N uint8 or float32.
        labels: H,W uint8 train ids, 255 = ignore.
        seed: of the global random generators of Python, NumPy and torch, and of `transform.set_random_seed` if it has
            one, as the compositions of Albumentations do.
        classes: number of classes.

    Raises:
        InputError: the transform fails, or the result is something else, or has labels of no class.
    """
    with _seeded(seed):
        if set_seed := getattr(transform, "set_random_seed", None):
            set_seed(seed % (1 << 32))
        try:
            result = transform(image=image, mask=labels)
        except Exception as error:
            raise _failed(transform, error) from error
    if not isinstance(result, Mapping) or not {"image", "mask"} <= result.keys():
        what = f"{name_of(transform)} must return a dictionary with image and mask, got {type(result).__name__}"
        raise InputError("transform", what, "return {'image': image, 'mask': mask}")
    made = np.asarray(result["image"]), np.asarray(result["mask"])
    for name, new, old in zip(("image", "mask"), made, (image, labels), strict=True):
        if new.shape != old.shape or new.dtype != old.dtype:
            what = f"{name_of(transform)} made {new.dtype} of shape {new.shape} of the {name}, {old.dtype} {old.shape}"
            remedy = "keep the shape and type: set `data.crop` instead of cropping, and do not normalize"
            raise InputError("transform", what, remedy)
    if len(wrong := np.flatnonzero(np.bincount(made[1].ravel(), minlength=256)[classes:IGNORE])):
        what = f"{name_of(transform)} made mask value {classes + wrong[0]}, but there are {classes} classes"
        raise InputError("transform", what, f"keep the values below {classes}, and use {IGNORE} to ignore pixels")
    return np.ascontiguousarray(made[0]), np.ascontiguousarray(made[1])


def check_sendable(transform: Transform, workers: int) -> None:
    """Check that a transform can be sent to the processes that load images, where they are not forked.

    Raises:
        InputError: it cannot, for example because it is a lambda.
    """
    if workers == 0 or multiprocessing.get_start_method() == "fork":
        return
    try:
        ForkingPickler.dumps(transform)
    except Exception as error:  # pickle raises many types
        what = f"{name_of(transform)} cannot be sent to the processes that load images ({_one_line(error)})"
        remedy = "define it at the top level of a module, or set `workers` to 0"
        raise InputError("transform", what, remedy) from error


def _failed(transform: Transform, error: Exception) -> InputError:
    """Return the error for an exception of a transform, with its place: a traceback does not leave a process."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{name_of(transform)} raised {type(error).__name__} ({_one_line(error)}) at {frame.filename}:{frame.lineno}"
    return InputError("transform", what, "correct it; with `workers` 0, the traceback is that of the exception")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators, and restore their states at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  (users' code has them)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
