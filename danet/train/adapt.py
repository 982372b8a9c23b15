"""Settings of a recipe that are chosen when a run starts, from the data and the initial weights."""

import sys
from pathlib import Path

from danet.data.classes import Classes
from danet.data.samples import Samples
from danet.errors import printable
from danet.recipes import Recipe
from danet.train.build import with_network_of
from danet.train.distributed import Process
from danet.train.scale import check_scales, measure, with_size
from danet.weights import file as weights_file


def at_scale(recipe: Recipe, samples: Samples, process: Process) -> Recipe:
    """Return the recipe with a chosen `data.size`, after comparing the scales of training and prediction."""
    if recipe.data.size is None:
        return recipe
    found = measure(samples)
    chosen = with_size(recipe, found)
    check_scales(chosen, found)
    if chosen != recipe and process.main:
        facts = "" if found is None else f" ({found.describe(chosen.data.size)})"
        print(printable(f"size: {chosen.data.size}{facts}; set `data.size` to change it"), file=sys.stderr)
    return chosen


def start_from(weights: Path, recipe: Recipe, classes: Classes, process: Process) -> Recipe:
    """Return the recipe with what the initial weights determine, and say what is kept of them."""
    recipe, changed = with_network_of(recipe, weights)
    known = weights_file.read(weights_file.resolve(weights))[1].classes.names
    new = [name for name in classes.names if name not in known]
    facts = [f"{', '.join(changed)} taken from them"] if changed else []
    facts += [f"the outputs of {', '.join(new)} are new"] if new else []
    if facts and process.main:
        print(printable(f"initial weights {weights}: {'; '.join(facts)}"), file=sys.stderr)
    return recipe
