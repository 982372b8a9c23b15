"""The exception for users' mistakes, and notes to users.

`danet.cli` prints an error as `error: WHERE: WHAT; REMEDY` and exits with status 2.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """A mistake in the user's input: a file, a parameter, a value.

    Parameters are named as in Python, never as flags: `where` is the bare name ("device", "data.root"), and
    other texts put it in backticks ("choose a smaller `size`"). `danet.cli` turns these names into flags.

    Args:
        where: the file, or the name of the parameter.
        what: what is wrong, with the number.
        remedy: how to fix it.
    """

    def __init__(self, where: object, what: str, remedy: str):
        super().__init__(where, what, remedy)  # all three, so that the exception can be pickled between processes
        self.where, self.what, self.remedy = where, what, remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


_WITH_TORCH = ("torch", "torchvision", "timm", "safetensors")


def missing_package(where: object, what: str, extra: str) -> InputError:
    """Return the error for a package that belongs to an extra of danet and is not installed.

    Args:
        where: the file or parameter that needs it.
        what: which package is missing, or needed.
        extra: the extra.
    """
    return InputError(where, what, f"in a clone of danet, run: uv sync --extra {extra}")


def missing_torch(where: object, error: ImportError) -> InputError:
    """Return the error for what needs torch where it is not installed; raise the given one if it has another cause.

    Args:
        where: the file, parameter or command that needs it.
        error: of the import.
    """
    if error.name not in _WITH_TORCH:
        raise error
    remedy = "use an exported network (.onnx, .xml) with predict, evaluate or serve, or install danet's dependencies"
    return InputError(where, f"needs PyTorch, and {error.name} is not installed", remedy)


def missing_file(path: Path | str, remedy: str = "check the path") -> InputError:
    """Return the error for a path that is no file. A URL, whose slashes `Path` has joined, is recognized."""
    if url := re.match(r"(https?|ftp|s3|gs):/+", str(path)):
        what = "danet does not download files"
        return InputError(f"{url[1]}://{str(path)[url.end() :]}", what, "download it and specify its path")
    return InputError(path, "not a file" if Path(path).exists() else "no such file", remedy)


def missing_folder(path: Path, remedy: str = "check the path") -> InputError:
    """Return the error for a path that is no folder."""
    return InputError(path, "not a folder" if path.exists() else "no such folder", remedy)


def join_messages(messages: Sequence[str], count: int = 3) -> str:
    """Join the first `count` messages into one line and say how many more there are."""
    more = f"; and {len(messages) - count} more" if len(messages) > count else ""
    return "; ".join(messages[:count]) + more


def unknown_name(where: object, name: str, known: Iterable[str], remedy: str = "") -> InputError:
    """Return the error for a name that is not known; it suggests the closest one.

    Args:
        where: the parameter.
        name: the unknown name.
        known: the valid names.
        remedy: what to do if no name is close; by default, the names are listed.
    """
    known = tuple(known)
    near = get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else remedy or f"use one of {', '.join(known)}"
    return InputError(where, f"{name!r} is unknown", remedy)


def list_names(names: Sequence[str], count: int = 10) -> str:
    """Join the first `count` names with commas; an ellipsis marks the rest."""
    return ", ".join(names[:count]) + (" ..." if names[count:] else "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, at most 200 characters; its type if it has no text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def warn_renamed(where: object, old: str, new: str) -> None:
    """Warn that a name in a user's file or call has a new spelling. The old one keeps working."""
    warnings.warn(f"{where}: {old!r} is now {new!r}; the old name still works", FutureWarning, stacklevel=3)


def printable(text: str) -> str:
    """Escape newlines, terminal control sequences and undecodable bytes, as in names of files and classes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogateescape").decode() for c in text)


name_parameters: ContextVar[Callable[[str], str]] = ContextVar("name_parameters", default=str)
"""Replaces the parameters in backticks in a note; `danet.cli` turns them into flags."""


def print_note(text: str) -> None:
    """Print a line for the user to stderr; parameters are in backticks, as in `InputError`."""
    print(printable(name_parameters.get()(text)), file=sys.stderr, flush=True)
