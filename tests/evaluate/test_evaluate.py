"""One pass over predictions computes all metrics, for any order and split of the images."""

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


class RandomSamples:
    """`Samples` with random images of different sizes."""

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
    """Return logits of three classes."""
    return 2 * images


@cache
def predictions() -> tuple[Prediction, ...]:
    return tuple(predict_samples(brightest_channel, CARD, RandomSamples(), torch.device("cpu")))


def test_predictions_are_full_images_with_confidence():
    for sample, labels, confidence in predictions():
        assert np.array_equal(labels, sample.image.argmax(2))
        logits = 2 * (sample.image / 255 - 0.5) / 0.25
        expected = np.exp(logits.max(2)) / np.exp(logits).sum(2)
        assert np.allclose(confidence, expected, rtol=1e-5)


def test_evaluate_counts_like_measure_also_on_parts():
    device = torch.device("cpu")
    whole = measure(predictions(), RandomSamples())
    assert np.array_equal(evaluate(brightest_channel, CARD, RandomSamples(), device).matrix, whole.confusion.matrix)
    parts = [evaluate(brightest_channel, CARD, RandomSamples(), device, range(rank, 5, 2)).matrix for rank in (0, 1)]
    assert np.array_equal(sum(parts), whole.confusion.matrix)


@given(st.permutations(range(5)), st.integers(0, 5))
def test_metrics_do_not_depend_on_order_or_split(order, cut):
    everything = predictions()
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


def test_predictions_at_ignored_pixels_affect_no_metric():
    everything = predictions()
    changed = [
        Prediction(s, np.where(s.labels == 255, 2, p), np.where(s.labels == 255, np.float32(0), c))
        for s, p, c in everything
    ]
    assert any((p != q).any() for (_, p, _), (_, q, _) in zip(everything, changed, strict=True))
    assert measure(changed, RandomSamples()).as_dict() == measure(everything, RandomSamples()).as_dict()


def test_as_dict_holds_all_scores_as_valid_json():
    result = json.loads(json.dumps(measure(predictions(), RandomSamples()).as_dict(), allow_nan=False))
    assert 0 < result["miou"] < 1
    assert np.sum(result["confusion"]) == sum((RandomSamples()[i].labels != 255).sum() for i in range(5))
    assert list(result["boundary_f"]["mean"]) == ["1", "2", "3", "4", "5"]
    assert result["boundary_f"]["classes"].keys() == result["iou"].keys() == {"road", "car", "sign"}
    assert 0 < result["calibration"]["ece"] < 1
    assert sum(row["pixels"] for row in result["calibration"]["bins"]) == np.sum(result["confusion"])
    assert "cityscapes" not in result
    unlabeled = json.dumps(measure([], RandomSamples()).as_dict(), allow_nan=False)
    assert json.loads(unlabeled)["calibration"]["ece"] is None


def test_image_scores_equal_those_of_each_image_alone():
    everything = predictions()
    for prediction, row in zip(everything, measure(everything, RandomSamples()).images, strict=True):
        alone = measure([prediction], RandomSamples()).confusion.scores()
        assert (row.name, row.miou, row.pixel_accuracy) == (prediction.sample.name, alone.miou, alone.pixel_accuracy)
        assert alone.iou[CLASSES.names.index(row.worst_class)] == np.nanmin(alone.iou)


def test_other_classes_are_rejected_naming_the_first_difference():
    check_classes(CARD, RandomSamples(), "w.safetensors")
    other = Card({}, Classes.named(("road", "bus", "sign")), CARD.mean, CARD.std)
    with pytest.raises(InputError, match="class 1 is 'bus' here, 'car' there"):
        check_classes(other, RandomSamples(), "w.safetensors")
    fewer = Card({}, Classes.named(("road", "car")), CARD.mean, CARD.std)
    with pytest.raises(InputError, match=r"its classes differ from the dataset.s \(2 here, 3 there\)"):
        check_classes(fewer, RandomSamples(), "w.safetensors")
