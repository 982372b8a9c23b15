"""What attention is worth: each form of it next to its twin trained without attention.

The twin has the same parameters, recipe and seed, but alpha and beta are held at 0 throughout the training. Switching
attention off at test time only shows what trained weights rely on. The forms: the paper's; attention with a learning
rate of its own and without weight decay; with alpha and beta starting above 0; with the attention loss; all of these;
energies that are centered or cosines. Below, with a decoder; decoder-supervised is the form of the recipe `camvid`.
There, attention with a learning rate of its own diverges within 50 steps. In the last rows, also with a decoder, the
backbone learns ten times more slowly, and not at all: then it cannot learn the context that attention would add.

    python -m benchmarks.twins --root CAMVID --seeds 3 --json benchmarks/results/twins.json
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import campaign, command
from benchmarks.summary import Row, table
from danet.recipes import Loss, Recipe

OFF = ("position", "channel")


def run(options: campaign.Options) -> dict[str, Any]:
    """Train and compare all rows."""
    return campaign.run(rows(campaign.base(options)), options)


def rows(base: Recipe) -> Sequence[Row]:
    """Return the rows: the forms of attention with a dilated backbone, then with a decoder."""
    decoder = _network(base, output_stride=16, decoder=True)
    supervised = Loss(attention=0.4)
    free = {"attention_lr_factor": 10.0, "attention_weight_decay": 0.0}
    started = _network(_optim(base, **free), initial_scale=0.1)
    everything = replace(started, loss=supervised)
    decoder_supervised = replace(_network(decoder, initial_scale=0.1), loss=supervised)
    slow = {"lr": base.optim.lr / 10, "head_lr_factor": 10 * base.optim.head_lr_factor}
    frozen_twin = _optim(decoder, attention_lr_factor=0.0, freeze="backbone")
    frozen_supervised = _optim(decoder_supervised, freeze="backbone")
    cosine = {"position_form": "cosine", "channel_form": "cosine"}
    return [
        Row("twin", "without attention", _optim(base, attention_lr_factor=0.0)),
        Row("paper", "as in the paper", base, ("twin",)),
        Row("free", "own rate, no decay", _optim(base, **free), ("twin",)),
        Row("started", "  + scales start at 0.1", started, ("twin",)),
        Row("supervised", "attention loss", replace(base, loss=supervised), ("twin", "paper")),
        Row("all", "own rate, start and attention loss", everything, ("twin", "paper")),
        _off("all", everything),
        Row("centered", "centered energies", _network(started, position_form="centered"), ("twin", "started")),
        Row("cosine", "cosines, position and channel", _network(started, **cosine), ("twin", "started")),
        Row("cosine-all", "  + attention loss", _network(everything, **cosine), ("twin", "all")),
        Row("decoder-twin", "decoder, without attention", _optim(decoder, attention_lr_factor=0.0), ("twin",)),
        Row("decoder", "decoder, as in the paper", decoder, ("decoder-twin", "paper")),
        Row(
            "decoder-supervised",
            "decoder, start and attention loss",
            decoder_supervised,
            ("decoder-twin", "decoder"),
        ),
        _off("decoder-supervised", decoder_supervised),
        Row("slow-twin", "slow backbone, without attention", _optim(decoder, attention_lr_factor=0.0, **slow)),
        Row(
            "slow-supervised",
            "slow backbone, start and attention loss",
            _optim(decoder_supervised, **slow),
            ("slow-twin", "decoder-supervised"),
        ),
        Row("frozen-twin", "frozen backbone, without attention", frozen_twin, ("decoder-twin",)),
        Row("frozen", "frozen backbone, as in the paper", _optim(decoder, freeze="backbone"), ("frozen-twin",)),
        Row(
            "frozen-supervised",
            "frozen backbone, start and attention loss",
            frozen_supervised,
            ("frozen-twin", "frozen", "decoder-supervised"),
        ),
        _off("frozen-supervised", frozen_supervised),
    ]


def _off(name: str, recipe: Recipe) -> Row:
    """Return the row that switches the attention of another row's weights off at test time."""
    return Row(f"{name}-off", "  off at test time", recipe, (name,), run=name, off=OFF)


def _optim(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, optim=replace(recipe.optim, **changes))


def _network(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, network=replace(recipe.network, **changes))


if __name__ == "__main__":
    sys.exit(command.main("twins", campaign.Options, run, table, overwrite=True))
