"""Run a benchmark as a command: parse its options, run it, print a table and write JSON."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from danet.cli.parsing import error_line, parse
from danet.errors import InputError
from danet.files import check_outputs, write_atomically, write_json

Options = TypeVar("Options")

JsonFile = Annotated[
    Path | None, tyro.conf.arg(help="write all results to this file as well; - prints them instead of the table")
]
"""The option --json of a benchmark."""

MINIMUM = {
    **dict.fromkeys(("positions", "network_positions", "repeats", "pairs", "rounds", "steps", "seeds"), 1),
    "channels": 8,  # query has channels // 8
}


def main(
    name: str,
    kind: type[Options],
    run: Callable[[Options], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
    plot: Callable[[dict[str, Any]], bytes] | None = None,
    args: Sequence[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Run a benchmark and return the exit status: 0, 2 for an error in the user's input, or 130 after Ctrl-C.

    Args:
        name: of the module.
        kind: a dataclass with a field per option. `json` is the file for the result, `plot` the file for the plot.
        run: the benchmark.
        table: formats the result.
        plot: draws the result as SVG.
        args: the arguments; None: those of the process.
        overwrite: replace existing files, for benchmarks that continue an interrupted run.
    """
    try:
        options = parse(kind, sys.argv[1:] if args is None else args, f"benchmarks.{name}", program="python -m")
        json, svg = (getattr(options, field, None) for field in ("json", "plot"))
        check_outputs(json, svg, overwrite=overwrite)
        _check_minimum(vars(options))
        result = run(options)
        if json is not None:
            write_json(json, result)
        if str(json) != "-":
            print(table(result))
        if svg is not None and plot is not None:
            write_atomically(svg, plot(result))
    except InputError as error:
        print(error_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _check_minimum(options: dict[str, Any]) -> None:
    for name, least in MINIMUM.items():
        value = options.get(name, least)
        if (smallest := min(value) if isinstance(value, tuple) else value) < least:
            raise InputError(name, f"must be at least {least}, got {smallest}", "choose a larger value")
