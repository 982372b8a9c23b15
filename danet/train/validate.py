"""A run's validations: the scores over all full validation images, and what they change in the run folder. Used by
`train.loop`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from danet.data.samples import Samples
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import evaluate
from danet.model.baselines import Baseline
from danet.model.danet import DANet
from danet.predict.protocols import WHOLE
from danet.recipes import Recipe
from danet.train import report, run_folder
from danet.train.distributed import Process
from danet.train.interruption import Interruption
from danet.weights import file as weights_file


def validate(
    network: DANet | Baseline,
    card: weights_file.Card,
    samples: Samples,
    process: Process,
    interruption: Interruption | None = None,
) -> Confusion:
    """The confusion matrix over all full validation images, shared out over the processes and each counted once. An
    interruption leaves out those that have not been begun.
    """
    network.eval()
    indices = itertools.takewhile(
        lambda _: interruption is None or interruption.signal is None,
        range(process.rank, len(samples), process.world),
    )
    shown = replace(WHOLE, align_corners=network.align_corners)  # as Predictor shows them
    confusion = evaluate(lambda images: network.logits(images).fused, card, samples, process.device, indices, shown)
    confusion.matrix = process.sum(torch.from_numpy(confusion.matrix)).cpu().numpy()
    return confusion


def record(
    run: Path,
    recipe: Recipe,
    history: Sequence[dict[str, Any]],
    best: nn.Module | None,
    card: weights_file.Card,
    confusion: Confusion,
) -> None:
    """Write metrics.csv, the page of a run that goes on, and best.safetensors.

    Args:
        history: the rows of metrics.csv, the last of this validation.
        best: the network, where none was better before; None: best.safetensors stays.
    """
    if best is not None:
        metrics = {"epoch": history[-1]["epoch"], **confusion.scores().as_dict(card.classes.names)}
        weights_file.save(run / run_folder.BEST, best, replace(card, metrics=metrics))
    run_folder.write_metrics(run, history)
    report.write(run, recipe, history, confusion, card.classes)
