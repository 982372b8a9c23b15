"""`danet report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.output import progress
from danet.cli.parsing import parse, printable
from danet.errors import InputError
from danet.files import check_outputs


@dataclass(frozen=True)
class Report:
    """A run's page, its best weights measured anew over the validation images; or several runs side by side, from
    what they measured themselves.

    For example: danet report runs/toy; danet report runs/toy runs/toy-2 --out seeds.html
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs; one run's page is rewritten in its folder"""
    out: Path | None = None
    """the file to write; for several runs comparison.html if not given"""
    overwrite: bool = False
    """replace that file if it exists"""
    root: Path | None = None
    """of one run: its dataset's folder, if that is no longer where the recipe says"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


def run(args: Sequence[str]) -> int:
    options = parse(Report, args, "report")
    from danet.files import write_atomically
    from danet.train import run_folder
    from danet.train.report import FILE, measured
    from danet.visualize import compare_runs

    if not options.runs:
        raise InputError("RUN", "none given", "name folders of runs")
    check_outputs(options.out, overwrite=options.overwrite)
    if len(options.runs) == 1:
        out = options.out or options.runs[0] / FILE
        with progress("measuring") as advance:
            page = measured(options.runs[0], options.device, options.root, advance)
    else:
        out = options.out or Path("comparison.html")
        check_outputs(out, overwrite=options.overwrite)
        page = compare_runs.page([run_folder.read(run) for run in options.runs])
    write_atomically(out, page)
    print(printable(str(out)))
    return 0
