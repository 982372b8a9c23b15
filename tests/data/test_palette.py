"""Colors that viewers with protanopia, deuteranopia and tritanopia can tell apart."""

import numpy as np
import pytest

from danet.data.classes import Classes
from danet.data.datasets import camvid
from danet.data.palette import difference, distinct_palette, voc_palette
from danet.weights import card


def smallest(colors) -> float:
    return float((difference(colors, colors) + 1000 * np.eye(len(colors))).min())


def test_difference_is_that_of_the_viewer_who_sees_the_least():
    black, white, red, green = (0, 0, 0), (255, 255, 255), (200, 0, 0), (110, 90, 0)
    assert difference([black], [white])[0, 0] == pytest.approx(100, abs=1)
    assert difference([red, red], [red])[:, 0].tolist() == [0, 0]
    lab = np.array([53.24, 80.09, 67.20])  # of sRGB red, normal vision: https://colorjs.io
    assert difference([(255, 0, 0)], [black])[0, 0] <= np.linalg.norm(lab)
    assert difference([red], [green])[0, 0] < 20  # red-green


@pytest.mark.parametrize("count", [2, 5, 11, 21])
def test_generated_colors_differ_for_everyone(count):
    assert smallest([(0, 0, 0), *distinct_palette(count)]) >= 15


def test_colors_of_camvid_and_of_the_bundled_weights_differ_for_everyone():
    bundled = card.peek(None)
    assert bundled is not None
    assert bundled.classes == camvid.CLASSES
    assert smallest([(0, 0, 0), *bundled.classes.palette]) >= 15
    assert smallest(camvid.PUBLISHED_PALETTE) < 8


def test_voc_colors_are_the_official_ones():
    assert voc_palette(3) == ((128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert smallest(voc_palette(20)) < 15


def test_a_background_is_black_and_uncolored_next_to_one_class():
    cells = Classes.named(("background", "cell"))
    assert cells.palette == ((0, 0, 0), distinct_palette(1)[0])
    assert cells.uncolored == 0
    assert Classes.named(("cell", "Background")).uncolored == 1
    assert Classes.named(("background", "cell", "wall")).uncolored is None
    assert Classes.named(("sky", "ground")).uncolored is None
