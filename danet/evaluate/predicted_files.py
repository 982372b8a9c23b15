"""Predictions of any tool, in PNG files. Command: `danet evaluate --predictions DIR`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danet.data.classes import IGNORE, LabelMap
from danet.data.images.read import read_mask
from danet.data.samples import PairedFiles, Sample, Samples
from danet.errors import InputError, list_names, missing_folder, unknown_name
from danet.predict.segmentation import Prediction

ENCODINGS = "train-ids", "masks"
"""What the values of the files mean: class ids, 255 = none; or what they mean in the dataset's masks."""

_SUFFIXES = "", "_labels", "_pred_labelIds"
"""What may follow the image's name in that of its prediction: nothing, or what `danet predict` and Cityscapes add."""


@dataclass(frozen=True)
class PredictedFiles:
    """The predictions of a dataset's samples.

    Args:
        samples: the dataset.
        files: one for each sample.
        encoding: one of `ENCODINGS`.
    """

    samples: Samples
    files: tuple[Path, ...]
    encoding: str

    @classmethod
    def find(cls, folder: Path, samples: Samples, encoding: str = "train-ids") -> "PredictedFiles":
        """Find the predictions in a folder and the folders in it.

        They are named NAME.png, NAME_labels.png, NAME_pred_labelIds.png or as the mask of the image.

        Raises:
            InputError: no such folder; missing files, which are counted; several files of one sample; an unknown
                encoding, or one that the dataset does not have.
        """
        if encoding not in ENCODINGS:
            raise unknown_name("encoding", encoding, ENCODINGS)
        if encoding == "masks" and not isinstance(samples, PairedFiles):
            raise InputError("encoding", "the dataset has no mask files", "use train-ids")
        if not folder.is_dir():
            raise missing_folder(folder, "specify the folder of the predictions")
        by_stem: dict[str, list[Path]] = {}
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() == ".png" and not file.name.startswith("."):
                parts = file.relative_to(folder).with_suffix("").parts
                for i in range(len(parts)):
                    by_stem.setdefault("/".join(parts[i:]), []).append(file)
        found, names = [], _names(samples)
        for stems in names:
            files = [file for stem in stems for file in by_stem.get(stem, [])]
            if len(files) > 1:
                what = f"has two predictions: {files[0].relative_to(folder)} and {files[1].relative_to(folder)}"
                raise InputError(stems[0], what, "remove one of them")
            found += files
        missing = [f"{stems[0]}.png" for stems in names if not any(stem in by_stem for stem in stems)]
        if missing:
            what = f"{len(missing)} of {len(names)} predictions are missing: {list_names(missing, 3)}"
            raise InputError(folder, what, "add them; they are named after the images, or after their masks")
        return cls(samples, tuple(found), encoding)

    def predictions(self, indices: Iterable[int] | None = None) -> Iterator[Prediction]:
        """Yield each sample with its prediction, whose confidence is unknown: NaN.

        Args:
            indices: of the samples; None: all.

        Raises:
            InputError: a file cannot be read, has another size or an unknown value, or leaves out labeled pixels.
        """
        for index in range(len(self.samples)) if indices is None else indices:
            sample = self.samples[index]
            labels = self._read(self.files[index], sample)
            yield Prediction(sample, labels, np.full(labels.shape, np.nan, np.float32))

    def _read(self, file: Path, sample: Sample) -> np.ndarray:
        values, classes = self._values(file), len(self.samples.classes)
        if values.shape != sample.labels.shape:
            height, width = sample.labels.shape
            what = f"has {values.shape[1]} x {values.shape[0]} pixels, but the image has {width} x {height}"
            raise InputError(file, what, "predict at the size of the image")
        if self.encoding == "masks":
            assert isinstance(self.samples, PairedFiles)
            labels = self.samples.label_map.apply(values, file)
        else:
            remedy = "write class ids, or set `encoding` to masks if the values are those of the dataset's masks"
            labels = LabelMap.identity(classes).apply(values, file, lambda _: remedy)
        if unpredicted := int(((labels == IGNORE) & (sample.labels != IGNORE)).sum()):
            what = f"has no class for {unpredicted:,} labeled pixel{'s' * (unpredicted != 1)}"
            others = self.encoding != "masks" and IGNORE in values and isinstance(self.samples, PairedFiles)
            remedy = "predict a class for each pixel"
            remedy += ", or set `encoding` to masks if its values are those of the dataset's masks" if others else ""
            raise InputError(file, what, remedy)
        return labels

    def _values(self, file: Path) -> np.ndarray:
        if isinstance(self.samples, PairedFiles) and self.encoding == "masks":
            return self.samples.read_mask(file)
        return read_mask(file, or_else="set `encoding` to masks if its colors are those of the dataset's masks")


def _names(samples: Samples) -> list[list[str]]:
    """Return what the prediction of each sample may be called, without .png; the first is the sample's name."""
    pairs = getattr(samples, "pairs", None)
    names = [pair.name for pair in pairs] if pairs is not None else [samples[i].name for i in range(len(samples))]
    masks = (
        []
        if pairs is None
        else [f"{name.rpartition('/')[0]}/{pair.mask.stem}" for name, pair in zip(names, pairs, strict=True)]
    )
    return [
        [*dict.fromkeys([*(name + suffix for suffix in _SUFFIXES), *(mask.lstrip("/") for mask in masks[i : i + 1])])]
        for i, name in enumerate(names)
    ]
