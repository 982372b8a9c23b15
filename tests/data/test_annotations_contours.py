"""Outlines of regions: drawn again they are the same label map; simplified, they differ near the boundary only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danet.data.annotations.contours import ring_area, simplify, trace_regions
from danet.data.annotations.rasterize import draw_shapes
from danet.data.annotations.shapes import Polygon, Shape


def redrawn(labels: np.ndarray, tolerance: float = 0) -> np.ndarray:
    names = {str(i): i for i in range(256)}
    rings = [(label, simplify(ring, tolerance)) for label, ring in trace_regions(labels)]
    shapes = [Shape(str(label), (Polygon((ring,)),), "") for label, ring in rings if len(ring) >= 3]
    return draw_shapes(shapes, labels.shape, names).labels


def blobs(seed: int, size: int = 60) -> np.ndarray:
    """Labels 0 to 3 in smooth regions, some inside others."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:size, :size]
    waves = [np.cos(x * rng.uniform(0.05, 0.3) + y * rng.uniform(-0.3, 0.3) + rng.uniform(0, 6)) for _ in range(4)]
    return np.argmax(waves, axis=0).astype(np.uint8)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_regions_drawn_from_large_to_small_give_back_any_label_map(seed, height, width, count):
    labels = np.random.default_rng(seed).integers(0, count, (height, width), np.uint8)
    assert (redrawn(labels) == labels).all()


@pytest.mark.parametrize("seed", range(8))
def test_simplified_regions_differ_near_boundaries_only(seed):
    labels = blobs(seed)
    tolerance = 1.5
    drawn = redrawn(labels, tolerance)
    y, x = np.nonzero(drawn != labels)
    steps = range(-3, 4)
    near = [(dy, dx) for dy in steps for dx in steps if np.hypot(dy, dx) <= tolerance + 1.5]
    padded = np.pad(labels, 3, mode="edge")
    for row, column in zip(y, x, strict=True):
        values = {int(padded[row + 3 + dy, column + 3 + dx]) for dy, dx in near}
        assert len(values) > 1 or min(row, column) < 3 or max(row, column) > 56
    points = [len(ring) for _, ring in trace_regions(labels)]
    fewer = [len(simplify(ring, tolerance)) for _, ring in trace_regions(labels)]
    assert sum(fewer) < sum(points) / 3
    assert len(y) < 0.12 * labels.size


def test_a_rectangle_has_four_corners_and_its_own_area():
    labels = np.zeros((9, 9), np.uint8)
    labels[2:5, 3:8] = 1
    (background, outline), (label, ring) = trace_regions(labels)
    assert (background, label) == (0, 1)
    assert sorted(map(tuple, ring.tolist())) == [(3, 2), (3, 5), (8, 2), (8, 5)]
    assert (ring_area(ring), ring_area(outline)) == (15, 81)


def test_diagonal_pixels_are_two_regions_and_holes_are_filled():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], np.uint8)
    assert [label for label, _ in trace_regions(labels)] == [0, 1, 1]
    ring = np.ones((5, 5), np.uint8)
    ring[2, 2] = 0
    assert [(label, ring_area(outline)) for label, outline in trace_regions(ring)] == [(1, 25), (0, 1)]


def test_every_point_is_within_the_tolerance_of_the_simplified_outline():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = np.stack([50 + 30 * np.cos(angles), 50 + 30 * np.sin(angles)], axis=1)
    simple = simplify(circle, 0.5)
    assert 8 <= len(simple) < 40
    starts, ends = simple, np.roll(simple, -1, 0)
    for point in circle:
        along = np.clip(((point - starts) * (ends - starts)).sum(1) / ((ends - starts) ** 2).sum(1), 0, 1)
        nearest = starts + along[:, None] * (ends - starts)
        assert np.hypot(*(point - nearest).T).min() <= 0.5 + 1e-9
    assert len(simplify(circle[:40], 100)) == 2
