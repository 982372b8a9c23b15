"""What several commands write: JSON, and a progress bar on standard error."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from danet.errors import InputError
from danet.files import check_writable


def check_outputs(
    *paths: Path | None, overwrite: bool = False, remedy: str = "give another name or move it away"
) -> None:
    """Raises InputError, before the work, if files could not be written side by side: one is there already, its folder
    is not, or two have one name. None and - are no files.
    """
    seen = set()
    for path in paths:
        if path is None or str(path) == "-":
            continue
        if path.exists() and not overwrite:
            raise InputError(path, "exists already", remedy)
        if not path.parent.is_dir():
            raise InputError(path, f"cannot be written ({path.parent} is no folder)", "make it, or give another")
        check_writable(path.parent)
        if path.resolve() in seen:
            raise InputError(path, "is to hold two results", "give each a file of its own")
        seen.add(path.resolve())


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, all); silent where standard error is no terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """To a file, or for - to standard output; raises InputError if it cannot be written."""
    text = json.dumps(result, indent=2)
    if str(path) == "-":
        print(text)
        return
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise InputError(path, f"cannot be written ({error.strerror})", "give another file") from error
