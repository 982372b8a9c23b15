"""A table of many results: one row per image, with the share of each class."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danet.data.classes import Classes
from danet.errors import InputError
from danet.files import write_atomically
from danet.predict.job import Job
from danet.predict.outputs import read_summary
from danet.text import csv_text

_FURTHER = ("unknown", "no_data")  # after them, if an image has such pixels
_COLUMNS = ("file", "page", "width", "height", "error")  # before those of the classes


def is_table(path: Path) -> bool:
    """Return whether a file is a table that `write_table` wrote."""
    try:
        with path.open("rb") as file:
            return file.readline(1 << 10).startswith(f"{','.join(_COLUMNS)},".encode())
    except OSError:
        return False


def write_table(
    path: Path,
    results: Sequence[tuple[Job, Mapping[str, Any] | InputError | None]],
    classes: Classes,
    overwrite: bool = False,
) -> None:
    """Write a CSV file with a row per job: file, page, width, height, error, and the share of each class in [0, 1].

    If an image has them, also the shares of unknown pixels and of those without data. Shares of a row sum to 1.

    A name that a spreadsheet would run as a formula begins with an apostrophe; bytes that are no text are escaped.

    Args:
        path: the file.
        results: each job with its summary or its error; None: its summary is read from its JSON.
        classes: the classes that the network predicts.
        overwrite: replace the file if it exists.

    Raises:
        InputError: the file exists and `overwrite` is False; it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    read = [(job, read_summary(job.paths[-1]) if result is None else result) for job, result in results]
    summaries = [summary for _, summary in read if not isinstance(summary, InputError)]
    further = [name for name in _FURTHER if any(name in summary for summary in summaries)]
    table.writerow([*_COLUMNS, *map(csv_text, classes.names), *further])
    for job, summary in read:
        file, page = csv_text(str(job.file)), "" if job.page is None else job.page + 1
        if isinstance(summary, InputError):
            table.writerow([file, page, "", "", csv_text(f"{summary.what}; {summary.remedy}")])
            continue
        shares = {entry["name"]: entry["share"] for entry in summary["classes"]}
        row = [f"{shares.get(name, 0):.6f}" for name in classes.names]
        row += [f"{summary.get(name, {}).get('share', 0):.6f}" for name in further]
        table.writerow([file, page, summary["width"], summary["height"], "", *row])
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"), overwrite)
