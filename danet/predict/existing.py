"""What is found under the names of results: complete and incomplete results of earlier runs, and files of the user.

A file is danet's if the JSON lists it, which is written last, or one of the PNG images, of which the overlay is written
first: their text `MARK` names the files that are written with them. Only these files are replaced to continue a run.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from danet.data.images.results import read_mark
from danet.errors import InputError
from danet.predict.job import Job
from danet.predict.outputs import OUTPUTS, read_summary
from danet.predict.settings import Settings

_OUT = "choose another `out`, or move it away"


def check_apart(jobs: Sequence[Job], others: Mapping[str, Path], one_case: bool, one_file: bool) -> None:
    """Check that no output replaces an input or another output.

    Args:
        jobs: all of them, also those that are done.
        others: parameter -> the path of a further output.
        one_case: whether names are equal if only their case differs.
        one_file: whether the jobs have no results of their own.

    Raises:
        InputError: an output does.
    """
    inputs = {_identity(job.file): job.file for job in jobs}
    inputs.pop(None, None)
    further: dict[tuple[Path, str], str] = {}
    for parameter, path in others.items():
        if (file := inputs.get(_identity(path))) is not None:
            raise InputError(parameter, f"would overwrite the input {file}", "choose another file")
        other = further.setdefault(_place(path.parent.resolve(), path.name, one_case), parameter)
        if other != parameter:
            raise InputError(parameter, f"{path} is also the file of `{other}`", "choose a file for each")
    folders = {folder: folder.resolve() for folder in {job.folder for job in jobs}}
    for job in () if one_file else jobs:
        for path in job.paths:
            if (file := inputs.get(_identity(path))) is not None:
                what = f"is an input, and a result of {job.file} would overwrite it"
                raise InputError(file, what, "choose another `out`, or rename it")
            if parameter := further.get(_place(folders[job.folder], path.name, one_case)):
                raise InputError(parameter, f"{path} is a result of {job.file}", "choose another file")


def find_done(
    job: Job, settings: Settings | None, min_confidence: float | None
) -> Literal["recorded", "unrecorded"] | None:
    """Return whether all results of a job exist: with their settings, or without them, as of danet 0.1.0.

    If not, the result is None, and those that exist may be replaced.

    Args:
        job: the job.
        settings: with which it would be segmented; None: any.
        min_confidence: see `outputs.Maps`.

    Raises:
        InputError: a file that danet did not write has the name of a result; results with other settings exist.
    """
    path = job.paths[-1]
    summary = read_summary(path) if path.exists() else {}
    if isinstance(summary, InputError):
        raise summary
    if settings is not None and "settings" in summary:
        recorded = summary["settings"]
        if differences := settings.differences(recorded if isinstance(recorded, Mapping) else {}, job.kind):
            remedy = "choose another `out`, use the same settings, or replace `skip_existing` by `overwrite`"
            raise InputError(path, f"was made {differences}", remedy)
    complete = bool(summary) and all(each.exists() for each in job.paths) and _limit(summary) == min_confidence
    if complete and "files" not in summary:  # of an earlier version
        return "unrecorded"
    own = _written(job, summary)
    for each, suffix in zip(job.paths, job.suffixes, strict=True):
        if each.exists() and suffix not in own:
            raise InputError(each, "exists, and nothing says that danet wrote it", _OUT)
    return "recorded" if complete else None


def _written(job: Job, summary: Mapping[str, Any]) -> set[str]:
    """Return the ends of the names of the files that earlier runs wrote for a job."""
    if summary:
        files = summary.get("files", OUTPUTS[job.kind])
        return {file for file in files if isinstance(file, str)} if isinstance(files, list | tuple) else set()
    images = [path for path in job.paths if path.suffix == ".png"]
    return {suffix for path in images for suffix in (read_mark(path) or "").split()}


def _limit(summary: Mapping[str, Any]) -> float | None:
    unknown = summary.get("unknown")
    return unknown.get("min_confidence") if isinstance(unknown, Mapping) else None


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what is equal for all names of a file; None if it does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 (of each result: a method would take longer)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _place(folder: Path, name: str, one_case: bool) -> tuple[Path, str]:
    return folder, name.casefold() if one_case else name
