"""Turn a checkpoint of a run into a weights file. Command: danet convert RUN/last.ckpt DST."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from danet.errors import InputError
from danet.files import check_new
from danet.model.baselines import build_network
from danet.train import checkpoint
from danet.train.resume import load_network
from danet.train.run_folder import BEST
from danet.weights import file as weights_file
from danet.weights.file import Card

_AVERAGED = "module."  # prefix of the keys in torch's AveragedModel


def convert_checkpoint(source: Path, destination: Path, raw: bool = False) -> Card:
    """Write the weights in a checkpoint as a weights file, and return its card.

    Its metrics are the step and, if the weights were validated there, their scores.

    Args:
        source: last.ckpt or previous.ckpt of a run.
        destination: the .safetensors file to write.
        raw: the weights themselves, instead of their moving average, if the run has one.

    Raises:
        InputError: `destination` exists; `source` is damaged, or does not say which network it is of.
    """
    check_new(destination, remedy="choose another name, or move it away")
    entries = checkpoint.load(source)
    card = _card(entries, source)
    network = build_network(**card.network)
    load_network(network, entries["network"] if raw else _averaged(entries), source)
    return weights_file.save(destination, network, replace(card, metrics=_metrics(entries, raw)), overwrite=False)


def _averaged(entries: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the moving average of the weights, or the weights of a run without one."""
    average = entries.get("average")
    if average is None:
        return entries["network"]
    return {key.removeprefix(_AVERAGED): value for key, value in average.items() if key.startswith(_AVERAGED)}


def _card(entries: Mapping[str, Any], source: Path) -> Card:
    if "card" in entries:
        try:
            return Card.from_json(entries["card"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(source, f"invalid metadata ({error!r})", "use the danet version that wrote it") from error
    best = source.parent / BEST
    if not best.exists():
        what = "written by danet 0.1.0, which stored no description of the network in checkpoints"
        raise InputError(source, what, f"put {BEST} of the run beside it, or resume the run for a step")
    return weights_file.read(best)[1]


def _metrics(entries: Mapping[str, Any], raw: bool) -> dict[str, Any]:
    metrics = {"step": entries["step"]}
    history = entries.get("history") or [{}]
    if history[-1].get("step") == entries["step"] and not (raw and "average" in entries):
        metrics |= {name: history[-1][name] for name in ("epoch", "miou", "pixel_accuracy", "mean_accuracy")}
    return metrics
