"""The training loop: every step from the batch to the checkpoint.

Commands: `danet train RECIPE`, `danet train --resume RUN`.

All randomness (order of samples, augmentation, dropout) is a function of the seed and the step. A resumed run therefore
ends with exactly the weights of the uninterrupted one, whatever the number of workers.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from danet import recipes
from danet.data.cache import CachedSamples, open_cache, space_needed
from danet.data.class_weights import check_labeled, class_weights, count_classes
from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import print_note
from danet.evaluate.cross_entropy import TEMPERATURES, CrossEntropy
from danet.evaluate.warning_signs import warning_signs
from danet.model.baselines import AnyNetwork
from danet.model.device import deterministic_algorithms
from danet.model.loss import multi_loss
from danet.model.preprocess import normalize
from danet.recipes import Recipe
from danet.train import checkpoint, distributed, failures, nodes, report, run_folder, training_data
from danet.train.adapt import adapt
from danet.train.batches import Batch, batches
from danet.train.build import build, load_split
from danet.train.checkpoint import TrainingState
from danet.train.distributed import Interruption, Process
from danet.train.fingerprint import fingerprint
from danet.train.logging import TrainingProgress, note_steps
from danet.train.result import Result
from danet.train.resume import check_state, check_transform, license_of, load_network, restarted_recipe
from danet.train.run_folder import RunOptions
from danet.train.schedule import (
    freeze,
    freeze_batch_norm,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    set_training_mode,
)
from danet.train.skipped import SkippedImages
from danet.train.trackers import TrackerLog, require_tracker
from danet.train.user_transform import Transform, name_of
from danet.train.validate import attention_summary, check_readable, record, validate
from danet.weights import file as weights_file
from danet.weights.file import Card


@dataclass
class Run:
    """Everything that the loop works with.

    Training ends at the first step after `deadline`, a time of the monotonic clock.
    """

    recipe: Recipe
    options: RunOptions
    process: Process
    samples: Samples
    validation_samples: Samples
    skipped: SkippedImages
    per_epoch: int
    steps: int
    first: int
    resumed: bool
    network: nn.Module
    card: Card
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    state: TrainingState
    transform: Transform | None
    deadline: float = math.inf
    out_of_time: bool = False

    def save_checkpoint(self, step: int) -> float:
        """Save a checkpoint in the main process, and return the time of a monotonic clock."""
        if self.process.main:
            tensors = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            if self.average is not None:
                tensors["average"] = self.average.state_dict()
            entries = {"step": step, "card": self.card.json(), **vars(self.state), **tensors}
            checkpoint.save(self.options.folder, entries)
        return time.monotonic()

    def validation_due(self, step: int) -> bool:
        """Return whether to validate before this step."""
        epoch, remainder = divmod(step, self.per_epoch)
        due = self.ends(step) or (step > 0 and remainder == 0 and epoch % self.recipe.validate_every == 0)
        return due and not self.state.validated(step)

    def ends(self, step: int) -> bool:
        """Return whether this is the last step, or time is up; at least one step is taken."""
        if step == self.steps or self.deadline == math.inf or step == self.first:
            return step == self.steps
        late = self.out_of_time or bool(self.process.sum(torch.tensor(int(time.monotonic() > self.deadline))))
        self.out_of_time = late
        return late

    def out_of_patience(self) -> bool:
        """Return whether the last validation was one too many without a better mIoU."""
        patience = self.recipe.optim.patience
        return patience is not None and self.state.validations_since_best() >= patience

    def first_validation_after_half(self, step: int) -> bool:
        """Return whether this validation, which is in the history, is the first in the second half of the run."""
        earlier = [row["step"] for row in self.state.history[:-1]]
        return self.steps / 2 <= step < self.steps and all(before < self.steps / 2 for before in earlier)


def train(
    recipe: Recipe | None, options: RunOptions, resume: bool = False, transform: Transform | None = None
) -> Result:
    """Train until the recipe's last step, or until SIGINT or SIGTERM; arguments and errors as in `iterate`."""
    return exhaust(iterate(recipe, options, resume, transform))


def exhaust(validations: Generator[dict[str, Any], None, Result]) -> Result:
    """Return the result of `iterate` after all its validations."""
    while True:
        try:
            next(validations)
        except StopIteration as end:
            return end.value


def iterate(
    recipe: Recipe | None,
    options: RunOptions,
    resume: bool = False,
    transform: Transform | None = None,
    fit: Callable[[Run], None] = lambda _: None,
) -> Generator[dict[str, Any], None, Result]:
    """Train, and yield the row of metrics.csv of each validation; return the result.

    Each row is yielded after its checkpoint: the run can be resumed if the generator is closed.

    Args:
        recipe: what to train; None: that of the run in `options.folder`.
        options: how to run it.
        resume: continue the run in `options.folder` from its newest checkpoint.
        transform: the user's own augmentation, after that of the recipe.
        fit: changes a new run before its first step; see `danet.train.time_budget`.

    Raises:
        InputError: an invalid recipe, unreadable data, a folder that is in use or not empty, a full disk, too little
            memory, or a loss that is not finite.
    """
    for name in options.trackers:
        require_tracker(name)
    process = distributed.start(options.device)
    nodes.note_stale_store(process)
    recipe = nodes.read_recipe(process, options.folder) if recipe is None else recipe
    lock = run_folder.lock(options.folder) if process.main else contextlib.nullcontext()
    with lock, deterministic_algorithms(options.deterministic):
        run = prepare(recipe, options, resume, process, transform)
        created = process.main and not run.resumed
        with run_folder.removed_unless(run.state.losses, options.folder) if created else contextlib.nullcontext():
            if not run.resumed:
                fit(run)
            if process.main:
                note_steps(options.folder, run.first, run.steps, run.recipe.optim.warmup)
            result = yield from _run_steps(run)
        if process.main and result.stopped_by is None:
            with Interruption() as interruption, contextlib.suppress(KeyboardInterrupt):
                result = replace(result, final=report.finish(options.folder, str(process.device), interruption.check))
            result = replace(result, stopped_by=interruption.signal)
    return replace(result, folder=options.folder)


def prepare(recipe: Recipe, options: RunOptions, resume: bool, process: Process, transform: Transform | None) -> Run:
    """Load the data, build the network, and create the run folder or restore the newest checkpoint."""
    recipes.check(recipe, process.world)
    skipped = SkippedImages(options.folder, recipe.skip_bad)
    root = run_folder.find_root(options.folder, recipe, options.data_root) if resume else options.data_root
    samples, validation_samples = (load_split(recipe, field, root) for field in ("train_split", "val_split"))
    data = fingerprint(samples, validation_samples)
    if options.cache is not None:
        samples = _open_cache(samples, options.cache, process, skipped)
    nodes.check_same_data(process, {"training": samples, "validation": validation_samples})
    per_epoch = max(1, len(samples) // recipe.data.batch)
    if not resume:
        recipe, options = adapt(recipe, options, samples, process)
    saved = nodes.read_checkpoint(process, options.folder, recipe, resume)
    recipe = recipe if saved is None or resume else restarted_recipe(recipe, saved)
    steps = recipe.optim.steps or recipe.optim.epochs * per_epoch
    state = TrainingState() if saved is None else TrainingState.from_checkpoint(saved)
    if saved is not None:
        check_state(options.folder, state, recipe, data, steps, saved["step"])
        check_transform(options.folder, state.transform, None if transform is None else name_of(transform))
    weights = options.backbone_weights, options.initial_weights
    network, card = build(recipe, samples.classes, *weights, fresh=saved is None, bands=samples.bands)
    if recipe.optim.freeze != "none":
        freeze(network, recipe.optim.freeze, weights_file.class_layers(card.network))
    network = distributed.synchronize_batch_norm(network, process).to(process.device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = make_optimizer(network, recipe.optim)
    average = _average(network, recipe.optim.ema)
    if saved is not None:
        load_network(network, saved["network"], options.folder)
        card = replace(card, license=license_of(saved))
        optimizer.load_state_dict(saved["optimizer"])
        if average is not None:
            average.load_state_dict(saved["average"])
    else:
        check_readable(validation_samples, process)
        if process.main:
            run_folder.check_unused(options.folder, recipe)
        check_labeled(samples)
        if recipe.class_weights != "none" or recipe.data.rare:
            counts = count_classes(samples, skipped.add)
            state.class_pixels = counts.pixels.tolist() if recipe.data.rare else ()
            if recipe.class_weights != "none":
                state.class_weights = class_weights(recipe.class_weights, counts)
        state.transform = None if transform is None else name_of(transform)
        if process.main:
            run_folder.create(options.folder, recipe, root, options.initial_weights)
    state.images, state.data, state.recipe = len(samples), data, recipes.to_dict(recipe)
    if saved is not None and process.main:
        run_folder.record_root(options.folder, recipe, root)
    return Run(
        recipe,
        options,
        process,
        samples,
        validation_samples,
        skipped,
        per_epoch,
        steps,
        first=0 if saved is None else saved["step"],
        resumed=saved is not None,
        network=network,
        card=card,
        optimizer=optimizer,
        average=average,
        state=state,
        transform=transform,
    )


def _run_steps(run: Run) -> Generator[dict[str, Any], None, Result]:
    """Train from the first to the last step, with validations and checkpoints."""
    recipe, options, process, state = run.recipe, run.options, run.process, run.state
    network = process.wrap(run.network)
    counted = state.class_pixels, run.transform
    stream = batches(run.samples, recipe, process, run.first, run.steps, options.workers, run.skipped, *counted)
    display = TrainingProgress(run.steps, run.first, recipe.data.batch, process.main)
    log = TrackerLog(options.trackers if process.main else (), options.folder, recipes.to_dict(recipe))
    errors = failures.translate_errors(recipe, process.world, options.workers, run.samples)
    with Interruption() as interruption, errors, contextlib.closing(stream), display as progress, log:
        saved_at = run.save_checkpoint(run.first)
        if process.main:
            checkpoint.check_space(options.folder)
        for step in range(run.first, run.steps + 1):
            if run.validation_due(step):
                if not _validate(run, step, interruption, progress, log):
                    return _stop(run, step, interruption)
                saved_at = run.save_checkpoint(step)
                with progress.paused():
                    yield dict(state.history[-1])
            if state.validated(step) and (run.ends(step) or run.out_of_patience()):
                if step < run.steps and process.main:
                    print_note(_stopped_early(run, step))
                break

            rate = learning_rate(recipe.optim, step, run.steps)
            set_learning_rate(run.optimizer, rate)
            with progress.waiting():
                parts = [next(stream) for _ in range(recipe.optim.accumulate)]
            if step == 0 and process.main:
                training_data.record(options.folder, run.samples, parts)

            loss = begin_step(run, network, parts, step)
            failures.check_finite(loss, run.network, step, rate, parts)
            run.optimizer.step()
            if run.average is not None:
                run.average.update_parameters(run.network)

            state.losses.append(loss)
            progress.advance(loss["total"])
            if interruption.agreed(process):
                return _stop(run, step + 1, interruption)
            if time.monotonic() - saved_at > options.checkpoint_seconds:
                saved_at = run.save_checkpoint(step + 1)
    return Result(state.best)


def begin_step(run: Run, network: nn.Module, parts: Sequence[Batch], step: int) -> dict[str, float]:
    """Compute the gradients of a step, which the optimizer then applies, and return its losses.

    Args:
        run: the run.
        network: its network, wrapped by `Process.wrap`.
        parts: the parts of this process's batch.
        step: the step, which determines the dropout.
    """
    recipe = run.recipe
    torch.manual_seed(_dropout_seed(recipe.seed, step, run.process.rank))
    run.optimizer.zero_grad()
    network.train()
    set_training_mode(run.network, recipe.optim.freeze)
    if step < recipe.optim.frozen_batch_norm * run.per_epoch:
        freeze_batch_norm(run.network)
    return compute_gradients(network, parts, recipe, run.card, run.process, run.state.class_weights)


def compute_gradients(
    network: nn.Module,
    parts: Sequence[Batch],
    recipe: Recipe,
    card: Card,
    process: Process,
    class_weights: Sequence[float] | None = None,
) -> dict[str, float]:
    """Run the forward and backward pass of a step; gradients are those of the whole batch over all processes.

    Args:
        network: the network in training mode, wrapped by `Process.wrap`.
        parts: the parts of this process's batch, accumulated one after another.
        recipe: for the precision and the factors of the losses.
        card: for the normalization of the images.
        process: this process.
        class_weights: weight of each class in the loss; None: all are 1.

    Returns:
        The losses by name; "total" is their weighted sum.
    """
    valid = process.sum(torch.stack([(part.labels != IGNORE).sum() for part in parts]).sum())
    weights = None if class_weights is None else torch.tensor(class_weights)
    sums: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        images, labels = part.images.to(process.device), part.labels.to(process.device)
        accumulating = i < len(parts) - 1 and isinstance(network, DistributedDataParallel)
        with network.no_sync() if accumulating else contextlib.nullcontext():  # pyright: ignore[reportCallIssue]
            with torch.autocast(process.device.type, torch.bfloat16, enabled=recipe.optim.precision == "bfloat16"):
                outputs = network(normalize(images, card.mean, card.std), **recipe.forward_options)
            total, by_name = multi_loss(outputs, labels, asdict(recipe.loss), valid, weights, asdict(recipe.criterion))
            (total * process.world).backward()  # DDP averages gradients, but the loss is a sum over processes
        for name, value in {"total": total, **by_name}.items():
            sums[name] = sums.get(name, 0) + value.detach()
    return dict(zip(sums, process.sum(torch.stack(list(sums.values()))).tolist(), strict=True))


def _validate(run: Run, step: int, interruption: Interruption, progress: TrainingProgress, log: TrackerLog) -> bool:
    """Validate, and write the results; return False if interrupted."""
    network = run.network if run.average is None else run.average.module
    assert isinstance(network, AnyNetwork)
    calibrate = run.recipe.calibrate
    loss = CrossEntropy(TEMPERATURES if calibrate else ())
    confusion = validate(network, run.card, run.validation_samples, run.process, interruption, loss)
    if interruption.agreed(run.process):
        return False
    epoch, rate = step // run.per_epoch, learning_rate(run.recipe.optim, step - 1, run.steps)
    attention = attention_summary(network, run.card, run.validation_samples) if run.process.main else {}
    better = run.state.add_validation(step, epoch, rate, confusion, network, progress.speed(), attention, loss.mean)
    if run.process.main:
        best = network if better else None
        temperature = loss.temperature if calibrate else None
        record(run.options.folder, run.recipe, run.state.history, best, run.card, confusion, temperature)
        log.add(run.state.history)
    progress.validated(epoch, confusion.scores().miou, run.state.best, loss.mean)
    if run.first_validation_after_half(step):
        for line in warning_signs(run.recipe, run.card.classes, confusion, run.state.history):
            progress.note(f"warning: {line}")
    return True


def _stop(run: Run, step: int, interruption: Interruption) -> Result:
    run.save_checkpoint(step)
    return Result(run.state.best, stopped_by=interruption.signal or signal.SIGTERM)


def _stopped_early(run: Run, step: int) -> str:
    if run.out_of_time:
        return f"stopped at step {step} of {run.steps}: the time budget is used up"
    count = run.state.validations_since_best()
    validations = f"{count} validation{'s' * (count != 1)}"
    return f"stopped at step {step} of {run.steps}: no better mIoU than {run.state.best:.1%} in {validations}"


def _open_cache(samples: Samples, folder: Path, process: Process, skipped: SkippedImages) -> CachedSamples:
    cache = open_cache(samples, folder, skipped.add)
    if process.main:
        total, missing = space_needed(cache, skipped.add)
        sizes = f"{total / 1e9:.1f} GB for {len(samples)} images, of which {missing / 1e9:.1f} GB are not yet written"
        print_note(f"{folder}: {sizes}")
    return cache


def _average(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return the moving average of the weights. Its decay grows to `decay`, so that it soon forgets the first steps."""
    if not decay:
        return None

    def update(average: PARAM_LIST, current: PARAM_LIST, count: Tensor | int) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(average, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])
