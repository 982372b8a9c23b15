"""COCO-Stuff 10k, version 1.1 (Caesar et al., CVPR 2018): 80 things and 91 stuff classes, 9,000 / 1,000 images.

ROOT/images/*.jpg   ROOT/annotations/*.mat   S is the mask: 0 = unlabeled, ignored; 1..91 things, 92..182 stuff
ROOT/imageLists/{train,test}.txt

COCO has ids for 91 things but labels only 80 of them. Train ids are the ranks of the ids without the 11 others. A mask
that contains one of the 11 is an error: it belongs to version 1.0, whose ids differ.
"""

from functools import partial
from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.images.matlab import read_mat
from danet.data.naming import Naming
from danet.data.samples import PairedFiles, listed_images, pair_files, read_list, root_remedy

COUNTS = {"train": 9000, "test": 1000, "val": 1000}
DOWNLOAD = (
    "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip "
    "(version 1.0 has other class ids)"
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
_NEVER_LABELED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}  # street sign, hat, shoe, ..., hair brush


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """Load a split, "train" or "test", in the order of its list; "val" is "test".

    Args:
        root: the folder that contains `images`, `annotations` and `imageLists`.
        split: the split.
        complete: if False, list pairs too whose image or mask is missing.

    Raises:
        InputError: the list of the split does not exist; images or masks are missing.
    """
    source = root / "imageLists" / f"{'test' if split == 'val' else split}.txt"
    remedy = root_remedy("imageLists", split, COUNTS)
    images = listed_images(root / "images", read_list(source, remedy), source, complete)
    pairs = pair_files(images, root / "annotations", source, Naming(".mat"), complete)
    ids = (i for i in range(1, _LAST_ID + 1) if i not in _NEVER_LABELED)
    label_map = LabelMap({0: IGNORE, **{value: train_id for train_id, value in enumerate(ids)}}, len(CLASSES))
    return PairedFiles(CLASSES, pairs, label_map, partial(read_mat, field="S"))
