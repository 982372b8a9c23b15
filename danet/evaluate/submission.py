"""Predictions in the files that a benchmark's server takes. Command: `danet evaluate W --dataset cityscapes --root DIR
--split test --submit DIR`, or `--dataset voc`.

cityscapes: DIR/CITY_SEQ_FRAME_pred_labelIds.png, one byte a pixel, the label id (7, 8, 11, ... 33). The server and the
    official script take any name that begins with CITY_SEQ_FRAME and one file an image, all of them in one zip.
voc: DIR/results/VOC2012/Segmentation/comp6_test_cls/ID.png, VOC's palette over the class ids 0..20. The server takes
    the folder `results` in a tar.gz; comp6 is the competition in which other training data (ImageNet) is allowed.
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from danet.data.datasets import cityscapes, pascal_voc
from danet.errors import InputError
from danet.files import write_atomically
from danet.predict import overlay


@dataclass(frozen=True)
class Form:
    """What one server takes: the folder below the submission's, what follows an image's name in its file's, and H,W
    uint8 train ids as an image.
    """

    folder: str
    suffix: str
    image: Callable[[np.ndarray], Image.Image]


def _label_ids(labels: UInt8[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(np.array(cityscapes.TRAIN_TO_LABEL_ID, np.uint8)[labels])


def _voc_palette(labels: UInt8[np.ndarray, "H W"]) -> Image.Image:
    return overlay.label_image(labels, pascal_voc.CLASSES)


FORMS = {
    "cityscapes": Form(".", "_pred_labelIds.png", _label_ids),
    "voc": Form("results/VOC2012/Segmentation/comp6_test_cls", ".png", _voc_palette),
}
"""dataset -> what its server takes."""


@dataclass(frozen=True)
class Submission:
    """A folder to be sent to a server, made by `submission`."""

    folder: Path
    form: Form

    def write(self, name: str, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Write a sample's prediction, H,W train ids.

        Raises:
            InputError: it cannot be written.
        """
        content = io.BytesIO()
        self.form.image(labels).save(content, "PNG")
        write_atomically(self.folder / self.form.folder / f"{name}{self.form.suffix}", content.getvalue())


@contextmanager
def submission(folder: Path, dataset: str) -> Iterator[Submission]:
    """A submission of this dataset's predictions. `folder` is made when the block has ended, so that it has all files;
    when the block fails nothing is left.

    Raises:
        InputError: the folder holds something, or cannot be made; a dataset without such a server.
    """
    if dataset not in FORMS:
        raise InputError("--submit", f"{dataset} has no server", f"use it with --dataset {' or '.join(FORMS)}")
    place = folder.absolute()
    with _told(folder):
        if folder.exists() and any(folder.iterdir()):
            raise InputError(folder, "is not empty", "give --submit a new folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".danet-", dir=place.parent)
    with scratch:
        unfinished = Path(scratch.name) / place.name
        with _told(folder):
            (unfinished / FORMS[dataset].folder).mkdir(parents=True)
        yield Submission(unfinished, FORMS[dataset])
        with _told(folder):
            if folder.exists():
                folder.rmdir()
            unfinished.replace(place)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(folder, f"cannot be used ({error.strerror})", "give --submit a new folder") from error
