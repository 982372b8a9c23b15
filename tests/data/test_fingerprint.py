"""The digest of samples tells whether processes, machines and later runs have the same data."""

import numpy as np
import pytest
from PIL import Image

from danet.data import fingerprint
from danet.data.classes import Classes, LabelMap
from danet.data.samples import Pair, PairedFiles

CLASSES, LABELS = Classes(("x", "y"), ((0, 0, 0), (9, 9, 9))), LabelMap({0: 0, 1: 1}, 2)


@pytest.fixture
def pairs(tmp_path) -> list[Pair]:
    for name, side in (("a", 4), ("b", 5)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / f"{name}.bmp")
    return [Pair(name, tmp_path / f"{name}.bmp", tmp_path / f"{name}.bmp") for name in "ab"]


def digest(*pairs: Pair, classes: Classes = CLASSES, labels: LabelMap = LABELS) -> bytes:
    return fingerprint.digest(PairedFiles(classes, pairs, labels))


def test_the_digest_depends_on_names_and_order(pairs):
    same, renamed = digest(*pairs), Pair("c", pairs[1].image, pairs[1].mask)
    assert digest(*pairs) == same
    assert len({same, digest(*reversed(pairs)), digest(pairs[0]), digest(pairs[0], renamed)}) == 4


def test_the_digest_depends_on_classes_and_label_map(pairs):
    other = Classes(("y", "x"), CLASSES.palette)
    swapped = LabelMap({0: 1, 1: 0}, 2)
    assert len({digest(*pairs), digest(*pairs, classes=other), digest(*pairs, labels=swapped)}) == 3


@pytest.mark.parametrize("side", [5, 6])
def test_the_digest_depends_on_the_files_also_of_the_same_size(pairs, side):
    before = digest(*pairs)
    Image.fromarray(np.ones((side, side, 3), np.uint8)).save(pairs[1].image)
    assert digest(*pairs) != before
