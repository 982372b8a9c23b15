"""Fit a run to a time: measure the speed of its steps and validations, and choose their number.

Command: `danet train RECIPE --time-budget 30m`. The chosen numbers become part of the run's recipe, so it is resumed
like any other: a resumed run takes the remaining steps, without a limit of time.
"""

import contextlib
import copy
import math
import re
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from danet import recipes
from danet.errors import InputError, print_note
from danet.evaluate.evaluation import measure
from danet.model.baselines import AnyNetwork
from danet.predict.predictor import Predictor
from danet.recipes import Recipe
from danet.train import report, run_folder
from danet.train.batches import batches
from danet.train.failures import translate_errors
from danet.train.loop import Run, begin_step
from danet.train.schedule import learning_rate, make_optimizer, set_learning_rate
from danet.train.validate import ATTENTION_IMAGES, attention_summary
from danet.weights import file as weights_file

WARM_UP = 2
"""Steps before those whose time is measured."""
MEASURED = 3, 20
"""Smallest and largest number of measured steps; in between, as many as take `MEASURED_SECONDS`."""
MEASURED_SECONDS = 5.0
RESERVE = 0.05
"""Part of the budget that is not planned."""
VALIDATION_SHARE = 0.2
"""Largest part of the time that is spent on validations, if `validate_every` has to be chosen for it."""

_UNITS = {"s": 1, "m": 60, "h": 3600}
_IMAGES = 3  # that are evaluated to measure the speed


@dataclass(frozen=True)
class Speed:
    """Seconds that the parts of a run take on this machine.

    Args:
        step: a training step.
        validation: a validation, with its checkpoint.
        final: the evaluation at the end of the run.
    """

    step: float
    validation: float
    final: float


def parse_seconds(text: str) -> float:
    """Return the seconds of a time such as "90s", "30m", "1.5h" or "1h30m".

    Raises:
        InputError: not such a time, or none at all.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or not seconds:
        raise InputError("time_budget", f"{text!r} is not a time", "for example, use 30m, 1.5h or 90s")
    return seconds


def check_steps_are_free(given: Collection[str]) -> None:
    """Check that the number of steps is not given, by the names of settings.

    Raises:
        InputError: it is.
    """
    for name in ("optim.steps", "optim.epochs"):
        if name in given:
            what = f"chooses the number of steps, which `{name}` sets too"
            raise InputError("time_budget", what, "leave out one of the two")


def validation_interval(recipe: Recipe, speed: Speed, per_epoch: int) -> int:
    """Return the epochs between validations: those of the recipe, or more if they would take too large a part."""
    most = VALIDATION_SHARE / (1 - VALIDATION_SHARE) * speed.step
    return max(recipe.validate_every, math.ceil(speed.validation / (most * per_epoch)))


def plan(recipe: Recipe, speed: Speed, per_epoch: int, seconds: float, every: int | None = None) -> Recipe:
    """Return a recipe whose steps and validations take a given time.

    Validations become rarer if they would take too large a part of it, and the warm-up is at most a tenth of the steps.

    Args:
        recipe: the recipe.
        speed: of its parts.
        per_epoch: steps per epoch.
        seconds: the time, of which some is kept in reserve.
        every: epochs between validations; None: choose them.

    Raises:
        InputError: the time does not suffice for a single step.
    """
    every = validation_interval(recipe, speed, per_epoch) if every is None else every
    left = seconds * (1 - RESERVE) - speed.final - speed.validation
    steps = math.floor(left / (speed.step + speed.validation / (every * per_epoch)))
    if steps < 1:
        needed = math.ceil((speed.step + speed.validation + speed.final) / (1 - RESERVE))
        what = f"a step takes {speed.step:.2g} s, a validation {speed.validation:.2g} s, the end {speed.final:.2g} s"
        raise InputError("time_budget", what, f"allow at least {needed} s more than the start takes")
    warmup = min(recipe.optim.warmup, steps // 10)
    return replace(recipe, validate_every=every, optim=replace(recipe.optim, steps=steps, warmup=warmup))


def fit(run: Run, seconds: float, started: float) -> None:
    """Fit a new run to a time, and let it end in time even if the machine becomes slower.

    Args:
        run: a run before its first step. Its weights are not changed.
        seconds: the time from `started` to the end of the run.
        started: a time of the monotonic clock.

    Raises:
        InputError: see `plan`.
    """
    speed = measure_speed(run)
    elapsed = float(run.process.sum(torch.tensor(time.monotonic() - started, dtype=torch.float64))) / run.process.world
    run.recipe = plan(run.recipe, speed, run.per_epoch, seconds - elapsed)
    assert run.recipe.optim.steps is not None
    run.steps = run.recipe.optim.steps
    run.state.recipe = recipes.to_dict(run.recipe)
    run.card = replace(run.card, recipe=run.state.recipe)
    limit(run, speed, seconds, started)
    if run.process.main:
        every = run.recipe.validate_every
        text = f"time budget: {run.steps} steps of {speed.step:.3g} s, validated every {every} epoch{'s' * (every > 1)}"
        print_note(f"{text} in {speed.validation:.3g} s")


def fit_to(seconds: float, given: Collection[str]) -> Callable[[Run], None]:
    """Return `fit` for a time that begins now.

    Args:
        seconds: the time.
        given: the names of the settings that the user has given.

    Raises:
        InputError: see `check_steps_are_free`.
    """
    check_steps_are_free(given)
    return partial(fit, seconds=seconds, started=time.monotonic())


def limit(run: Run, speed: Speed, seconds: float, started: float) -> None:
    """Let a planned run end in time even if the machine becomes slower; arguments as in `fit`."""
    run.deadline = started + seconds - speed.validation - speed.final
    if run.process.main:
        run_folder.record_plan(run.options.folder, run.recipe, {"seconds": seconds, **asdict(speed)})


def measure_speed(run: Run) -> Speed:
    """Measure the parts of a run on copies of its network.

    Raises:
        InputError: see `translate_errors`.
    """
    with translate_errors(run.recipe, run.process.world, run.options.workers, run.samples):
        return _measure_speed(run)


def _measure_speed(run: Run) -> Speed:
    network = copy.deepcopy(run.network)
    trial = replace(run, network=network, optimizer=make_optimizer(network, run.recipe.optim))
    step = _step_seconds(trial)
    assert isinstance(network, AnyNetwork)
    network.eval()
    samples, count = run.validation_samples, len(run.validation_samples)
    indices = range(min(_IMAGES, count))
    predictor = Predictor(network, run.card, str(run.process.device))
    list(predictor.predictions(samples, indices=range(1)))  # the first one takes longer
    begun = time.monotonic()
    for _ in predictor.predictions(samples, indices=indices):
        pass
    predicted = time.monotonic()
    measure(predictor.predictions(samples, indices=indices), samples)
    evaluated = time.monotonic()
    attention_summary(network, run.card, samples)
    looked = time.monotonic() - evaluated
    validation = (predicted - begun) / len(indices) * math.ceil(count / run.process.world) + looked
    final = (evaluated - predicted) / len(indices) * count
    final += looked / min(ATTENTION_IMAGES, count) * min(report.ATTENTION_IMAGES, count)
    means = run.process.sum(torch.tensor([step, validation, final], dtype=torch.float64)) / run.process.world
    saving = run.process.sum(torch.tensor([0.0, _saving_seconds(trial), 0.0], dtype=torch.float64))
    return Speed(*(means + saving).tolist())


def _saving_seconds(run: Run) -> float:
    """Return the time of the main process for a checkpoint beside a former one, and the best weights."""
    if not run.process.main:
        return 0.0
    with run_folder.scratch(run.options.folder) as folder:
        trial = replace(run, options=replace(run.options, folder=folder))
        begun = trial.save_checkpoint(run.first)
        trial.save_checkpoint(run.first)
        weights_file.save(folder / run_folder.BEST, run.network, run.card)
        return time.monotonic() - begun


def _step_seconds(run: Run) -> float:
    """Return the mean time of a step after the first ones. All processes take the same number of steps."""
    network, world = run.process.wrap(run.network), run.process.world
    steps = WARM_UP + 1 + MEASURED[1]
    made = partial(batches, run.samples, run.recipe, run.process, 0, steps, run.options.workers, run.skipped)
    with contextlib.closing(made(run.state.class_pixels, run.transform)) as stream:

        def take(count: int, first: int) -> float:
            begun = time.monotonic()
            for step in range(first, first + count):
                set_learning_rate(run.optimizer, learning_rate(run.recipe.optim, step, steps))
                begin_step(run, network, [next(stream) for _ in range(run.recipe.optim.accumulate)], step)
                run.optimizer.step()
            own = torch.tensor((time.monotonic() - begun) / count, dtype=torch.float64)
            return float(run.process.sum(own)) / world

        take(WARM_UP, 0)
        one = take(1, WARM_UP)
        count = int(min(max(MEASURED_SECONDS / one, MEASURED[0]), MEASURED[1]))
        return take(count, WARM_UP + 1)
