"""`danet recipes`."""

from collections.abc import Sequence

from danet import recipes
from danet.errors import InputError


def run(args: Sequence[str]) -> int:
    if args:
        raise InputError(args[0], "danet recipes takes nothing", "use danet train RECIPE --help for a recipe's values")
    for name, recipe in recipes.RECIPES.items():
        settings = f"{recipe.network.backbone} stride {recipe.network.output_stride}, {recipe.optim.epochs} epochs"
        print(f"{name:18} {settings}, batch {recipe.data.batch}")
        print(f"{'':18} {recipe.about}")
    return 0
