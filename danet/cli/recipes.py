"""`danet recipes`."""

from collections.abc import Sequence

from danet import recipes
from danet.errors import InputError


def run(args: Sequence[str]) -> int:
    if args and args[0] in ("-h", "--help"):
        print(
            "usage: danet recipes\n\nWhat can be trained: the paper's rows and others, their numbers, steps and memory."
        )
        return 0
    if args:
        raise InputError(args[0], "danet recipes takes nothing", "use danet train RECIPE --help for a recipe's values")
    for name, recipe in recipes.RECIPES.items():
        network, optim, source = recipe.network, recipe.optim, recipe.data
        images = _images(source)
        per_epoch = None if images is None else images // source.batch
        steps = optim.steps or (None if per_epoch is None else optim.epochs * per_epoch)
        length = "" if optim.steps else f"{optim.epochs} epoch{'s' * (optim.epochs != 1)}"
        fixed, per_image = recipes.MEMORY[name]
        lines = [
            recipe.about,
            f"{network.backbone} stride {network.output_stride}, batch {source.batch}, "
            f"crop {source.crop[0]} x {source.crop[1]}; "
            + ", ".join(
                part
                for part in (length, f"{steps:,} steps" if steps else "", f"{images:,} images" if images else "")
                if part
            ),
            f"memory of a GPU, estimated: {_in_words(fixed)} and {_in_words(per_image)} for each image",
        ]
        if name in recipes.PUBLISHED:
            row = recipes.PUBLISHED[name]
            whose = "mmsegmentation" if row.table == "mmseg" else f"Table {row.table} of the paper"
            lines.append(f"mIoU {row.miou} in {whose}{'; ' * bool(row.ports)}{row.ports}; --protocol {row.protocol}")
        print(name, *lines, sep="\n    ")
    return 0


def _images(source: recipes.Data) -> int | None:
    """To train on, where that is known without a folder."""
    from danet.data import registry

    return registry.DATASETS[source.dataset].counts.get(source.train_split)


def _in_words(mebibytes: int) -> str:
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes} MiB"
