"""Files for the servers of Cityscapes and PASCAL VOC. Command: danet evaluate WEIGHTS --split test --submit DIR.

cityscapes: DIR/CITY_SEQ_FRAME_pred_labelIds.png, 8 bits, label ids (7, 8, 11, ... 33). The server takes a zip of all
    files; it and the official script accept any name that starts with CITY_SEQ_FRAME.
voc: DIR/results/VOC2012/Segmentation/comp6_test_cls/ID.png, class ids 0 to 20 with VOC's palette. The server takes a
    tar.gz of the folder `results`. comp6 is the competition that allows other training data, such as ImageNet.
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
class Format:
    """The file format of a server.

    Args:
        folder: below the folder of the submission.
        suffix: follows the name of the image in the file name.
        image: converts H,W uint8 train ids.
    """

    folder: str
    suffix: str
    image: Callable[[np.ndarray], Image.Image]


def _label_ids(labels: UInt8[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(np.array(cityscapes.TRAIN_TO_LABEL_ID, np.uint8)[labels])


def _voc_palette(labels: UInt8[np.ndarray, "H W"]) -> Image.Image:
    return overlay.label_image(labels, pascal_voc.CLASSES)


FORMATS = {
    "cityscapes": Format(".", "_pred_labelIds.png", _label_ids),
    "voc": Format("results/VOC2012/Segmentation/comp6_test_cls", ".png", _voc_palette),
}
"""Dataset -> format of its server."""


@dataclass(frozen=True)
class Submission:
    """A folder for a server; use `submission` to create one."""

    folder: Path
    format: Format

    def write(self, name: str, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Write the prediction of a sample, H,W train ids.

        Raises:
            InputError: the file cannot be written.
        """
        content = io.BytesIO()
        self.format.image(labels).save(content, "PNG")
        write_atomically(self.folder / self.format.folder / f"{name}{self.format.suffix}", content.getvalue())


@contextmanager
def submission(folder: Path, dataset: str) -> Iterator[Submission]:
    """Create a submission. The folder appears complete when the block ends, and not at all if the block fails.

    Raises:
        InputError: the folder is not empty or cannot be created; the dataset has no server.
    """
    if dataset not in FORMATS:
        raise InputError("submit", f"{dataset} has no server", f"choose {' or '.join(FORMATS)} as `dataset`")
    place = folder.absolute()
    with _folder_errors(folder):
        if folder.exists() and any(folder.iterdir()):
            raise InputError(folder, "the folder is not empty", "choose a new folder for `submit`")
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".danet-", dir=place.parent)
    with scratch:
        unfinished = Path(scratch.name) / place.name
        with _folder_errors(folder):
            (unfinished / FORMATS[dataset].folder).mkdir(parents=True)
        yield Submission(unfinished, FORMATS[dataset])
        with _folder_errors(folder):
            if folder.exists():
                folder.rmdir()
            unfinished.replace(place)


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            folder, f"cannot use the folder ({error.strerror})", "choose a new folder for `submit`"
        ) from error
