"""COCO-Stuff 10k, version 1.1 (Caesar et al., CVPR 2018): 80 things and 91 stuff classes, 9,000 / 1,000 images.

ROOT/images/*.jpg   ROOT/annotations/*.mat   S is the mask: 0 = unlabeled, ignored; 1..91 things, 92..182 stuff
ROOT/imageLists/{train,test}.txt

COCO gave 91 things an id and drew 80; without the 11 others the ids' ranks are the train ids. A mask that holds one of
the 11 is an error: version 1.0, which counts otherwise, shows itself in this way.
"""

from functools import partial
from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.images.matlab import read_mat
from danet.data.naming import Naming
from danet.data.samples import PairedFiles, pair_files
from danet.data.split_lists import find_images, read_list

COUNTS = {"train": 9000, "test": 1000, "val": 1000}
DOWNLOAD = (
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip "
    "(1.0 numbers its classes otherwise)"
)

_THINGS = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
_STUFF = (
    "banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, "
    "ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, "
    "floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, "
    "grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, "
    "net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, "
    "roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, "
    "structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, "
    "wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood"
)
CLASSES = Classes.named(tuple(f"{_THINGS}, {_STUFF}".split(", ")))

_LAST_ID = 182
_NEVER_DRAWN = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}  # street sign, hat, shoe, ..., hair brush


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """The samples of `split`, "train" or "test", in its list's order; "val" is "test".

    Raises:
        InputError: no such list; images or masks missing.
    """
    listed_in = root / "imageLists" / f"{'test' if split == 'val' else split}.txt"
    remedy = f"give --root the folder that holds images, annotations and imageLists, and --split {', '.join(COUNTS)}"
    images = find_images(root / "images", read_list(listed_in, remedy), listed_in, complete)
    drawn = (i for i in range(1, _LAST_ID + 1) if i not in _NEVER_DRAWN)
    label_map = LabelMap({0: IGNORE, **{value: train_id for train_id, value in enumerate(drawn)}}, len(CLASSES))
    return PairedFiles(
        CLASSES,
        pair_files(images, root / "annotations", listed_in, Naming(".mat"), complete),
        label_map,
        partial(read_mat, field="S"),
    )
