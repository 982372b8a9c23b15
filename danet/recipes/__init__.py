"""Recipes: named training runs. Commands: `danet recipes`, `danet train RECIPE`.

Every field can be set on the command line: `danet train camvid --data.root DIR --optim.epochs 40`.
"""

from difflib import get_close_matches

from danet.errors import InputError
from danet.recipes.checks import check
from danet.recipes.danet_paper import PAPER
from danet.recipes.dranet import DRANET
from danet.recipes.mmsegmentation import MMSEG
from danet.recipes.recipe import (
    Criterion,
    Data,
    Loss,
    Network,
    Optim,
    Published,
    Recipe,
    flatten,
    from_dict,
    parse_fold,
    to_dict,
    with_settings,
)
from danet.recipes.small import CAMVID, SMALL, TOY

__all__ = [
    "CAMVID",
    "PUBLISHED",
    "RECIPES",
    "TOY",
    "Criterion",
    "Data",
    "Loss",
    "Network",
    "Optim",
    "Published",
    "Recipe",
    "check",
    "find",
    "flatten",
    "from_dict",
    "parse_fold",
    "to_dict",
    "with_settings",
]

PUBLISHED: dict[str, Published] = {**PAPER, **DRANET, **MMSEG}
RECIPES: dict[str, Recipe] = {**SMALL, **{name: row.recipe for name, row in PUBLISHED.items()}}


def find(name: str) -> Recipe:
    """Return the recipe of this name.

    Raises:
        InputError: an unknown name; the message suggests the closest one.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        remedy = f"did you mean {near[0]}?" if near else "run danet recipes to list all recipes"
        raise InputError(name, "unknown recipe", remedy)
    return RECIPES[name]
