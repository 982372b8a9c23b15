"""mmsegmentation's sixteen DANet models (configs/danet), with its schedule, weight decay, stem and auxiliary head.

Three things differ (see docs/paper.md): mmsegmentation initializes the head with kaiming-normal weights, pads with the
mean color (danet: black), and averages the loss over all pixels of a crop, ignored ones included (danet: valid pixels).
"""

from typing import NamedTuple

from danet.recipes.recipe import Data, Network, Optim, Published, Recipe


class _Row(NamedTuple):
    dataset: str
    depth: int
    crop: tuple[int, int]
    thousand_steps: int
    miou: float
    multi_scale: float | None = None
    others: str = ""


_ROWS = [
    _Row("cityscapes", 50, (512, 1024), 40, 78.74),
    _Row("cityscapes", 101, (512, 1024), 40, 80.52),
    _Row("cityscapes", 50, (769, 769), 40, 78.88, 80.62),
    _Row("cityscapes", 101, (769, 769), 40, 79.88, 81.47),
    _Row("cityscapes", 50, (512, 1024), 80, 79.34),
    _Row("cityscapes", 101, (512, 1024), 80, 80.41),
    _Row("cityscapes", 50, (769, 769), 80, 79.27, 80.96),
    _Row("cityscapes", 101, (769, 769), 80, 80.47, 82.02),
    _Row("ade20k", 50, (512, 512), 80, 41.66, 42.90),
    _Row("ade20k", 101, (512, 512), 80, 43.64, 45.19),
    _Row("ade20k", 50, (512, 512), 160, 42.45, 43.25, "SSSeg 42.90 (130 epochs)"),
    _Row("ade20k", 101, (512, 512), 160, 44.17, 45.02, "SSSeg 44.37 (130 epochs)"),
    _Row("voc", 50, (512, 512), 20, 74.45, 75.69),
    _Row("voc", 101, (512, 512), 20, 76.02, 77.23),
    _Row("voc", 50, (512, 512), 40, 76.37, 77.29),
    _Row("voc", 101, (512, 512), 40, 76.51, 77.32),
]
_TITLES = {"cityscapes": "Cityscapes", "ade20k": "ADE20K", "voc": "PASCAL VOC 2012"}


def _name(row: _Row) -> str:
    crop = "x".join(map(str, row.crop)) if row.dataset == "cityscapes" else str(row.crop[0])
    return f"mmseg-{row.dataset}-danet{row.depth}-{crop}-{row.thousand_steps}k"


def _recipe(row: _Row) -> Recipe:
    street = row.dataset == "cityscapes"
    data = Data(
        row.dataset,
        train_split="trainaug" if row.dataset == "voc" else "train",
        batch=8 if street else 16,
        crop=row.crop,
        scale=(0.5, 2.0),
        short_side=None if street else 512,
        size=None if street else 683,  # the long side of a 4:3 image whose short side is 512, mmsegmentation's size
        largest_share=0.75,
        photometric=True,
    )
    optim = Optim(steps=1000 * row.thousand_steps, lr=0.01, lr_floor=1e-4, weight_decay=5e-4)
    network = Network(f"resnet{row.depth}c", align_corners=row.crop[0] == 769, auxiliary=True)
    about = f"{_TITLES[row.dataset]}, DANet-{row.depth} as mmsegmentation trains it, {row.thousand_steps}k steps"
    return Recipe(about, network, data, optim, validate_every=10)


def _published(row: _Row) -> Published:
    protocol = {(769, 769): "mmseg-slide-769", (512, 512): "mmseg-whole-512"}.get(row.crop, "mmseg-whole")
    several = f"{row.multi_scale:.2f} with six scales and flip (--protocol {protocol}-multi)" if row.multi_scale else ""
    return Published("mmseg", row.miou, protocol, "; ".join(filter(None, (several, row.others))), _recipe(row))


MMSEG = {_name(row): _published(row) for row in _ROWS}
"""Recipe name -> row; `miou` is as published by mmsegmentation."""
