"""`danet recipes`."""

from collections.abc import Sequence

from danet import recipes
from danet.errors import InputError


def run(args: Sequence[str]) -> int:
    if args:
        raise InputError(args[0], "danet recipes takes nothing", "use danet train RECIPE --help for a recipe's values")
    for name, recipe in recipes.RECIPES.items():
        settings = f"{recipe.network.backbone} stride {recipe.network.output_stride}, {recipe.optim.epochs} epochs"
        print(f"{name:29} {settings}, batch {recipe.data.batch}, crop {recipe.data.crop[0]} x {recipe.data.crop[1]}")
        print(f"{'':29} {recipe.about}")
        if name in recipes.PUBLISHED:
            row = recipes.PUBLISHED[name]
            others = f"; {row.ports}" if row.ports else ""
            print(f"{'':29} mIoU {row.miou} in the paper{others}; evaluate with --protocol {row.protocol}")
    return 0
