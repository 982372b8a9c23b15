"""Label maps, palettes, and the error for an unknown mask value."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from danet import InputError
from danet.data.classes import IGNORE, Classes, LabelMap, distinct_palette


@given(st.dictionaries(st.integers(0, 65535), st.sampled_from([0, 1, 2, 255]), min_size=1), st.data())
def test_mapped_values_become_their_targets(mapping, data):
    values = data.draw(st.lists(st.sampled_from(sorted(mapping)), min_size=1))
    labels = LabelMap(mapping, 3).apply(np.array([values]), "mask.png")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[mapping[value] for value in values]]


few_values = st.dictionaries(st.integers(0, 9), st.sampled_from([0, 1, 2, 255]), min_size=5)
masks = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
    elements=st.integers(0, 9),
)


@given(few_values, masks)
def test_a_mask_is_mapped_or_its_first_unknown_value_is_reported(mapping, mask):
    unknown = [(y, x) for y, x in np.ndindex(*mask.shape) if int(mask[y, x]) not in mapping]
    if not unknown:
        labels = LabelMap(mapping, 3).apply(mask, "m.png")
        assert labels.tolist() == [[mapping[value] for value in row] for row in mask.tolist()]
        return
    value = mask[unknown[0]]
    count = (mask == value).sum()
    place = f"value {value} is not one of the 3 classes: {count} pixel{'s' if count > 1 else ''}, the first at "
    with pytest.raises(InputError) as error:
        LabelMap(mapping, 3).apply(mask, "m.png")
    assert str(error.value).startswith(f"m.png: {place}x={unknown[0][1]}, y={unknown[0][0]}")
    others = len({int(mask[place]) for place in unknown}) - 1
    assert (f"(and {others} other such value" in str(error.value)) == (others > 0)


@given(st.integers(1, 255), st.data())
def test_identity_maps_classes_to_themselves_and_one_to_ignore(classes, data):
    ignore = data.draw(st.integers(classes, 65535))
    mask = np.array([[*range(classes), ignore]], np.uint16)
    assert LabelMap.identity(classes, ignore).apply(mask, "m.png").tolist() == [[*range(classes), 255]]


@pytest.fixture(scope="module")
def longest_palette():
    return distinct_palette(255)


@example(count=150)
@example(count=254)
@given(count=st.integers(1, 60))  # longer ones take up to 0.3 s each
def test_a_class_keeps_its_color_if_others_are_added(count, longest_palette):
    assert distinct_palette(count) == longest_palette[:count]


def test_a_mask_of_class_ids_gets_the_remedy_of_its_caller():
    with pytest.raises(InputError, match=r"value 12 is not a class id \(0 to 10\) in 1,200 pixels, .*; set 12"):
        LabelMap.identity(11).apply(np.full((30, 40), 12), "m.png", lambda value: f"set {value}")


def test_an_unknown_value_is_reported_with_count_and_position():
    mask = np.array([[0, 1, 1], [12, 12, 200], [255, 12, 0]])
    with pytest.raises(InputError) as error:
        LabelMap.identity(11).apply(mask, "masks/a.png")
    assert str(error.value) == (
        "masks/a.png: value 12 is not one of the 11 classes: 3 pixels, the first at x=0, y=1 (and 1 other such value); "
        "write ignore: [255, 12] in dataset.yaml to ignore it, or correct the mask"
    )
    with pytest.raises(InputError, match=r"add 12: ID to label_map in dataset.yaml \(or 12: 255 to ignore it\), or"):
        LabelMap({5: 0, 6: 1, 255: 255}, 2).apply(np.array([[5, 12]]), "m.png")


@pytest.mark.parametrize("value", [-1, 1 << 16, 1 << 30, -(1 << 31)])
def test_unknown_values_of_32_bit_masks_are_reported(value):
    with pytest.raises(InputError, match=f"value {value} is not one of the 3 classes: 1 pixel, the first at x=1, y=0"):
        LabelMap.identity(3).apply(np.array([[0, value]], np.int32), "m.png")


def test_a_0_255_mask_of_two_classes_is_recognized():
    with pytest.raises(InputError, match=r"write label_map: \{0: 0, 255: 1\}"):
        LabelMap({0: 0, 1: 1}, 2).apply(np.array([[0, 255]]), "m.png")


@pytest.mark.parametrize(
    ("mapping", "message"), [({0: 3}, "3 is not a class"), ({70000: 0}, "mask value 70000 is out of range")]
)
def test_an_invalid_label_map_is_refused(mapping, message):
    with pytest.raises(InputError, match=message):
        LabelMap(mapping, 3)


@pytest.mark.parametrize(
    ("names", "palette", "message"),
    [
        ((), (), "0 names"),
        (("a", "b", "a"), ((0, 0, 0),) * 3, "duplicate names: a"),
        (("a", "b"), ((0, 0, 0),), "1 colors for 2 classes"),
        *(
            ((name,), ((0, 0, 0),), "the name .* is not a line of text; use names without line breaks")
            for name in ("two\nlines", "\x1b[31mred", "bell\x07", "\x9b31m", "half \ud800", "\u2028")
        ),
        (tuple(map(str, range(256))), ((0, 0, 0),) * 256, "256 names"),
    ],
)
def test_invalid_classes_are_refused(names, palette, message):
    with pytest.raises(InputError, match=message):
        Classes(names, palette)


def test_colors_are_distinct_and_never_black():
    colors = distinct_palette(IGNORE)
    assert len(set(colors)) == IGNORE
    assert (0, 0, 0) not in colors
