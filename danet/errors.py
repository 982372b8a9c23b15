"""The one exception for a user's mistake; `danet.cli` prints it as `error: WHERE: WHAT; REMEDY` and exits with 2."""

from collections.abc import Sequence


class InputError(ValueError):
    """A mistake in what the user gave: a file, an option, a value.

    Args:
        where: the file or option, as the user wrote it.
        what: what is wrong with it, with the number.
        remedy: what to do about it.
    """

    def __init__(self, where: object, what: str, remedy: str):
        super().__init__(where, what, remedy)  # all three, so that the exception survives a trip between processes
        self.where, self.what, self.remedy = where, what, remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def first_of(faults: Sequence[str], count: int = 3) -> str:
    """The first of several faults, and how many more there are, in one line."""
    more = f"; and {len(faults) - count} more" if len(faults) > count else ""
    return "; ".join(faults[:count]) + more
