"""Images that cannot be read during training: the first stops the run, unless `--skip-bad N` allows N of them. Those
left out stand in RUN/bad.txt, a name and its error a line, with control characters escaped (\\n, \\x1b).
"""

import re
import sys
from pathlib import Path

from danet.errors import InputError

FILE = "bad.txt"


class Quarantine:
    """Counts the bad images of a run, each once, over all its processes and over interruptions.

    Args:
        run: its folder.
        limit: how many may be left out.
    """

    def __init__(self, run: Path, limit: int):
        self.file, self.limit = run / FILE, limit

    def note(self, error: InputError) -> None:
        """Leave an image out.

        Raises:
            InputError: the image's own, where none more may be left out.
        """
        name = _one_line(error.where)
        text = self.file.read_text("utf-8", _ANY_BYTES) if self.file.exists() else ""
        names = {line.split("\t")[0] for line in text.split("\n") if line}  # splitlines knows more ends than \n
        if name in names:
            return
        if len(names) >= self.limit:
            allowed = "" if not self.limit else f" ({self.limit} bad images are left out already: {self.file})"
            raise InputError(name, f"{error.what}{allowed}", error.remedy)
        self.file.parent.mkdir(parents=True, exist_ok=True)  # an image may be met before the run has begun
        with self.file.open("a", encoding="utf-8", errors=_ANY_BYTES) as file:
            file.write(f"{name}\t{_one_line(error)}\n")
        print(f"left out: {_one_line(error)}", file=sys.stderr)


_ANY_BYTES = "surrogateescape"  # a name on Linux need not be UTF-8


def _one_line(text: object) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found[0].encode("unicode_escape").decode(), str(text))
