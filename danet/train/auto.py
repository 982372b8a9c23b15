"""Choose the settings of the recipe `folder` from the images, the memory and the speed of this machine.

Command: `danet train folder --auto`. What the user has set is kept, and the rest is chosen around it.
"""

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from danet import recipes
from danet.errors import InputError
from danet.files import format_bytes
from danet.model.device import free_memory
from danet.recipes import Network, Recipe
from danet.train import distributed, loop, run_folder, time_budget
from danet.train.adapt import without_connection
from danet.train.batches import batches
from danet.train.build import load_split, with_network_of
from danet.train.distributed import Process
from danet.train.estimate import Estimate, estimate
from danet.train.failures import translate_errors
from danet.train.logging import duration
from danet.train.loop import Run, begin_step, prepare
from danet.train.result import Result
from danet.train.run_folder import RunOptions
from danet.train.scale import SIZES, ObjectScale, measure, pixels_wide, with_size
from danet.train.time_budget import Speed, measure_speed, validation_interval
from danet.train.user_transform import Transform

USABLE = 0.5
"""Part of the free memory that a step may take, by estimate: the libraries and the loading processes need some too."""
STEPS = 2000
"""Steps of a run at least: fewer do not suffice for a small dataset."""
LONGEST = 8 * 3600.0
"""Seconds of a run at most, unless a time is given: a night."""

_SMALLEST = 96  # side of the crops
_LOADED = 4  # batches whose loading is timed


@dataclass(frozen=True)
class Choice:
    """A run whose settings were chosen.

    Args:
        recipe: with the chosen settings.
        options: how to run it, with the chosen number of workers.
        settings: what was chosen, by the names of the recipe's fields, and "workers".
        reasons: why, by the same names; one line each.
        fit: limits the time of the run, see `loop.iterate`.
    """

    recipe: Recipe
    options: RunOptions
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    fit: Callable[[Run], None] = lambda _: None

    def lines(self) -> list[str]:
        """Return a line per chosen setting."""
        return [f"`{name}` {_text(value)}: {self.reasons[name]}" for name, value in self.settings.items()]

    def start(self, transform: Transform | None = None) -> Generator[dict[str, Any], None, Result]:
        """Start the run; see `loop.iterate`."""
        return loop.iterate(self.recipe, self.options, transform=transform, fit=self.fit)


class _Chooser:
    """The recipe as chosen so far, and why."""

    def __init__(self, recipe: Recipe, given: Set[str]):
        automatic = {"data.size"} if recipe.data.size == "auto" else set()
        self.recipe, self.given = recipe, given - automatic
        self.settings: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def choose(self, name: str, value: Any, reason: str) -> None:
        """Set a value, unless it is given."""
        if name in self.given:
            return
        self.settings[name], self.reasons[name] = value, reason
        if name != "workers":
            self.recipe = recipes.with_settings(self.recipe, {name: value})


def choose(
    recipe: Recipe,
    options: RunOptions,
    given: Set[str] = frozenset(),
    seconds: float | None = None,
    transform: Transform | None = None,
) -> Choice:
    """Choose settings; this measures some training steps and the evaluation of some images.

    Args:
        recipe: for a folder of images.
        options: how to run it.
        given: names of settings to keep, such as "data.crop" or "workers".
        seconds: the time of the run, measurements included; None: as long as the steps take, but not above `LONGEST`.
        transform: the user's own augmentation.

    Raises:
        InputError: another dataset; several processes; `options.folder` is not empty; both `seconds` and the number of
            steps are given; the memory or the time do not suffice; see also `loop.iterate`.
    """
    started = time.monotonic()
    if recipe.data.dataset != "folder":
        what = f"is for your own images, and this recipe is for {recipe.data.dataset}"
        raise InputError("auto", what, "use the recipe folder, or leave it out")
    recipes.check(recipe)
    if seconds is not None:
        time_budget.check_steps_are_free(given)
    process = distributed.start(options.device)
    if process.world > 1:
        what = "measures a single process"
        raise InputError("auto", what, "run it without torchrun, and pass the options that it prints to torchrun")
    if options.folder.is_dir():
        run_folder.check_unused(options.folder, recipe)
    samples = load_split(recipe, "train_split", options.data_root)
    chooser, found = _Chooser(recipe, given), measure(samples)
    _choose_size(chooser, found)
    chooser.choose("data.batch", *_batch(recipe, len(samples)))
    options = without_connection(recipe, options, samples.bands, process)
    trained = recipe if options.initial_weights is None else with_network_of(recipe, options.initial_weights)[0]
    _choose_crop(chooser, found, trained.network, len(samples.classes), samples.bands.count, process)
    with tempfile.TemporaryDirectory() as scratch:
        trial = replace(options, folder=Path(scratch))
        run = prepare(chooser.recipe, trial, resume=False, process=process, transform=transform)
        with translate_errors(run.recipe, process.world, options.workers, run.samples):
            chooser.choose("workers", *_workers(run))
        run.options = replace(run.options, workers=chooser.settings.get("workers", options.workers))
        speed, per_epoch = measure_speed(run), run.per_epoch
    left = LONGEST if seconds is None else seconds - (time.monotonic() - started)
    _choose_steps(chooser, speed, per_epoch, left, seconds is not None)
    options = replace(options, workers=chooser.settings.get("workers", options.workers))
    choice = Choice(chooser.recipe, options, chooser.settings, chooser.reasons)
    if seconds is None:
        return choice
    return replace(choice, fit=partial(time_budget.limit, speed=speed, seconds=seconds, started=started))


def _choose_size(chooser: _Chooser, found: ObjectScale | None) -> None:
    recipe = chooser.recipe
    automatic = replace(recipe, data=replace(recipe.data, size="auto"))
    size = with_size(automatic, found).data.size
    if found is None:
        reason = "the smallest usual size, as no mask could be read"
    elif found.thinnest is None:
        reason = f"images of about {found.width} x {found.height}, each with a single class"
    else:
        thickness = found.thickness * size if isinstance(size, int) else 0
        reason = (
            f"images of about {found.width} x {found.height}; the thinnest class, {found.thinnest}, is then about "
            f"{pixels_wide(thickness)}"
        )
    chooser.choose("data.size", size, reason)


def _batch(recipe: Recipe, images: int) -> tuple[int, str]:
    parts = recipe.optim.accumulate
    if images < recipe.data.batch:
        batch = max(parts, images // parts * parts)
        return batch, "all training images" if batch == images else f"a multiple of `optim.accumulate` {parts}"
    return recipe.data.batch, "that of the recipe, for which its learning rate was tuned"


def _choose_crop(
    chooser: _Chooser, found: ObjectScale | None, network: Network, classes: int, channels: int, process: Process
) -> None:
    """Choose the crop, and the parts of a batch that fit into the memory, two images at a time if possible."""
    batch, area = chooser.recipe.data.batch, math.prod(chooser.recipe.data.crop)
    free = free_memory(process.device)
    limit = math.inf if free is None else USABLE * free
    cut = ""
    while True:
        shape = crop_of(chooser.recipe, found, area)
        attempt = _Chooser(chooser.recipe, chooser.given)
        attempt.choose("data.crop", shape, f"the shape of the images{cut}")
        cost = estimate(replace(attempt.recipe, network=network), classes, channels)
        parts = _parts(chooser, cost, limit)
        fits = cost.bytes(batch // parts) <= limit
        smallest = "data.crop" in chooser.given or min(shape) <= _SMALLEST
        if smallest and not fits and "optim.accumulate" not in chooser.given:
            what = f"one image of {shape[1]} x {shape[0]} needs {format_bytes(cost.bytes(1))}"
            remedy = "free some memory, or choose a smaller `network.backbone` or `data.crop`"
            raise InputError("auto", f"{what}, and {format_bytes(limit)} may be used", remedy)
        if smallest or (fits and (batch // parts > 1 or batch == 1)):
            break
        area, cut = 0.8 * area, ", reduced to fit into the memory"
    chooser.choose("data.crop", shape, attempt.reasons.get("data.crop", ""))
    needed = f"{batch // parts} images at a time need about {format_bytes(cost.bytes(batch // parts))}"
    known = "" if free is None else f", of {format_bytes(free)} that are free"
    chooser.choose("optim.accumulate", parts, f"{needed}{known}")


def crop_of(recipe: Recipe, found: ObjectScale | None, area: float) -> tuple[int, int]:
    """Return height and width of a crop, multiples of 32: the shape of the images, not larger than they are at `size`.

    Args:
        recipe: for `data.size`; None: that of the images.
        found: the size of the images; None: a square, of the smallest usual size without `data.size`.
        area: maximum number of pixels.
    """
    size = recipe.data.size or (SIZES[0] if found is None else found.long_side)
    assert isinstance(size, int)
    sides = (
        (size, size) if found is None else tuple(side * size / found.long_side for side in (found.height, found.width))
    )
    factor = min(1.0, math.sqrt(area / math.prod(sides)))
    height, width = (max(_SMALLEST, 32 * round(side * factor / 32)) for side in sides)
    return height, width


def _parts(chooser: _Chooser, cost: Estimate, limit: float) -> int:
    """Return the smallest number of parts of a batch that fit into the memory, or one part per image."""
    batch, accumulate = chooser.recipe.data.batch, chooser.recipe.optim.accumulate
    if "optim.accumulate" in chooser.given:
        return accumulate
    divisors = [parts for parts in range(1, batch + 1) if batch % parts == 0]
    return next((parts for parts in divisors if cost.bytes(batch // parts) <= limit), batch)


def _workers(run: Run) -> tuple[int, str]:
    """Return how many processes have to load images so that the network need not wait, and why."""
    parts = run.recipe.optim.accumulate
    counted = run.state.class_pixels, run.transform
    stream = batches(run.samples, run.recipe, run.process, 0, 1 + _LOADED, 0, run.skipped, *counted)
    with contextlib.closing(stream):
        batch = [next(stream) for _ in range(parts)]
        begun = time.monotonic()
        for _ in range(_LOADED * parts):
            next(stream)
        loading = (time.monotonic() - begun) / _LOADED
    begin_step(run, run.network, batch, 0)
    begun = time.monotonic()
    begin_step(run, run.network, batch, 0)
    computing = time.monotonic() - begun
    wanted = max(1, math.ceil(loading / computing))
    cores = os.cpu_count() or 1
    workers = min(wanted, max(1, cores - 1))
    reason = f"loading a batch takes {loading:.3g} s, computing a step {computing:.3g} s"
    return workers, reason if workers == wanted else f"{reason}, but there are {cores} cores"


def _choose_steps(chooser: _Chooser, speed: Speed, per_epoch: int, seconds: float, limited: bool) -> None:
    """Choose steps and validations; `limited` says whether the user has set the time."""
    every = validation_interval(chooser.recipe, speed, per_epoch)
    share = "at most a fifth of the time" if every > chooser.recipe.validate_every else "that of the recipe"
    chooser.choose("validate_every", every, f"a validation takes {speed.validation:.3g} s; {share}")
    recipe = chooser.recipe
    if not {"optim.steps", "optim.epochs"} & chooser.given:
        fitting = time_budget.plan(recipe, speed, per_epoch, seconds, recipe.validate_every).optim.steps
        assert fitting is not None
        usual = recipe.optim.steps or recipe.optim.epochs * per_epoch
        wanted = max(usual, STEPS)
        steps = fitting if limited else min(wanted, fitting)
        reason = "as many as fit into the time" if limited else f"as many as fit into {duration(LONGEST)}"
        if steps == wanted and not limited:
            reason = "those of the recipe" if usual >= STEPS else "fewer do not suffice for a small dataset"
        total = duration(steps * speed.step + steps / (per_epoch * recipe.validate_every) * speed.validation)
        epochs = f"{steps / per_epoch:.0f} epochs in about {total}, {speed.step:.3g} s per step"
        chooser.choose("optim.steps", steps, f"{reason}; {epochs}")
    steps = chooser.recipe.optim.steps or chooser.recipe.optim.epochs * per_epoch
    if recipe.optim.warmup > steps // 10:
        chooser.choose("optim.warmup", steps // 10, "a tenth of the steps")


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
