"""One self-contained HTML page of a run, of an evaluation, or of several runs side by side. Written by `danet train`,
`danet evaluate --report` and `danet report`.
"""

from danet.report import compare, evaluation, run
from danet.report.run import Run

__all__ = ["Run", "compare", "evaluation", "run"]
