"""A progress bar on standard error, names in rich's texts, and the table of classes."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from danet.errors import printable

if TYPE_CHECKING:
    from rich.text import Text

    from danet.evaluate.confusion import Confusion


def plain(name: str) -> "Text":
    """Return a name for rich to print as it is, not as markup."""
    from rich.text import Text

    return Text(printable(name))


def print_classes(confusion: "Confusion", names: Sequence[str]) -> None:
    """Print a table with the IoU of each class and its share of the labeled pixels, both in percent."""
    from rich.console import Console
    from rich.table import Column, Table

    shares = confusion.matrix.sum(1) / confusion.matrix.sum()
    table = Table("class", *(Column(head, justify="right") for head in ("IoU, %", "pixels, %")))
    for name, iou, share in zip(names, confusion.scores().iou, shares, strict=True):
        table.add_row(plain(name), "n/a" if iou != iou else f"{100 * iou:.2f}", f"{100 * share:.2f}")
    Console().print(table)


@contextmanager
def progress(text: str, unit: str | None = None) -> Iterator[Callable[[int, int], None]]:
    """Yield a callable that takes (done, total) and moves the bar. Silent if standard error is not a terminal.

    Args:
        text: what is done.
        unit: of what is counted, in the plural; the bar then shows the speed too.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        shown, start = escape(printable(text)), time.monotonic()
        task = bar.add_task(shown, total=None)

        def advance(done: int, total: int) -> None:
            speed = "" if unit is None else f", {done / max(time.monotonic() - start, 1e-9):.1f} {unit}/s"
            bar.update(task, completed=done, total=total, description=shown + speed)

        yield advance
