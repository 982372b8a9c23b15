"""The confusion matrix and its scores, to the integer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from danet.metrics import Confusion

label_maps = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.sampled_from([0, 1, 2, 255])
)


def confusion(labels: np.ndarray, prediction: np.ndarray, classes: int = 3) -> Confusion:
    counted = Confusion(classes)
    counted.update(labels, prediction)
    return counted


@given(label_maps, st.integers(0, 2**32 - 1))
def test_it_equals_scikit_learns(labels, seed):
    prediction = np.random.default_rng(seed).integers(0, 3, labels.shape).astype(np.uint8)
    counted, valid = confusion(labels, prediction), labels != 255
    if not valid.any():
        assert not counted.matrix.any()
        return
    assert np.array_equal(counted.matrix, confusion_matrix(labels[valid], prediction[valid], labels=[0, 1, 2]))
    scores = counted.scores()
    present = np.union1d(labels[valid], prediction[valid])
    expected = jaccard_score(labels[valid], prediction[valid], labels=present, average=None)
    assert scores.iou[present] == pytest.approx(expected)
    assert scores.miou == pytest.approx(np.mean(expected))
    assert scores.counted == len(present)
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(labels[valid], prediction[valid]))


@given(st.lists(label_maps, min_size=1, max_size=4), st.randoms())
def test_order_and_split_of_the_pictures_do_not_matter(maps, random):
    whole, shuffled = Confusion(3), Confusion(3)
    for labels in maps:
        whole.update(labels, np.roll(labels, 1) % 3)
    pieces = [(row, other) for labels in maps for row, other in zip(labels, np.roll(labels, 1) % 3, strict=True)]
    random.shuffle(pieces)
    for row, other in pieces:
        shuffled.update(row, other)
    assert np.array_equal(whole.matrix, shuffled.matrix)


def test_ignored_pixels_never_count():
    counted = confusion(np.array([[0, 255, 255, 1]]), np.array([[0, 1, 2, 1]]))
    assert counted.matrix.sum() == 2
    assert counted.scores().miou == 1.0


def test_a_class_in_neither_is_left_out_and_one_wrongly_predicted_counts_as_zero():
    absent = confusion(np.array([[0, 1]]), np.array([[0, 1]])).scores()
    assert np.isnan(absent.iou[2])
    assert (absent.miou, absent.counted) == (1.0, 2)
    invented = confusion(np.array([[0, 1]]), np.array([[0, 2]])).scores()
    assert invented.iou.tolist() == [1.0, 0.0, 0.0]
    assert invented.mean_accuracy == 0.5  # over the two labelled classes


def test_scores_of_nothing_are_not_a_number_and_become_null():
    scores = Confusion(2).scores()
    assert scores.as_dict(("a", "b")) == {
        "miou": None,
        "mean_accuracy": None,
        "pixel_accuracy": None,
        "classes_counted": 0,
        "iou": {"a": None, "b": None},
    }
