"""The command `danet report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.output import progress
from danet.cli.parsing import parse
from danet.errors import InputError, printable
from danet.files import check_outputs


@dataclass(frozen=True)
class Report:
    """Write an HTML report: of one run, with its best weights evaluated again, or a comparison of several runs.

    The report of one run shows curves, scores of each class, the confusion matrix, calibration, boundaries, and the
    worst and best images. The comparison uses the scores that the runs recorded.

    Examples: danet report runs/toy; danet report runs/toy runs/toy-2 --out seeds.html
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """one or more run folders"""
    out: Path | None = None
    """output file; default: RUN/report.html (replaced if it exists), or comparison.html for several runs"""
    overwrite: bool = False
    """replace an existing output file"""
    root: Path | None = None
    """for one run: the dataset's folder, if it has moved since the training"""
    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Report, args, "report")
    from danet.files import write_atomically
    from danet.train import run_folder
    from danet.train.report import FILE, final_report
    from danet.visualize import compare_runs
    from danet.visualize.network_comparison import distinct_names

    if not options.runs:
        raise InputError("danet report", "no run folders given", "specify one or more")
    check_outputs(options.out, overwrite=options.overwrite, remedy="choose another `out`, or add `overwrite`")
    if len(options.runs) == 1:
        out = options.out or options.runs[0] / FILE
        with progress("evaluating") as advance:
            page = final_report(options.runs[0], options.device, options.root, advance).page
    else:
        for name in ("root", "device"):
            if getattr(options, name) is not None:
                what = "is for one run, and several are compared by their recorded scores"
                raise InputError(name, what, "leave it out")
        out = options.out or Path("comparison.html")
        check_outputs(out, overwrite=options.overwrite, remedy="choose another `out`, or add `overwrite`")
        names = distinct_names([run.resolve() for run in options.runs], "runs")
        runs = [run_folder.read(run)._replace(name=name) for run, name in zip(options.runs, names, strict=True)]
        page = compare_runs.page(runs)
    own = options.out is None and len(options.runs) == 1
    write_atomically(out, page, overwrite=own or options.overwrite)
    print(printable(str(out)))
    return 0
