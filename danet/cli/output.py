"""A progress bar on standard error, and names in rich's texts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.text import Text

from danet.errors import printable


def plain(name: str) -> Text:
    """Return a name for rich to print as it is, not as markup."""
    return Text(printable(name))


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callable that takes (done, total) and moves the bar. Silent if standard error is not a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(escape(printable(text)), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
