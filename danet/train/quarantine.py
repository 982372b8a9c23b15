"""Pictures that cannot be read during training: the first stops the run, unless `--skip-bad N` allows N of them. Those
left out stand in RUN/bad.txt, a name and its error a line.
"""

import sys
from pathlib import Path

from danet.errors import InputError

FILE = "bad.txt"


class Quarantine:
    """Counts the bad pictures of a run, each once, over all its processes and over interruptions.

    Args:
        run: its folder.
        limit: how many may be left out.
    """

    def __init__(self, run: Path, limit: int):
        self.file, self.limit = run / FILE, limit

    def note(self, error: InputError) -> None:
        """Leave a picture out.

        Raises:
            InputError: the picture's own, where none more may be left out.
        """
        name = str(error.where)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        names = {line.split("\t")[0] for line in lines}
        if name in names:
            return
        if len(names) >= self.limit:
            allowed = "" if not self.limit else f" ({self.limit} bad pictures are left out already: {self.file})"
            raise InputError(error.where, f"{error.what}{allowed}", error.remedy)
        with self.file.open("a") as file:
            file.write(f"{name}\t{error}\n")
        print(f"left out: {error}", file=sys.stderr)
