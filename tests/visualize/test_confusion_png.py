"""The PNG image of the confusion matrix: cells, numbers and names."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from danet.data.classes import Classes
from danet.evaluate.confusion import Confusion
from danet.visualize.confusion_png import confusion_png


@pytest.mark.parametrize(("count", "cell"), [(2, 120), (15, 120), (18, 100), (69, 26), (70, 25), (113, 16)])
def test_confusion_cells_show_their_share_as_color_and_number(count, cell):
    counted = Confusion(count)
    counted.matrix[0, :2] = 996, 4  # 0.4%: no number
    counted.matrix[1, :2] = 5, 995
    counted.matrix[:2] *= 1000
    counted.matrix[2:, 2:] = np.eye(count - 2)  # rows of one pixel, which is right
    page = Image.open(io.BytesIO(confusion_png(counted, Classes.named(tuple(str(i) for i in range(count))))))
    pixels = np.asarray(page).astype(int)
    lines = (pixels == 205).all(2)
    top, left = (int(np.flatnonzero(lines.mean(axis) > 0.3)[0]) for axis in (1, 0))
    assert np.flatnonzero(lines.mean(1) > 0.3).tolist() == [top + cell * i for i in range(count + 1)]
    assert top == left + 56
    inside = [
        [pixels[top + cell * y + 1 :, left + cell * x + 1 :][: cell - 1, : cell - 1] for x in (0, 1)] for y in (0, 1)
    ]
    assert count == 2 or pixels[top + cell * 2 + 2, left + cell * 2 + 2].tolist() == [0, 90, 150]
    expected = [[0.996, 0.004], [0.005, 0.995]]
    for cells, shares in zip(inside, expected, strict=True):
        for part, share in zip(cells, shares, strict=True):
            color = np.round(255 - share * (255 - np.array((0, 90, 150))))
            assert np.array_equal(part[1, 1], color)
            numbered = (part != part[1, 1]).any()
            assert numbered == (cell >= 26 and share >= 0.005)
            if numbered:
                written = part.max() > color.max() + 60 if share > 0.6 else part.min() < color.min() - 60
                assert written, "white on dark, black on light"


@pytest.mark.parametrize("count", [2, 19, 60, 200])
def test_confusion_png_shows_all_classes_and_shares(count):
    counted = Confusion(count)
    counted.matrix = np.eye(count, dtype=np.int64) * 7
    counted.matrix[-1] = 0
    page = Image.open(io.BytesIO(confusion_png(counted, Classes.named(tuple(f"class {i}" for i in range(count))))))
    assert page.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    pixels = np.asarray(page)
    grid = (pixels == 205).all(2)
    rows, columns = (np.flatnonzero(lines) for lines in (grid.mean(1) > 0.3, grid.mean(0) > 0.3))
    assert len(rows) == len(columns) == count + 1
    cells = pixels[np.ix_(rows[:-1] + 2, columns[:-1] + 2)]  # next to their numbers
    assert (cells[:-1][np.eye(count, dtype=bool)[:-1]] == cells[0, 0]).all()
    assert cells[0, 0].max() < 160
    assert (cells[:-1][~np.eye(count, dtype=bool)[:-1]] == 255).all()
    assert (cells[-1] == 225).all()
    inside = pixels[rows[0] - 4 : rows[-1], columns[0] - 4 : columns[-1]]
    assert (inside[:4] == 255).all(), "a name runs into the matrix"
    assert (inside[:, :4] == 255).all(), "a name runs into the matrix"
    for start, end in pairwise(rows):
        assert (pixels[start:end, : columns[0]] < 90).any(), "a row without a name"
    for start, end in pairwise(columns):
        assert (pixels[rows[0] - 60 : rows[0], start:end] < 90).any(), "a column without a name"
    numbers = (pixels[rows[0] + 1 : rows[1], columns[0] + 1 : columns[1]] > 240).all(2)
    assert numbers.any() == (count <= 60), "100, in white, where it fits"
