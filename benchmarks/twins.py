"""What attention is worth: each form of it next to its twin trained without attention.

The twin has the same parameters, recipe and seed, but alpha and beta are held at 0 throughout the training. Switching
attention off at test time only shows what trained weights rely on. The forms: the paper's; attention with a learning
rate of its own and without weight decay; with alpha and beta starting above 0; with the attention loss; all of these;
energies that are centered or cosines. Below, with a decoder; the last is the form of the recipe `camvid`. There,
attention with a learning rate of its own diverges within 50 steps.

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
    cosine = {"position_form": "cosine", "channel_form": "cosine"}
    return [
        Row("twin", "without attention", _optim(base, attention_lr_factor=0.0)),
        Row("paper", "as in the paper", base, ("twin",)),
        Row("free", "own rate, no decay", _optim(base, **free), ("twin",)),
        Row("started", "  + scales start at 0.1", started, ("twin",)),
        Row("supervised", "attention loss", replace(base, loss=supervised), ("twin", "paper")),
        Row("all", "own rate, start and attention loss", everything, ("twin", "paper")),
        Row("all-off", "  off at test time", everything, ("all",), run="all", off=OFF),
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
        Row(
            "decoder-supervised-off",
            "  off at test time",
            decoder_supervised,
            ("decoder-supervised",),
            run="decoder-supervised",
            off=OFF,
        ),
    ]


def _optim(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, optim=replace(recipe.optim, **changes))


def _network(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, network=replace(recipe.network, **changes))


if __name__ == "__main__":
    sys.exit(command.main("twins", campaign.Options, run, table, overwrite=True))
