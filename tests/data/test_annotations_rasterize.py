"""Shapes become the pixels whose centers are inside; pycocotools agrees up to the boundary."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as oracle

from danet.data.annotations.rasterize import UNCOVERED, bitmap_of, draw_shapes, region_pixels, runs_of
from danet.data.annotations.shapes import Bitmap, Line, Polygon, Region, Runs, Shape, ellipse, rectangle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

SIZE = 40, 50


def pixels(region: Region, line_width: float = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The whole image: True inside."""
    part, whole = region_pixels(region, size, line_width), np.zeros(size, bool)
    whole[part.top : part.top + part.pixels.shape[0], part.left : part.left + part.pixels.shape[1]] = part.pixels
    return whole


def polygon(*points: tuple[float, float]) -> Polygon:
    return Polygon((np.array(points, np.float64),))


def centers() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return x, y


def inside(ring: np.ndarray) -> np.ndarray:
    """Count for each center how many edges a ray to the right crosses, one edge at a time."""
    x, y = centers()
    count = np.zeros(SIZE, int)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            count += crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return count % 2 == 1


def near_boundary(mask: np.ndarray, radius: int = 1) -> np.ndarray:
    """The pixels at most `radius` away from a pixel on the other side, diagonals included."""
    padded, edge = np.pad(mask, radius, mode="edge"), np.zeros(mask.shape, bool)
    steps = range(2 * radius + 1)
    for dy in steps:
        for dx in steps:
            edge |= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]] != mask
    return edge


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_the_pixels_whose_centers_are_inside(seed):
    rng = np.random.default_rng(seed)
    ring = rng.uniform(-10, 60, (rng.integers(3, 12), 2)).round(3)
    assert (pixels(Polygon((ring,))) == inside(ring)).all()


@pytest.mark.parametrize("seed", range(20))
def test_pycocotools_draws_the_same_polygons_up_to_the_boundary(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 10))
    radii = rng.uniform(8, 18, 10)
    ring = np.stack([25 + radii * np.cos(angles), 20 + radii * np.sin(angles)], 1)
    theirs = oracle.decode(oracle.frPyObjects([ring.ravel().tolist()], *SIZE))[..., 0].astype(bool)
    ours = pixels(Polygon((ring,)))
    assert not (ours ^ theirs)[~near_boundary(ours)].any()
    assert abs(int(ours.sum()) - int(theirs.sum())) <= 0.03 * ours.sum()


@given(st.lists(st.tuples(st.floats(-30, 80), st.floats(-30, 80)), min_size=3, max_size=8))
def test_a_polygon_and_its_complement_in_a_frame_cover_each_pixel_once(points):
    ring = np.array(points, np.float64)
    frame = np.array([(-100, -100), (100, -100), (100, 100), (-100, 100)], np.float64)
    part, rest = pixels(Polygon((ring,))), pixels(Polygon((frame, ring)))
    assert (part ^ rest).all()


def test_rectangles_cover_whole_pixels():
    assert np.argwhere(pixels(rectangle(2, 3, 3, 1))).tolist() == [[3, 2], [3, 3], [3, 4]]
    assert np.argwhere(pixels(rectangle(5, 4, -3, -1))).tolist() == [[3, 2], [3, 3], [3, 4]]
    assert not pixels(rectangle(2.6, 3, 0.8, 5)).any()


def test_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap():
    left, right = polygon((0, 0), (20.3, 0), (31.7, 40), (0, 40)), polygon((20.3, 0), (50, 0), (50, 40), (31.7, 40))
    assert (pixels(left) ^ pixels(right)).all()


def test_rotated_rectangles_turn_clockwise_around_a_corner_or_the_center():
    assert (pixels(rectangle(20, 10, 8, 4, 90)) == pixels(rectangle(16, 10, 4, 8))).all()
    assert (pixels(rectangle(20, 10, 8, 4, 90, centered=True)) == pixels(rectangle(22, 8, 4, 8))).all()


def test_a_ring_inside_another_is_a_hole():
    outer, hole = rectangle(5, 5, 20, 20).rings[0], rectangle(10, 10, 4, 4).rings[0]
    ring = pixels(Polygon((outer, hole)))
    assert ring.sum() == 400 - 16
    assert not ring[10:14, 10:14].any()


def test_ellipses_are_the_pixels_whose_centers_are_inside():
    x, y = centers()
    expected = ((x - 25) / 17) ** 2 + ((y - 20) / 9) ** 2 <= 1
    assert (pixels(ellipse(25, 20, 17, 9)) ^ expected).sum() <= 1
    assert (pixels(ellipse(25, 20, 17, 9, 90)) == pixels(ellipse(25, 20, 9, 17))).all()


@pytest.mark.parametrize("width", [1, 4, 7.5])
def test_lines_are_the_pixels_within_half_the_width(width):
    points = np.array([(5, 5), (40.5, 11), (20, 33), (20, 33)], np.float64)
    x, y = centers()
    distances = []
    for start, end in pairwise(points):
        step = end - start
        along = np.clip(((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(step @ step, 1e-9), 0, 1)
        distances.append(np.hypot(x - start[0] - along * step[0], y - start[1] - along * step[1]))
    nearest = np.min(distances, axis=0)
    different = pixels(Line(points), width) ^ (nearest <= width / 2)
    assert (abs(nearest[different] - width / 2) < 0.02).all()


@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_runs_hold_exactly_the_pixels(by_columns, seed):
    box = np.random.default_rng(seed).random((7, 9)) < (0, 0.2, 0.5, 0.8, 1.1)[seed]
    runs = runs_of(box, by_columns, 3, 2)
    assert runs.counts.sum() == box.size
    assert (bitmap_of(runs).pixels == box).all()
    assert (pixels(runs)[2:9, 3:12] == box).all()
    assert pixels(runs).sum() == box.sum()


@pytest.mark.parametrize(("left", "top"), [(-3, -2), (45, 36), (-9, 0), (50, 40), (200, 5)])
def test_boxes_are_clipped_to_the_image(left, top):
    box = np.ones((7, 9), bool)
    expected = np.zeros(SIZE, bool)
    expected[max(0, top) : max(0, top + 7), max(0, left) : max(0, left + 9)] = True
    for region in (Bitmap(box, left, top), runs_of(box, False, left, top)):
        assert (pixels(region) == expected).all()
        assert draw_shapes([Shape("a", (region,), "r")], SIZE, {"a": 0}).findings.clipped == ["r"]


def shape(name: str | None, *regions: Region, place: str = "") -> Shape:
    return Shape(name, regions, place or str(name))


def test_later_shapes_cover_earlier_ones_and_pixels_of_other_classes_are_counted():
    shapes = [
        shape("a", rectangle(0, 0, 10, 10)),
        shape("a", rectangle(5, 0, 10, 10)),
        shape("b", rectangle(12, 5, 6, 6)),
    ]
    labels, findings = draw_shapes(shapes, SIZE, {"a": 0, "b": 1})
    assert (labels == 1).sum() == 36
    assert (labels == 0).sum() == 150 - 15
    assert findings.overlapping == 15
    assert (labels == UNCOVERED).sum() == 2000 - 36 - 135
    reverse = draw_shapes(shapes[::-1], SIZE, {"a": 0, "b": 1})
    assert (reverse.labels == 0).sum() == 150
    largest_first = draw_shapes(shapes[::-1], SIZE, {"a": 0, "b": 1}, largest_first=True)
    assert (largest_first.labels == labels).all()


def test_the_regions_of_a_shape_do_not_overlap_each_other():
    shapes = [shape("a", rectangle(0, 0, 10, 10), rectangle(5, 5, 10, 10))]
    labels, findings = draw_shapes(shapes, SIZE, {"a": 3})
    assert (labels == 3).sum() == 175
    assert findings.overlapping == 0


def test_shapes_without_a_class_are_ignored_pixels():
    labels, _ = draw_shapes([shape("a", rectangle(0, 0, 9, 9)), shape(None, rectangle(0, 0, 2, 3))], SIZE, {"a": 0})
    assert (labels == 255).sum() == 6


def test_lines_without_a_width_and_shapes_without_a_pixel_are_reported():
    line = shape("a", Line(np.array([(1, 1), (9, 9)], np.float64)), place="line")
    thin, outside = shape("a", rectangle(1.6, 2, 0.3, 9), place="thin"), shape("a", rectangle(60, 0, 5, 5), place="out")
    labels, findings = draw_shapes([line, thin, outside], SIZE, {"a": 0})
    assert (labels == UNCOVERED).all()
    assert (findings.without_width, findings.empty, findings.clipped) == (["line"], ["thin", "out"], ["out"])
    assert draw_shapes([line], SIZE, {"a": 0}, line_width=3).findings.drawn == 1


def test_many_edges_are_drawn_in_bounded_memory(monkeypatch):
    ring = np.random.default_rng(0).uniform(0, 40, (300, 2))
    whole = pixels(Polygon((ring,)))
    monkeypatch.setattr("danet.data.annotations.rasterize._MAX_CROSSINGS", 50)
    assert (pixels(Polygon((ring,))) == whole).all()


def test_runs_of_one_record_agree_with_pycocotools():
    mask = np.random.default_rng(1).random(SIZE) < 0.3
    theirs = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = runs_of(mask, by_columns=True).counts
    assert oracle.frPyObjects({"counts": counts.tolist(), "size": list(SIZE)}, *SIZE) == theirs
    assert isinstance(runs_of(mask, by_columns=True), Runs)
