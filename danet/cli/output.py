"""What several commands write: JSON, and a progress bar on standard error."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from danet.errors import InputError


def refuse_existing(*paths: Path | None, remedy: str = "give another name or move it away") -> None:
    """Raises InputError, before the work, if a file to be written is there already; None and - are no files."""
    for path in paths:
        if path is not None and str(path) != "-" and path.exists():
            raise InputError(path, "exists already", remedy)


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
