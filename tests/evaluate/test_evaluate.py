"""One pass over predictions gives every score, whatever the order and the split of the images."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from danet.data.classes import Classes
from danet.data.images.channels import RGB
from danet.data.samples import Sample
from danet.errors import InputError
from danet.evaluate.evaluation import Evaluation, check_classes, evaluate, measure
from danet.predict.inference import predict_samples
from danet.predict.segmentation import Prediction
from danet.weights.file import Card

CLASSES = Classes.named(("road", "car", "sign"))
CARD = Card({}, CLASSES, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Drawn:
    """`Samples` of random images of different sizes."""

    classes = CLASSES
    bands = RGB

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        size = (6 + index, 9)
        labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), size, p=(0.6, 0.2, 0.1, 0.1))
        return Sample(f"p{index}", rng.integers(0, 256, (*size, 3), np.uint8), labels)

    def labels(self, index: int) -> np.ndarray:
        return self[index].labels


def brightest_channel(images: torch.Tensor) -> torch.Tensor:
    """A network of three classes."""
    return 2 * images


@cache
def predicted() -> tuple[Prediction, ...]:
    return tuple(predict_samples(brightest_channel, CARD, Drawn(), torch.device("cpu")))


def test_predictions_are_whole_images_with_their_confidence():
    for sample, labels, confidence in predicted():
        assert np.array_equal(labels, sample.image.argmax(2))
        logits = 2 * (sample.image / 255 - 0.5) / 0.25
        expected = np.exp(logits.max(2)) / np.exp(logits).sum(2)
        assert np.allclose(confidence, expected, rtol=1e-5)


def test_the_quick_way_that_validates_counts_the_same_and_takes_a_part_of_the_samples():
    device = torch.device("cpu")
    whole = measure(predicted(), Drawn())
    assert np.array_equal(evaluate(brightest_channel, CARD, Drawn(), device).matrix, whole.confusion.matrix)
    parts = [evaluate(brightest_channel, CARD, Drawn(), device, range(rank, 5, 2)).matrix for rank in (0, 1)]
    assert np.array_equal(sum(parts), whole.confusion.matrix)


@given(st.permutations(range(5)), st.integers(0, 5))
def test_order_and_split_of_the_images_do_not_matter(order, cut):
    everything = predicted()
    whole, merged, other = (Evaluation(CLASSES) for _ in range(3))
    for prediction in everything:
        whole.update(prediction)
    for place, index in enumerate(order):
        (merged if place < cut else other).update(everything[index])
    merged.merge(other)
    assert np.array_equal(merged.confusion.matrix, whole.confusion.matrix)
    assert np.array_equal(merged.boundary.predicted, whole.boundary.predicted)
    assert np.array_equal(merged.boundary.labeled, whole.boundary.labeled)
    assert np.array_equal(merged.calibration.pixels, whole.calibration.pixels)
    assert np.array_equal(merged.calibration.correct, whole.calibration.correct)
    assert np.allclose(merged.calibration.confidence, whole.calibration.confidence, rtol=1e-13)
    assert sorted(merged.images) == whole.images


def test_nothing_is_learnt_from_what_lies_under_ignored_pixels():
    everything = predicted()
    lied = [
        Prediction(s, np.where(s.labels == 255, 2, p), np.where(s.labels == 255, np.float32(0), c))
        for s, p, c in everything
    ]
    assert any((p != q).any() for (_, p, _), (_, q, _) in zip(everything, lied, strict=True))
    assert measure(lied, Drawn()).as_dict() == measure(everything, Drawn()).as_dict()


def test_the_answer_holds_every_score_in_plain_json():
    result = json.loads(json.dumps(measure(predicted(), Drawn()).as_dict(), allow_nan=False))
    assert 0 < result["miou"] < 1
    assert np.sum(result["confusion"]) == sum((Drawn()[i].labels != 255).sum() for i in range(5))
    assert list(result["boundary_f"]["mean"]) == ["1", "2", "3", "4", "5"]
    assert result["boundary_f"]["classes"].keys() == result["iou"].keys() == {"road", "car", "sign"}
    assert 0 < result["calibration"]["ece"] < 1
    assert sum(row["pixels"] for row in result["calibration"]["bins"]) == np.sum(result["confusion"])
    assert "cityscapes" not in result
    unlabeled = json.dumps(measure([], Drawn()).as_dict(), allow_nan=False)
    assert json.loads(unlabeled)["calibration"]["ece"] is None


def test_the_rows_of_the_images_are_those_of_each_alone():
    everything = predicted()
    for prediction, row in zip(everything, measure(everything, Drawn()).images, strict=True):
        alone = measure([prediction], Drawn()).confusion.scores()
        assert (row.name, row.miou, row.pixel_accuracy) == (prediction.sample.name, alone.miou, alone.pixel_accuracy)
        assert alone.iou[CLASSES.names.index(row.worst_class)] == np.nanmin(alone.iou)


def test_a_network_of_other_classes_is_refused_with_the_first_that_differs():
    check_classes(CARD, Drawn(), "w.safetensors")
    other = Card({}, Classes.named(("road", "bus", "sign")), CARD.mean, CARD.std)
    with pytest.raises(InputError, match="class 1 is 'bus', not 'car'"):
        check_classes(other, Drawn(), "w.safetensors")
    fewer = Card({}, Classes.named(("road", "car")), CARD.mean, CARD.std)
    with pytest.raises(InputError, match="the network has 2 classes, the dataset 3"):
        check_classes(fewer, Drawn(), "w.safetensors")
