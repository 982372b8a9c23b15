"""The training run, top to bottom: one straight loop, the step visible. Command: `danet train RECIPE`, `danet train
--resume RUN`.

Every random choice is a function of (seed, step): the order of samples, their augmentation, dropout. So an interrupted
run, resumed from its last checkpoint, ends with the very weights of the uninterrupted one, whatever the number of
workers.
"""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from danet import recipes
from danet.data import registry
from danet.data.cache import CachedSamples, open_cache, space_needed
from danet.data.class_weights import check_labeled, class_weights, count_classes
from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import InputError
from danet.model.baselines import Baseline
from danet.model.danet import DANet
from danet.model.loss import multi_loss
from danet.model.preprocess import normalize
from danet.recipes import Recipe
from danet.train import checkpoint, distributed, failures, report
from danet.train import run_folder as folder
from danet.train import tensorboard as events
from danet.train.batches import Batch, batches
from danet.train.build import build
from danet.train.claim import claimed
from danet.train.distributed import Process
from danet.train.interruption import Interruption
from danet.train.logging import TrainingProgress
from danet.train.quarantine import Quarantine
from danet.train.schedule import learning_rate, make_optimizer, set_learning_rate
from danet.train.training_state import Course
from danet.train.validate import record, validate
from danet.weights import file as weights_file


@dataclass(frozen=True)
class Where:
    """Where and how a run is computed; nothing here but the weights it begins with changes its result.

    Args:
        folder: the run folder.
        backbone_weights: a .safetensors of the backbone's ImageNet weights under timm's keys, instead of timm's hub.
        initial_weights: a weights file of the same network to begin from, for fine-tuning.
        device: "cpu", "cuda"; None: a GPU if there is one.
        workers: processes that load images, beside each computing one.
        checkpoint_seconds: the most that a kill -9 costs, but for a validation.
        cache: a folder where decoded training samples are kept, see `data/cache.py`.
        tensorboard: write the numbers of metrics.csv to FOLDER/tensorboard too.
        deterministic: refuse every operation that would not give the same bits again (on a GPU; on a CPU all do, for
            one number of threads).
    """

    folder: Path
    backbone_weights: Path | None = None
    initial_weights: Path | None = None
    device: str | None = None
    workers: int = 1
    checkpoint_seconds: float = 60.0
    cache: Path | None = None
    tensorboard: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class Result:
    """How a run ended: its best validation mIoU (nan before the first), and the signal that stopped it, or None."""

    miou: float
    stopped_by: int | None = None


def train(recipe: Recipe, where: Where, resume: bool = False) -> Result:
    """Run a recipe to its end, or to SIGINT or SIGTERM.

    Raises:
        InputError: what the user can mend: the recipe, the data, the folder, a loss that is not finite.
    """
    if where.tensorboard:
        events.require()
    process = distributed.start(where.device)
    if where.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
        torch.use_deterministic_algorithms(True)
    with contextlib.ExitStack() as held:
        if process.main:
            held.enter_context(claimed(where.folder))
        resume = resume or (distributed.restarted() and folder.can_go_on(where.folder, recipe))
        result = _train(recipe, where, resume, process)
        if process.main and result.stopped_by is None:
            with Interruption() as interruption, contextlib.suppress(KeyboardInterrupt):
                report.finish(where.folder, str(process.device), interruption.check)
            result = replace(result, stopped_by=interruption.signal)
    return result


def _train(recipe: Recipe, where: Where, resume: bool, process: Process) -> Result:
    recipes.check(recipe, process.world)
    samples = registry.load(recipe.data.dataset, recipe.data.root, recipe.data.train_split)
    quarantine = Quarantine(where.folder, recipe.skip_bad)
    if where.cache is not None:
        samples = _through_cache(samples, where.cache, process, quarantine)
    held_back = registry.load(recipe.data.dataset, recipe.data.root, recipe.data.val_split)
    per_epoch = max(1, len(samples) // recipe.data.batch)
    steps = recipe.optim.steps or recipe.optim.epochs * per_epoch

    state = checkpoint.newest(where.folder) if resume else None
    network, card = build(
        recipe, samples.classes, where.backbone_weights, where.initial_weights, fresh=state is None, bands=samples.bands
    )
    network = distributed.synchronize_batch_norm(network, process).to(process.device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = make_optimizer(network, recipe.optim)
    average = _average(network, recipe.optim.ema)
    course = Course(images=len(samples))
    if state is not None:
        course = Course.resumed(state)
        _check_same(state["step"], steps, course.images, len(samples), where.folder)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
    elif process.main:
        folder.create(where.folder, recipe)
    if state is None:
        check_labeled(samples)
    if state is None and recipe.class_weights != "none":
        course.class_weights = class_weights(recipe.class_weights, count_classes(samples, quarantine.note))
    parallel = process.wrap(network)

    def save_checkpoint(step: int) -> float:
        if process.main:
            tensors = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            averaged = {} if average is None else {"average": average.state_dict()}
            checkpoint.save(where.folder, {"step": step} | vars(course) | tensors | averaged)
        return time.monotonic()

    def stopped(step: int) -> Result:
        save_checkpoint(step)
        return Result(course.best, stopped_by=interruption.signal or signal.SIGTERM)

    first = 0 if state is None else state["step"]
    stream = batches(samples, recipe, process, first, steps, where.workers, quarantine)
    shown = TrainingProgress(steps, first, recipe.data.batch, process.main)
    track = events.Events(where.folder / "tensorboard" if where.tensorboard and process.main else None)
    explained = failures.explained(recipe, process.world, where.workers, len(samples.classes), samples.bands.count)
    with Interruption() as interruption, explained, contextlib.closing(stream), shown as progress, track:
        saved_at = save_checkpoint(first)
        if process.main:
            checkpoint.check_space(where.folder)
        for step in range(first, steps + 1):
            epoch, past = divmod(step, per_epoch)
            due = step == steps or (step > 0 and past == 0 and epoch % recipe.validate_every == 0)
            if due and not course.validated(step):
                judged = network if average is None else average.module
                assert isinstance(judged, DANet | Baseline)
                confusion = validate(judged, card, held_back, process, interruption)
                if interruption.agreed(process):
                    return stopped(step)
                rate = learning_rate(recipe.optim, step - 1, steps)
                better = course.add(step, epoch, rate, confusion, judged, progress.speed())
                if process.main:
                    record(where.folder, recipe, course.history, judged if better else None, card, confusion)
                    track.add(course.history)
                progress.validated(epoch, confusion.scores().miou, course.best)
                saved_at = save_checkpoint(step)
            if step == steps:
                break

            rate = learning_rate(recipe.optim, step, steps)
            set_learning_rate(optimizer, rate)
            with progress.waiting():
                parts = [next(stream) for _ in range(recipe.optim.accumulate)]

            torch.manual_seed(_dropout_seed(recipe.seed, step, process.rank))
            optimizer.zero_grad()
            loss = compute_gradients(parallel, parts, recipe, card, process, course.class_weights)
            _check_finite(loss, network, step, rate, parts)
            optimizer.step()
            if average is not None:
                average.update_parameters(network)

            course.losses.append(loss)
            progress.advance(loss["total"])
            if interruption.agreed(process):
                return stopped(step + 1)
            if time.monotonic() - saved_at > where.checkpoint_seconds:
                saved_at = save_checkpoint(step + 1)
    return Result(course.best)


def compute_gradients(
    network: nn.Module,
    parts: Sequence[Batch],
    recipe: Recipe,
    card: weights_file.Card,
    process: Process,
    balance: Sequence[float] | None = None,
) -> dict[str, float]:
    """Forward and backward over a step's parts; the gradient is that of the whole step's batch over all processes.
    `balance` holds a weight for each class. Returns the losses by name.
    """
    network.train()
    valid = process.sum(torch.stack([(part.labels != IGNORE).sum() for part in parts]).sum())
    by_class = None if balance is None else torch.tensor(balance)
    sums: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        images, labels = part.images.to(process.device), part.labels.to(process.device)
        last = i == len(parts) - 1
        with (
            contextlib.nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()
        ):
            with torch.autocast(process.device.type, torch.bfloat16, enabled=recipe.optim.precision == "bf16"):
                outputs = network(normalize(images, card.mean, card.std))
            total, by_name = multi_loss(outputs, labels, recipe.loss, valid, by_class)
            (total * process.world).backward()  # gradients are averaged over the processes, the loss is a sum over them
        for name, value in {"total": total, **by_name}.items():
            sums[name] = sums.get(name, 0) + value.detach()
    return dict(zip(sums, process.sum(torch.stack(list(sums.values()))).tolist(), strict=True))


def _through_cache(samples: Samples, cache: Path, process: Process, quarantine: Quarantine) -> CachedSamples:
    through = open_cache(samples, cache, quarantine.note)
    if process.main:
        whole, missing = space_needed(through, quarantine.note)
        sizes = f"{whole / 1e9:.1f} GB for {len(samples)} images, {missing / 1e9:.1f} GB of it still to be written"
        print(f"{cache}: {sizes}", file=sys.stderr)
    return through


def _check_same(step: int, steps: int, began_with: int | None, images: int, run: Path) -> None:
    """Raises InputError for a run that cannot end as the uninterrupted one would have."""
    if began_with not in (None, images):
        what = f"began with {began_with} training images, and there are {images} now"
        raise InputError(run, what, "bring them back, or begin a new run (--initial-weights goes on from its weights)")
    if step > steps:
        raise InputError(run, f"is at step {step} of {steps}", "give recipe.yaml its number of epochs back")


def _average(network: nn.Module, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _check_finite(loss: dict[str, float], network: nn.Module, step: int, rate: float, parts: Sequence[Batch]) -> None:
    """Before the optimizer can spread it to every weight."""
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]))
    if not (math.isfinite(loss["total"]) and math.isfinite(norm)):
        names = ", ".join(name for part in parts for name in part.names)
        what = f"loss {loss['total']:g} and gradient norm {norm:g} at learning rate {rate:g}, on {names}"
        raise InputError(f"step {step}", what, "lower --optim.lr, or raise --optim.warmup")
