"""Confusion matrix, boundary F, calibration and their outputs against restated definitions."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from danet.evaluate.boundary import Boundary, BoundaryScores
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion, to_json
from danet.evaluate.per_image import ImageScores, to_csv

label_maps = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.sampled_from([0, 1, 2, 255])
)
wide_maps = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 14)), elements=st.sampled_from([0, 0, 0, 1, 1, 2, 255])
)
seeds = st.integers(0, 2**32 - 1)


def confusion(labels: np.ndarray, prediction: np.ndarray, classes: int = 3) -> Confusion:
    counted = Confusion(classes)
    counted.update(labels, prediction)
    return counted


def boundary(labels: np.ndarray, prediction: np.ndarray, classes: int = 3) -> Boundary:
    counted = Boundary(classes)
    counted.update(labels, prediction)
    return counted


def calibration(labels: np.ndarray, prediction: np.ndarray, confidence: np.ndarray) -> Calibration:
    summed = Calibration()
    summed.update(labels, prediction, confidence)
    return summed


def guesses(labels: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, labels.shape).astype(np.uint8)


@given(label_maps, seeds)
def test_confusion_equals_scikit_learn(labels, seed):
    from sklearn import metrics  # its import takes seconds

    prediction = guesses(labels, seed)
    counted, valid = confusion(labels, prediction), labels != 255
    if not valid.any():
        assert not counted.matrix.any()
        return
    assert np.array_equal(counted.matrix, metrics.confusion_matrix(labels[valid], prediction[valid], labels=[0, 1, 2]))
    scores = counted.scores()
    present = np.union1d(labels[valid], prediction[valid])
    expected = metrics.jaccard_score(labels[valid], prediction[valid], labels=present, average=None)  # pyright: ignore
    assert scores.iou[present] == pytest.approx(expected)
    assert scores.miou == pytest.approx(np.mean(expected))
    assert scores.counted == len(present)
    assert scores.pixel_accuracy == pytest.approx(metrics.accuracy_score(labels[valid], prediction[valid]))


@given(st.lists(label_maps, min_size=1, max_size=4), st.randoms())
def test_confusion_does_not_depend_on_order_or_split(maps, random):
    whole, shuffled = Confusion(3), Confusion(3)
    for labels in maps:
        whole.update(labels, np.roll(labels, 1) % 3)
    pieces = [(row, other) for labels in maps for row, other in zip(labels, np.roll(labels, 1) % 3, strict=True)]
    random.shuffle(pieces)
    for row, other in pieces:
        shuffled.update(row, other)
    assert np.array_equal(whole.matrix, shuffled.matrix)


@given(label_maps, seeds, seeds)
def test_predictions_at_ignored_pixels_are_not_counted(labels, seed, other):
    prediction, ignored = guesses(labels, seed), labels == 255
    changed = np.where(ignored, guesses(labels, other), prediction)
    first, second = confusion(labels, prediction), confusion(labels, changed)
    assert np.array_equal(first.matrix, second.matrix)
    assert first.matrix.sum() == (~ignored).sum()
    sure = np.full(labels.shape, 0.5, np.float32)
    one, two = calibration(labels, prediction, sure), calibration(labels, changed, np.where(ignored, 1.0, sure))
    assert one.as_dict() == two.as_dict()


@given(label_maps, seeds, st.permutations(range(3)))
def test_permuting_the_classes_permutes_the_scores(labels, seed, order):
    table = np.full(256, 255, np.uint8)
    table[:3] = order
    prediction = guesses(labels, seed)
    first, second = (c.scores() for c in (confusion(labels, prediction), confusion(table[labels], table[prediction])))
    assert np.array_equal(second.iou[order], first.iou, equal_nan=True)
    assert [second.miou, second.mean_accuracy] == pytest.approx([first.miou, first.mean_accuracy], nan_ok=True)
    edges, renamed = boundary(labels, prediction), boundary(table[labels], table[prediction])
    assert np.array_equal(renamed.predicted[order], edges.predicted)
    assert np.array_equal(renamed.labeled[order], edges.labeled)


@given(st.lists(st.tuples(wide_maps, seeds), min_size=1, max_size=4), st.data())
def test_merged_parts_equal_the_whole(images, data):
    def new():
        return Confusion(3), Boundary(3), Calibration()

    wholes, merged, parts = new(), new(), []
    for labels, seed in images:
        prediction = guesses(labels, seed)
        sure = np.random.default_rng(seed).integers(0, 65, labels.shape) / 64  # their sums are exact in any order
        parts.append(
            (confusion(labels, prediction), boundary(labels, prediction), calibration(labels, prediction, sure))
        )
        for whole, more in zip(wholes, ((), (), (sure,)), strict=True):
            whole.update(labels, prediction, *more)
    for part in data.draw(st.permutations(parts)):
        for into, one in zip(merged, part, strict=True):
            into.merge(one)
    for whole, into in zip(wholes, merged, strict=True):
        assert all(np.array_equal(value, vars(into)[name]) for name, value in vars(whole).items())


def test_ignored_pixels_are_not_counted():
    counted = confusion(np.array([[0, 255, 255, 1]]), np.array([[0, 1, 2, 1]]))
    assert counted.matrix.sum() == 2
    assert counted.scores().miou == 1.0


@pytest.mark.parametrize(("labels", "prediction"), [([0, 3], [0, 0]), ([0, 255], [4, 4]), ([0, 0], [-1, 0])])
def test_pixels_of_no_class_are_not_counted_as_another(labels, prediction):
    with pytest.raises(ValueError, match="with 3 classes"):
        confusion(np.array(labels), np.array(prediction))


def test_absent_classes_are_excluded_and_false_ones_count_as_zero():
    absent = confusion(np.array([[0, 1]]), np.array([[0, 1]])).scores()
    assert np.isnan(absent.iou[2])
    assert (absent.miou, absent.counted) == (1.0, 2)
    invented = confusion(np.array([[0, 1]]), np.array([[0, 2]])).scores()
    assert invented.iou.tolist() == [1.0, 0.0, 0.0]
    assert invented.mean_accuracy == 0.5  # over the two labeled classes


def test_scores_without_pixels_are_null_in_json():
    scores = Confusion(2).scores()
    assert scores.as_dict(("a", "b")) == {
        "miou": None,
        "mean_accuracy": None,
        "pixel_accuracy": None,
        "classes_counted": 0,
        "iou": {"a": None, "b": None},
    }


def boundary_pixels(ids: np.ndarray, labels: np.ndarray, c: int) -> list[tuple[int, int]]:
    """Return the pixels of class c with a 4-neighbor of another class, neither of them ignored."""
    height, width = ids.shape
    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        if ids[y, x] == c
        and labels[y, x] != 255
        and any(
            0 <= v < height and 0 <= u < width and labels[v, u] != 255 and ids[v, u] != c
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        )
    ]


def share_near(pixels: list, others: list, d: int) -> float:
    near = [any((y - v) ** 2 + (x - u) ** 2 <= d**2 for v, u in others) for y, x in pixels]
    return float(np.mean(near)) if near else np.nan


@given(wide_maps, seeds)
def test_boundary_scores_equal_the_definition(labels, seed):
    prediction = guesses(labels, seed) // 2
    counted = boundary(labels, prediction)
    scores = counted.scores()
    for c in range(3):
        true, found = boundary_pixels(labels, labels, c), boundary_pixels(prediction, labels, c)
        assert (counted.labeled[c].sum(), counted.predicted[c].sum()) == (len(true), len(found))
        for column, d in enumerate((1, 2, 3, 4, 5)):
            precision, recall = share_near(found, true, d), share_near(true, found, d)
            assert scores.precision[c, column] == pytest.approx(precision, nan_ok=True)
            assert scores.recall[c, column] == pytest.approx(recall, nan_ok=True)
            if true and found:
                f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
                assert scores.f[c, column] == pytest.approx(f)
            else:
                assert scores.f[c, column] == 0 if true or found else np.isnan(scores.f[c, column])


@given(wide_maps)
def test_perfect_predictions_have_boundary_f_1(labels):
    f = boundary(labels, np.where(labels == 255, 0, labels)).scores().f
    assert (np.isnan(f) | (f == 1)).all()
    assert np.array_equal(~np.isnan(f[:, 0]), [bool(boundary_pixels(labels, labels, c)) for c in range(3)])


@pytest.mark.parametrize("shift", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("turned", [False, True], ids=["vertical edge", "horizontal edge"])
def test_an_edge_shifted_by_s_pixels_is_matched_within_s(shift, turned):
    labels, prediction = np.zeros((2, 9, 20), np.uint8)
    labels[:, 7:], prediction[:, 7 + shift :] = 1, 1
    counted = boundary(labels.T, prediction.T) if turned else boundary(labels, prediction)
    expected = [float(d >= shift) for d in (1, 2, 3, 4, 5)]
    assert counted.scores().f[:2].tolist() == [expected, expected]
    assert counted.scores().mean_f.tolist() == expected


@given(wide_maps, seeds, seeds)
def test_predictions_at_ignored_pixels_affect_no_boundary(labels, seed, other):
    prediction, ignored = guesses(labels, seed), labels == 255
    changed = np.where(ignored, guesses(labels, other), prediction)
    first, second = boundary(labels, prediction), boundary(labels, changed)
    assert np.array_equal(first.predicted, second.predicted)
    assert np.array_equal(first.labeled, second.labeled)
    assert first.predicted.sum() <= (~ignored).sum()


@given(hnp.arrays(np.uint8, (4, 12), elements=st.integers(0, 2)), seeds)
def test_swapping_labels_and_prediction_swaps_precision_and_recall(labels, seed):
    prediction = guesses(labels, seed)
    there, back = boundary(labels, prediction).scores(), boundary(prediction, labels).scores()
    assert np.array_equal(there.precision, back.recall, equal_nan=True)
    assert np.array_equal(there.f, back.f, equal_nan=True)
    assert (np.diff(there.f, axis=1)[~np.isnan(there.f[:, 0])] >= 0).all()  # a wider band finds no less


@given(wide_maps, seeds, st.integers(0, 3), st.booleans())
def test_boundaries_rotate_and_flip_with_the_image(labels, seed, quarters, mirrored):
    prediction = guesses(labels, seed)
    turned = [np.rot90(ids[:, ::-1] if mirrored else ids, quarters) for ids in (labels, prediction)]
    straight, other = boundary(labels, prediction), boundary(*turned)
    assert np.array_equal(straight.predicted, other.predicted)
    assert np.array_equal(straight.labeled, other.labeled)


def test_frame_and_ignored_regions_are_no_boundary():
    labels = np.array([[0, 0, 255, 1, 1]] * 3, np.uint8)
    scores = boundary(labels, np.zeros_like(labels)).scores()
    assert np.isnan(scores.f).all()
    assert np.isnan(scores.mean_f).all()
    assert scores.as_dict(("a", "b", "c"))["classes"]["a"] == dict.fromkeys("12345")


def test_mean_boundary_f_excludes_absent_classes():
    f = np.array([[0.2] * 5, [np.nan] * 5, [0.6] * 5])
    assert BoundaryScores(f, f, f).mean_f == pytest.approx([0.4] * 5)


@given(label_maps, seeds)
def test_reliability_table_equals_scikit_learn(labels, seed):
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(seed)
    prediction, valid = guesses(labels, seed), labels != 255
    confidence = rng.choice(np.linspace(0, 1, 31), labels.shape).astype(np.float32)  # many on the bins' borders
    summed = calibration(labels, prediction, confidence)
    filled = [row for row in summed.table() if row.pixels]
    assert sum(row.pixels for row in filled) == valid.sum()
    if not valid.any():
        assert np.isnan(summed.error)
        return
    right, sure = labels[valid] == prediction[valid], confidence[valid].astype(float)
    accuracy, mean_confidence = calibration_curve(right, sure, n_bins=15)
    assert [row.accuracy for row in filled] == pytest.approx(accuracy.tolist())
    assert [row.confidence for row in filled] == pytest.approx(mean_confidence.tolist())
    assert all(row.low < row.confidence <= row.high + 1e-7 or row.confidence == 0 for row in filled)
    shares = np.array([row.pixels for row in filled]) / valid.sum()
    assert summed.error == pytest.approx((shares * np.abs(accuracy - mean_confidence)).sum())


def test_calibrated_confidence_has_no_calibration_error():
    labels, confidence = np.zeros(100, np.uint8), np.full(100, 0.75, np.float32)
    prediction = np.repeat(np.array([0, 1], np.uint8), [75, 25])
    assert calibration(labels, prediction, confidence).error == 0
    assert calibration(labels, np.zeros_like(labels), confidence).error == pytest.approx(0.25)
    assert calibration(labels, np.ones_like(labels), np.ones_like(confidence)).error == 1


def test_calibration_has_fifteen_bins_of_equal_width():
    table = Calibration().table()
    assert [(row.low, row.high) for row in table] == [(i / 15, (i + 1) / 15) for i in range(15)]
    assert all(row.pixels == 0 and np.isnan(row.confidence) and np.isnan(row.accuracy) for row in table)


def test_calibration_bins_include_their_upper_edge():
    confidence = np.array([0.0, 0.2, np.nextafter(0.2, 1), 1.0])
    labels = np.zeros(4, np.uint8)
    assert [i for i, row in enumerate(calibration(labels, labels, confidence).table()) if row.pixels] == [0, 2, 3, 14]


def test_image_scores_cover_present_classes_and_the_worst():
    names = ("road", "car", "sign")
    row = ImageScores.of("a", confusion(np.array([[0, 0, 1, 255]]), np.array([[0, 0, 0, 2]])), names)
    assert row == ("a", pytest.approx((2 / 3 + 0) / 2), pytest.approx(2 / 3), "car")
    both_zero = confusion(np.array([[0, 1, 1, 1]]), np.array([[0, 2, 0, 0]]))
    assert ImageScores.of("b", both_zero, names).worst_class == "car"  # three pixels, not one


def test_csv_of_images_round_trips_special_names():
    empty = ImageScores.of("nothing labeled", Confusion(2), ("a", "b"))
    text = to_csv([ImageScores('x,"y"\n', 0.5, 1.0, "traffic, sign"), empty])
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "miou", "pixel_accuracy", "worst_class"],
        ['x,"y"\n', "0.500000", "1.000000", "traffic, sign"],
        ["nothing labeled", "", "", ""],
    ]


@given(st.lists(st.tuples(st.text(max_size=9), st.floats(0, 1), st.text(max_size=9)), max_size=2))
def test_csv_of_images_round_trips_any_name(rows):
    text = to_csv(ImageScores(name, score, 1.0, worst) for name, score, worst in rows)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[1:] == [[cell(name), f"{score:.6f}", "1.000000", cell(worst)] for name, score, worst in rows]


def cell(text: str) -> str:
    return "'" + text if text and text[0] in "=+-@\t\r" else text


def test_names_in_csv_are_no_formulas_of_spreadsheets():
    text = to_csv([ImageScores("=1+1", 0.5, 1.0, "@x"), ImageScores("a=b", 0.5, 1.0, "x-y")])
    rows = list(csv.reader(io.StringIO(text)))[1:]
    assert [(row[0], row[3]) for row in rows] == [("'=1+1", "'@x"), ("a=b", "x-y")]


numbers = st.floats(allow_infinity=False) | st.integers(-5, 5) | st.none() | st.sampled_from("ab")


@given(st.recursive(numbers, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("xyz"), inner)))
def test_to_json_replaces_only_nan_by_null(value):
    text = json.dumps(to_json(value), allow_nan=False)
    assert text == json.dumps(value).replace("NaN", "null")
