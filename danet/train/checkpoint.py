"""Checkpoints of a run: RUN/last.ckpt and its predecessor RUN/previous.ckpt, each complete or absent.

A checkpoint is a line with the SHA-256 of the rest, followed by torch's serialization of plain values and tensors. It
is read only with torch's restricted unpickler (weights_only).
"""

import hashlib
import io
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from danet.errors import InputError, print_note
from danet.evaluate.confusion import Confusion
from danet.files import flush, open_regular, write_atomically

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_MAGIC = b"danet-checkpoint-1 "
_NAMES_OF_0_1_0 = {"pictures": "images"}  # vocabulary: old name


@dataclass
class TrainingState:
    """Training state other than tensors; its fields are entries of the checkpoint.

    Args:
        best: best validation mIoU so far, NaN before the first validation.
        history: rows of metrics.csv, one per validation.
        losses: losses by name, of each step since the last validation.
        class_weights: weight of each class in the loss; None: all are 1.
        images: number of training images at the start of the run, which determines the order of samples; None: unknown.
        data: fingerprint of the data at the start of the run; None in checkpoints of danet 0.1.0.
        recipe: the recipe of the run as plain values; None in checkpoints of danet 0.1.0.
        class_pixels: pixels of each class in the training set; empty if the recipe does not need them.
        transform: name of the user's own augmentation; None: none is used.
    """

    best: float = math.nan
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    class_weights: Sequence[float] | None = None
    images: int | None = None
    data: dict[str, Any] | None = None
    recipe: dict[str, Any] | None = None
    class_pixels: Sequence[int] = ()
    transform: str | None = None

    @classmethod
    def from_checkpoint(cls, entries: Mapping[str, Any]) -> "TrainingState":
        """Return the state in a checkpoint; names written by danet 0.1.0 are accepted."""
        entries = {_NAMES_OF_0_1_0.get(name, name): value for name, value in entries.items()}
        return cls(**{name: entries[name] for name in cls.__dataclass_fields__ if name in entries})

    def validated(self, step: int) -> bool:
        """Return whether the last validation was at this step."""
        return bool(self.history) and self.history[-1]["step"] == step

    def validations_since_best(self) -> int:
        """Return the number of validations after the one with the best mIoU."""
        scores = [row["miou"] for row in self.history]
        return len(scores) - 1 - scores.index(self.best) if self.best in scores else 0

    def add_validation(
        self,
        step: int,
        epoch: int,
        rate: float,
        confusion: Confusion,
        network: nn.Module,
        speed: Mapping[str, float],
        attention: Mapping[str, float],
        validation_loss: float = math.nan,
    ) -> bool:
        """Add a row to the history and return whether its mIoU is above the best so far, or there is none.

        The row contains the mean losses since the last validation, of the steps with labels, the scores, the learned
        scales of the attention modules (alpha and beta), and where position attention looks.

        Args:
            step: number of completed steps.
            epoch: number of completed epochs.
            rate: learning rate of the last step.
            confusion: confusion matrix of the validation.
            network: the validated network.
            speed: measurements of `TrainingProgress.speed`.
            attention: see `attention_summary`.
            validation_loss: mean cross-entropy of the validation images.
        """
        scores = confusion.scores()
        labeled = [loss for loss in self.losses if any(loss.values())]
        losses = {
            f"loss_{name}": fmean(loss[name] for loss in labeled) if labeled else math.nan for name in self.losses[0]
        }
        scales = {
            name.split(".")[0] + "_scale": p.item()
            for name, p in network.named_parameters()
            if name.endswith("attention.scale")
        }
        accuracy = {
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            "mean_accuracy": scores.mean_accuracy,
        }
        row = {"step": step, "epoch": epoch, "lr": rate, **losses, "validation_loss": validation_loss}
        row |= {**scales, **accuracy, **attention, **speed}
        self.history.append(row)
        self.losses = []
        better = not scores.miou <= self.best
        self.best = scores.miou if math.isnan(self.best) else max(self.best, scores.miou)
        return better


def save(run: Path, entries: dict[str, Any]) -> None:
    """Write last.ckpt atomically, verify it by reading it back, and keep the former last.ckpt as previous.ckpt.

    A damaged last.ckpt does not replace previous.ckpt, from which the run was resumed in this case.

    Raises:
        InputError: the file cannot be written, or reads back differently; existing checkpoints are kept.
    """
    payload = to_bytes(entries)
    new = run / ".danet-next.ckpt"  # `run_folder.lock` removes such files
    write_atomically(new, _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    if not _is_complete(new.read_bytes()):
        new.unlink()
        raise InputError(run / LAST, "the disk returned different bytes than were written", "use another disk")
    if (run / LAST).exists() and _is_complete((run / LAST).read_bytes()):
        (run / LAST).replace(run / PREVIOUS)
    new.replace(run / LAST)
    flush(run)


def load(path: Path) -> dict[str, Any]:
    """Return the entries passed to `save`, with tensors on the CPU.

    Raises:
        InputError: the file does not exist, is damaged, or contains anything but plain values and tensors.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(
            path, f"cannot read it ({error.strerror})", "specify the folder of an interrupted run"
        ) from error
    if not _is_complete(content):
        what = f"damaged: its {len(content)} bytes do not match its checksum"
        raise InputError(path, what, "restore it from a copy")
    try:
        return from_bytes(content.partition(b"\n")[2])
    except Exception as error:  # the checksum matches, so the file was not written by danet
        what = "contains objects other than plain values and tensors"
        raise InputError(path, what, "use a checkpoint written by danet train") from error


def is_checkpoint(path: Path) -> bool:
    """Return whether a file begins like a checkpoint, complete or damaged."""
    try:
        with open_regular(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def to_bytes(entries: dict[str, Any]) -> bytes:
    """Return plain values and tensors as torch serializes them."""
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    return buffer.getvalue()


def from_bytes(content: bytes) -> dict[str, Any]:
    """Return the entries passed to `to_bytes`, with tensors on the CPU."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def exists(run: Path) -> bool:
    """Return whether a run has a checkpoint, which may be damaged."""
    return any((run / name).exists() for name in (LAST, PREVIOUS))


def newest(run: Path) -> dict[str, Any]:
    """Return the last checkpoint, or the previous one with a note on standard error if the last one is unusable.

    Raises:
        InputError: neither can be read.
    """
    try:
        return load(run / LAST)
    except InputError as damaged:
        try:
            entries = load(run / PREVIOUS)
        except InputError:
            raise damaged from None
        note = f"{damaged}; continuing from {run / PREVIOUS}, step {entries['step']}"
        print_note(note)
        return entries


def check_space(run: Path) -> None:
    """Check that the disk has room for another checkpoint and best weights, assuming the size of the last checkpoint.

    Raises:
        InputError: it does not.
    """
    needed, free = 2 * (run / LAST).stat().st_size, shutil.disk_usage(run).free
    if free < needed:
        what = f"{free / 1e6:,.0f} MB free, but the next checkpoint and weights need {needed / 1e6:,.0f} MB"
        raise InputError(run, what, "free some space, or choose a `folder` on another disk")


def _is_complete(content: bytes) -> bool:
    head, _, payload = content.partition(b"\n")
    return head == _MAGIC + hashlib.sha256(payload).hexdigest().encode()
