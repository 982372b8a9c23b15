"""`danet recipes`."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from danet import recipes
from danet.cli.parsing import parse
from danet.files import format_bytes

_CHOICE = """\
how to choose:
  your own images       danet train folder --data.root my_images
  fewer than 500 images the same, and read docs/small_datasets.md: longer training, augmentation, k-fold
  no data yet           danet train toy
  thin or small objects danet train folder --data.root my_images --data.size 1024
  a row of the paper    cityscapes-..., voc-..., context-..., coco-stuff-...; they need a GPU and the dataset
Start from the recipe folder; the others are for public datasets. Every value can be changed by an option.

all recipes:
"""


@dataclass(frozen=True)
class Recipes:
    """Say how to choose a recipe, and list all recipes of danet train, with their steps and published scores.

    With names, list only these recipes, and also estimate their GPU memory.

    Example: danet recipes camvid cityscapes-danet101
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = ()
    """the recipes to show; default: all, without their memory"""


def run(args: Sequence[str]) -> int:
    """Run `danet recipes`."""
    options = parse(Recipes, args, "recipes")
    found = {name: recipes.find(name) for name in options.names or recipes.RECIPES}  # before the first is printed
    if not options.names:
        print(_CHOICE)
    for name, recipe in found.items():
        lines = [*_describe(name, recipe), *([_memory(recipe)] if options.names else [])]
        print(name, *lines, sep="\n    ")
    if not options.names:
        hint = "danet recipes NAME also estimates the GPU memory; danet train NAME --dry-run shows all settings"
        print(f"\n{hint}", file=sys.stderr)
    return 0


def _describe(name: str, recipe: recipes.Recipe) -> Iterator[str]:
    network, optim, data = recipe.network, recipe.optim, recipe.data
    images = _images(data)
    steps_per_epoch = None if images is None else images // data.batch
    steps = optim.steps or (None if steps_per_epoch is None else optim.epochs * steps_per_epoch)
    length = [
        "" if optim.steps else f"{optim.epochs} epoch{'s' * (optim.epochs != 1)}",
        f"{steps:,} steps" if steps else "",
        f"{images:,} images" if images else "",
    ]
    yield recipe.about
    yield (
        f"{network.backbone}, output stride {network.output_stride}, batch {data.batch}, "
        f"crop {data.crop[0]} x {data.crop[1]}; {', '.join(filter(None, length))}"
    )
    if name in recipes.PUBLISHED:
        row = recipes.PUBLISHED[name]
        others = {"mmseg": "mmsegmentation", "dranet": "the README of DRANet's code"}
        source = others.get(row.table, f"Table {row.table} of the paper")
        miou = "mIoU not known" if row.miou is None else f"mIoU {row.miou}%"
        yield f"{miou} in {source}{'; ' * bool(row.ports)}{row.ports}; --protocol {row.protocol}"


def _images(data: recipes.Data) -> int | None:
    """Return the number of training images, None if it depends on the folder."""
    from danet.data import registry

    return registry.DATASETS[data.dataset].counts.get(data.train_split)


def _memory(recipe: recipes.Recipe) -> str:
    """Estimate the memory of a training step; a folder is assumed to have two classes."""
    from danet.data import registry
    from danet.train.estimate import estimate

    classes = registry.DATASETS[recipe.data.dataset].classes
    cost = estimate(recipe, 2 if classes is None else len(classes))
    batch = recipe.data.batch
    return (
        f"estimated GPU memory: {format_bytes(cost.fixed)} plus {format_bytes(cost.per_image)} per image, "
        f"{format_bytes(cost.bytes(batch))} for a batch of {batch}"
    )
