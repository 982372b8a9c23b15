"""Named training runs. Commands: `danet recipes`, `danet train RECIPE`.

Any field can be given on the command line: `danet train camvid --data.root DIR --optim.lr 0.005`.
"""

from difflib import get_close_matches

from danet.errors import InputError
from danet.recipes.danet_paper import PAPER
from danet.recipes.memory import MEMORY
from danet.recipes.mmsegmentation import MMSEG
from danet.recipes.recipe import Data, Network, Optim, Published, Recipe, check, from_dict, to_dict
from danet.recipes.small import CAMVID, SMALL, TOY

__all__ = [
    "CAMVID",
    "MEMORY",
    "PUBLISHED",
    "RECIPES",
    "TOY",
    "Data",
    "Network",
    "Optim",
    "Published",
    "Recipe",
    "check",
    "find",
    "from_dict",
    "to_dict",
]

PUBLISHED: dict[str, Published] = {**PAPER, **MMSEG}
RECIPES: dict[str, Recipe] = {**SMALL, **{name: row.recipe for name, row in PUBLISHED.items()}}


def find(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is none; the nearest name is proposed.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1)
        remedy = f"did you mean {near[0]}?" if near else "danet recipes lists them"
        raise InputError(f"recipe {name!r}", f"is none of the {len(RECIPES)} recipes", remedy)
    return RECIPES[name]
