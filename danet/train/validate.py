"""Validation during training: scores over all full validation images, and the files updated by them."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from danet.data.classes import IGNORE
from danet.data.custom.verify import map_in_threads
from danet.data.samples import PairedFiles, Samples
from danet.errors import InputError
from danet.evaluate.attention_metrics import AttentionMetrics
from danet.evaluate.confusion import Confusion
from danet.evaluate.cross_entropy import CrossEntropy
from danet.evaluate.evaluation import evaluate
from danet.model.baselines import AnyNetwork
from danet.model.dranet import AttentionNetwork
from danet.predict.attention import inspect_pixels
from danet.predict.protocols import WHOLE
from danet.recipes import Recipe
from danet.train import report, run_folder
from danet.train.calibrate import divided_logits
from danet.train.distributed import Interruption, Process
from danet.weights import file as weights_file

ATTENTION_IMAGES = 8
"""Validation images on which attention is measured during training."""


def check_readable(samples: Samples, process: Process) -> None:
    """Read all validation images, which cannot be skipped, and find a labeled pixel in them, before the first step.

    The first validation may be hours later, and a run whose data is repaired then cannot be resumed.

    Args:
        samples: the validation samples.
        process: this process, which reads its part of them.

    Raises:
        InputError: some images or masks cannot be read; none of them has a labeled pixel.
    """
    if not isinstance(samples, PairedFiles):
        return

    def read(index: int) -> InputError | bool:
        try:
            return bool((samples[index].labels != IGNORE).any())
        except InputError as error:
            return error

    found = map_in_threads(read, range(process.rank, len(samples), process.world))
    if errors := [result for result in found if isinstance(result, InputError)]:
        more = f", and {len(errors) - 1} more" if errors[1:] else ""
        what = f"{errors[0].what} (a validation image{more}; only training images can be skipped)"
        raise InputError(errors[0].where, what, errors[0].remedy) from errors[0]
    if not process.sum(torch.tensor(sum(map(bool, found)))):
        what = f"no labeled pixel in any of {len(samples)} validation images, so there is nothing to score"
        raise InputError(samples.pairs[0].mask.parent, what, "label some, or choose other validation images")


def validate(
    network: AnyNetwork,
    card: weights_file.Card,
    samples: Samples,
    process: Process,
    interruption: Interruption | None = None,
    loss: CrossEntropy | None = None,
) -> Confusion:
    """Return the confusion matrix over all full validation images, each evaluated in one of the processes.

    Args:
        network: the network.
        card: its card.
        samples: the validation samples.
        process: this process.
        interruption: after a signal, the remaining images are left out.
        loss: the cross-entropy of the images is added to it.
    """
    network.eval()
    indices = itertools.takewhile(
        lambda _: interruption is None or interruption.signal is None,
        range(process.rank, len(samples), process.world),
    )
    protocol = replace(WHOLE, align_corners=network.align_corners)  # as in Predictor
    own = CrossEntropy(() if loss is None else loss.temperatures)
    confusion = evaluate(
        lambda images: network.logits(images).fused, card, samples, process.device, indices, protocol, own
    )
    confusion.matrix = process.sum(torch.from_numpy(confusion.matrix)).cpu().numpy()
    if loss is not None:
        loss.sums += process.sum(own.sums).cpu()
    return confusion


def attention_summary(network: AnyNetwork, card: weights_file.Card, samples: Samples) -> dict[str, float]:
    """Return where the position attention of a network looks, on a few validation images; see `AttentionMetrics`.

    Args:
        network: the network in evaluation mode; without position attention, the result is empty.
        card: its card.
        samples: the validation samples, of which at most `ATTENTION_IMAGES`, evenly spaced, are used.
    """
    if not isinstance(network, AttentionNetwork) or network.position is None:
        return {}
    metrics = AttentionMetrics(samples.classes)
    for index in np.unique(np.linspace(0, len(samples) - 1, ATTENTION_IMAGES).astype(int)):
        sample = samples[int(index)]
        metrics.update_shares(inspect_pixels(network, card, sample.name, sample.image), sample.labels)
    return metrics.summary()


def record(
    run: Path,
    recipe: Recipe,
    history: Sequence[dict[str, Any]],
    best: nn.Module | None,
    card: weights_file.Card,
    confusion: Confusion,
    temperature: float | None = None,
) -> None:
    """Write metrics.csv, the page of a run in progress, and best.safetensors.

    Args:
        run: the run folder.
        recipe: its recipe.
        history: rows of metrics.csv; the last one is this validation's.
        best: the network if it is the best so far; None: keep best.safetensors.
        card: the network's card.
        confusion: confusion matrix of this validation.
        temperature: divide the logits of the best network by it; None: do not.
    """
    if best is not None:
        metrics = {"epoch": history[-1]["epoch"], **confusion.scores().as_dict(card.classes.names)}
        metrics |= {} if temperature is None else {"temperature": temperature}
        layers = set() if temperature is None else weights_file.class_layers(card.network)
        with divided_logits(best, layers, temperature or 1.0):
            weights_file.save(run / run_folder.BEST, best, replace(card, metrics=metrics))
    run_folder.write_metrics(run, history)
    report.write(run, recipe, history, confusion, card.classes)
