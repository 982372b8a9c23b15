"""Find a learning rate: train a few steps with growing learning rates, and look where the loss falls.

The range test of Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3, with a rate
that grows exponentially. Command: `danet train RECIPE --find-lr`.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from danet.errors import InputError
from danet.files import check_writable, make_folder, write_atomically, write_json
from danet.recipes import Recipe
from danet.train import distributed, failures
from danet.train.batches import batches
from danet.train.distributed import Interruption
from danet.train.logging import TrainingProgress
from danet.train.loop import Run, begin_step, prepare
from danet.train.schedule import set_learning_rate
from danet.train.start import resolve, run_options, unused_folder
from danet.train.time_budget import parse_seconds
from danet.train.user_transform import Transform
from danet.visualize.lr_png import learning_rate_png

PLOT, TABLE = "find_lr.png", "find_lr.json"
RANGES = {"sgd": (1e-5, 10.0), "adamw": (1e-6, 1.0)}
"""The lowest and the highest base learning rate that are tried, by algorithm."""
STEPS = 30, 100
"""Smallest and largest number of steps; in between, as many as fit into the time."""
SECONDS = 600.0
"""The time of the test, unless another one is given."""

_WARM_UP = 3  # steps at the lowest rate; the last two of them are timed
_MEMORY = 0.9  # of the moving average that smooths the losses
_SETTLED = 10  # steps after which the average depends little on single batches; the rates before are not suggested
_DIVERGED = 3.0  # a smoothed loss of so many times the lowest one
_NEAR = 0.1  # part of the loss's whole fall; where only this is missing, the curve becomes flat
_BACK = 3.0  # the suggestion is that rate divided by this: the curve lags, and the rate has to be safe for a whole run
_FALL = 0.05  # part by which the loss must fall at least, or there is no suggestion


@dataclass(frozen=True)
class RangeTest:
    """The result of a learning rate range test.

    Args:
        suggestion: the suggested base learning rate (`optim.lr`); None if the loss did not fall.
        flat_from: the learning rate from which on the smoothed loss hardly falls.
        diverged: whether the loss diverged, which ended the test before the highest rate.
        rates: the base learning rate of each step.
        losses: the loss of each step.
        smoothed: the losses, smoothed.
        folder: where the plot and the numbers are.
    """

    suggestion: float | None
    flat_from: float
    diverged: bool
    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    folder: Path

    def __repr__(self) -> str:
        return f"RangeTest(suggestion={self.suggestion}, flat_from={self.flat_from:.2g}, folder={str(self.folder)!r})"


def find_learning_rate(
    recipe: Recipe | str,
    data: Path | str | None = None,
    *,
    out: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    transform: Transform | None = None,
    time_budget: str | None = None,
    **options: Any,
) -> RangeTest:
    """Train some steps with growing learning rates, and suggest one from the loss; no run and no weights are kept.

    The batches, the losses, the accumulation, the factors of the parameter groups and what is frozen are those of the
    run. The rate grows from step to step by a constant factor, until the loss diverges.

    Args:
        recipe: a recipe or its name.
        data: the folder of the dataset.
        out: the folder for find_lr.png and find_lr.json; None: runs/RECIPE-find-lr, or -2, -3, ... if it exists.
        settings: values of the recipe: {"optim.algorithm": "sgd"}.
        transform: your own augmentation, as in `danet.train`.
        time_budget: the time for the steps, such as "3m"; None: 10 minutes. It determines their number, from 30 to 100.
        options: `initial_weights`, `backbone_weights`, `device`, `workers` and `cache` as in `danet.train`.

    Raises:
        InputError: as `danet.train`; `out` has such files already.
    """
    name, chosen = resolve(recipe, data, settings or {})
    folder = unused_folder(f"{name}-find-lr") if out is None else Path(out)
    seconds = SECONDS if time_budget is None else parse_seconds(time_budget)
    given = run_options(folder, **options)
    check_writable(folder)
    for file in (folder / PLOT, folder / TABLE):
        if file.exists():
            raise InputError(file, "already exists", "choose another `out`")
    process = distributed.start(given.device)
    with tempfile.TemporaryDirectory() as scratch:
        run = prepare(chosen, replace(given, folder=Path(scratch)), resume=False, process=process, transform=transform)
        tried = list(_try_rates(run, seconds))
    found = _evaluate(tried, folder)
    if process.main:
        make_folder(folder)
        write_atomically(folder / PLOT, learning_rate_png(found.rates, found.losses, found.smoothed, found.suggestion))
        write_json(folder / TABLE, _plain(found))
    return found


def _try_rates(run: Run, seconds: float) -> Iterator[tuple[float, float, float]]:
    """Yield the rate, the loss and the smoothed loss of each step with labeled pixels, until the loss diverges."""
    process, recipe = run.process, run.recipe
    low, high = RANGES[recipe.optim.algorithm]
    network, smoothing = process.wrap(run.network), _Smoothing()
    count, begun = STEPS[1], 0.0
    stream = batches(
        run.samples, recipe, process, 0, count, run.options.workers, run.skipped, run.state.class_pixels, run.transform
    )
    errors = failures.translate_errors(recipe, process.world, run.options.workers, run.samples)
    display = TrainingProgress(count, 0, recipe.data.batch, process.main)
    with Interruption() as interruption, errors, contextlib.closing(stream), display as progress:
        for step in range(STEPS[1]):
            if step == 1:
                begun = time.monotonic()
            if step == _WARM_UP:
                own = torch.tensor((time.monotonic() - begun) / (_WARM_UP - 1), dtype=torch.float64)
                count = steps_for(float(process.sum(own)) / process.world, seconds)
            if step == count:
                return
            rate = low * (high / low) ** (max(0, step + 1 - _WARM_UP) / (count - _WARM_UP))
            set_learning_rate(run.optimizer, rate)
            loss = begin_step(run, network, [next(stream) for _ in range(recipe.optim.accumulate)], step)["total"]
            run.optimizer.step()
            progress.advance(loss)
            if loss:  # 0: no pixel of the batch has a label
                yield rate, loss, smoothing.add(loss)
            if smoothing.diverged:
                return
            if interruption.agreed(process):
                raise KeyboardInterrupt


def steps_for(step: float, seconds: float) -> int:
    """Return how many steps of `step` seconds to take in a given time, within `STEPS`."""
    return int(min(max(seconds / max(step, 1e-9), STEPS[0]), STEPS[1]))


class _Smoothing:
    """A moving average of losses, without the bias towards its first value, and whether it diverges.

    It is compared with its lowest value since the warm-up, in which it follows single batches.
    """

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._count = 0
        self._lowest = math.inf
        self.diverged = False

    def add(self, loss: float) -> float:
        self._sum = _MEMORY * self._sum + (1 - _MEMORY) * loss
        self._weight = _MEMORY * self._weight + 1 - _MEMORY
        mean = self._sum / self._weight
        self._count += 1
        if self._count >= _WARM_UP:
            self._lowest = min(mean, self._lowest)
        self.diverged = not math.isfinite(mean) or mean > _DIVERGED * self._lowest
        return mean


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> tuple[float | None, float]:
    """Return the suggested learning rate, rounded to two digits, and the rate from which on the loss hardly falls.

    The suggestion is a third of the latter; None if the loss does not fall. The place of the minimum itself is a matter
    of chance, because the curve is often flat and ragged there.

    Args:
        rates: the learning rates.
        smoothed: the smoothed loss at each; nan and inf count as infinite.
    """
    finite = [loss if math.isfinite(loss) else math.inf for loss in smoothed]
    settled = list(zip(rates, finite, strict=True))[_SETTLED:]
    if not settled:
        return None, rates[-1]
    start, low = max(finite[_WARM_UP - 1 : _SETTLED]), min(loss for _, loss in settled)
    flat_from = next((rate for rate, loss in settled if loss <= low + _NEAR * (start - low)), rates[-1])
    return None if low > (1 - _FALL) * start else float(f"{flat_from / _BACK:.2g}"), flat_from


def _evaluate(tried: Sequence[tuple[float, float, float]], folder: Path) -> RangeTest:
    """Return the result of the steps tried.

    Raises:
        InputError: they do not reach a second rate, or are too few.
    """
    if len(tried) < _WARM_UP or len({rate for rate, *_ in tried}) < 2:
        finite = all(math.isfinite(loss) for _, loss, _ in tried)
        what = "too few batches have labels" if finite else "the loss is not finite at the lowest learning rate"
        raise InputError("find_lr", what, "check the data with danet check, or try other initial weights")
    rates, losses, smoothed = zip(*tried, strict=True)
    suggestion, flat_from = suggest(rates, smoothed)
    diverged = not math.isfinite(smoothed[-1]) or smoothed[-1] > _DIVERGED * min(smoothed[_WARM_UP - 1 :])
    return RangeTest(suggestion, flat_from, diverged, rates, losses, smoothed, folder)


def _plain(found: RangeTest) -> dict[str, Any]:
    """Return the values for JSON, which has no nan: such losses are null."""
    values = asdict(found)
    del values["folder"]
    for name in ("losses", "smoothed"):
        values[name] = [loss if math.isfinite(loss) else None for loss in values[name]]
    return values
