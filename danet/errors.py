"""The exception for users' mistakes. `danet.cli` prints it as `error: WHERE: WHAT; REMEDY` and exits with status 2."""

import warnings
from collections.abc import Sequence


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


def join_messages(messages: Sequence[str], count: int = 3) -> str:
    """Join the first `count` messages into one line and say how many more there are."""
    more = f"; and {len(messages) - count} more" if len(messages) > count else ""
    return "; ".join(messages[:count]) + more


def list_names(names: Sequence[str], count: int = 10) -> str:
    """Join the first `count` names with commas; an ellipsis marks the rest."""
    return ", ".join(names[:count]) + (" ..." if names[count:] else "")


def warn_renamed(where: object, old: str, new: str) -> None:
    """Warn that a name in a user's file or call has a new spelling. The old one keeps working."""
    warnings.warn(f"{where}: {old!r} is now {new!r}; the old name still works", FutureWarning, stacklevel=3)
