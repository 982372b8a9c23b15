"""The list of images that a run has skipped: RUN/bad.txt."""

import os
import re
from pathlib import Path

from danet.errors import InputError, list_names, print_note
from danet.train.run_folder import SKIPPED, opened

_ANY_BYTES = "surrogateescape"  # file names on Linux need not be UTF-8


class SkippedImages:
    """Images skipped in training because they cannot be read, listed in RUN/bad.txt.

    Each is listed once, over all processes and interruptions: a line with its name, a tab and the error. Control
    characters are escaped.

    Args:
        folder: the run folder.
        limit: how many images may be skipped; one more is an error.
    """

    def __init__(self, folder: Path, limit: int):
        self.file, self.limit = folder / SKIPPED, limit

    def add(self, error: InputError) -> None:
        """Skip an image.

        Args:
            error: the error raised when the image was read; `error.where` is its name.

        Raises:
            InputError: the limit is reached.
        """
        name = _escape(error.where)
        text = self._read()
        names = [line.split("\t")[0] for line in text.split("\n") if line]  # splitlines() splits at more than \n
        if name in names:
            return
        if len(names) >= self.limit:
            note = f" ({self.limit} already skipped: {list_names(names)})" if self.limit else ""
            leave_out = "or set `skip_bad` to leave it out (in recipe.yaml of a run that you resume)"
            raise InputError(name, f"{error.what}{note}", f"{error.remedy}, {leave_out}")
        self.file.parent.mkdir(parents=True, exist_ok=True)  # class weights are counted before the folder is created
        with opened(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as descriptor:
            os.write(descriptor, f"{name}\t{_escape(error)}\n".encode("utf-8", _ANY_BYTES))
        print_note(f"skipped: {_escape(error)}")

    def _read(self) -> str:
        if not os.path.lexists(self.file):
            return ""
        with opened(self.file, os.O_RDONLY) as descriptor:
            return os.read(descriptor, os.fstat(descriptor).st_size).decode("utf-8", _ANY_BYTES)


def _escape(text: object) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: match[0].encode("unicode_escape").decode(), str(text))
