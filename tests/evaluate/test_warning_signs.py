"""What a run warns of: classes never predicted, no better than one class, imbalance, a rising validation loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from danet import recipes
from danet.data.classes import Classes, distinct_palette
from danet.evaluate.confusion import Confusion
from danet.evaluate.cross_entropy import CrossEntropy
from danet.evaluate.warning_signs import warning_signs

CLASSES = Classes(("road", "wire", "sky"), tuple(distinct_palette(3)))
GOOD = [[50, 2, 0], [1, 20, 0], [0, 0, 30]]


def signs(matrix: list[list[int]], losses: tuple[float, ...] = (), recipe: recipes.Recipe = recipes.TOY) -> list[str]:
    confusion = Confusion(3)
    confusion.matrix = np.array(matrix, np.int64)
    history = [{"epoch": float(i + 1), "validation_loss": loss} for i, loss in enumerate(losses)]
    return warning_signs(recipe, CLASSES, confusion, history)


def test_good_results_have_no_warning():
    assert signs(GOOD, (0.9, 0.5, 0.4, 0.45)) == []


def test_classes_never_predicted_are_named():
    (line,) = signs([[50, 0, 5], [20, 0, 1], [0, 0, 30]])
    assert line.startswith("never predicted, IoU 0: wire (1 of 3 classes in the validation images); train longer")
    weighted = recipes.with_settings(recipes.TOY, {"class_weights": "auto", "data.rare": 0.3})
    (line,) = signs([[50, 0, 5], [20, 0, 1], [0, 0, 30]], recipe=weighted)
    assert line.endswith("; train longer")


def test_predicting_one_class_is_no_better_than_the_majority_class():
    first, second = signs([[60, 0, 0], [20, 0, 0], [20, 0, 0]])
    assert first.startswith("mIoU 20.0% is no better than predicting road for every pixel (20.0%)")
    assert "wire, sky (2 of 3" in second


def test_rare_classes_are_named_unless_the_loss_weights_them():
    matrix = [[9000, 0, 0], [10, 20, 0], [0, 0, 3000]]
    (line,) = signs(matrix)
    assert line.startswith("strong imbalance, share of the labeled pixels: wire 0.25%; judge")
    for recipe in (
        replace(recipes.TOY, class_weights="auto"),
        replace(recipes.TOY, criterion=replace(recipes.TOY.criterion, dice=1.0)),
        replace(recipes.TOY, criterion=replace(recipes.TOY.criterion, pixel="focal")),
    ):
        assert signs(matrix, recipe=recipe) == []


@pytest.mark.parametrize(
    ("losses", "rises"),
    [
        ((0.9, 0.4, 0.5, 0.55, 0.6), True),
        ((0.9, 0.4, 0.6, 0.7), False),  # the lowest is too recent
        ((0.9, 0.4, 0.41, 0.42, 0.43), False),  # too little
        ((float("nan"),) * 5, False),
    ],
)
def test_a_rising_validation_loss_is_reported(losses, rises):
    lines = signs(GOOD, losses)
    assert bool(lines) == rises
    if rises:
        assert lines[0].startswith("the validation loss rises: 0.400 in epoch 2, 0.600 in epoch 5")


def test_without_labeled_pixels_there_is_only_that_warning():
    assert signs([[0] * 3] * 3) == ["no validation image has labeled pixels, so there are no scores; run danet check"]


def test_cross_entropy_of_parts_is_the_mean_over_labeled_pixels():
    logits, labels = torch.randn(4, 6, 8), torch.randint(0, 4, (6, 8)).to(torch.uint8)
    labels[0] = 255
    loss = CrossEntropy()
    for rows in (slice(0, 2), slice(2, 6)):
        loss.update(logits[:, rows], labels[rows].numpy())
    expected = F.cross_entropy(logits[None], labels[None].long(), ignore_index=255)
    assert loss.sums[1] == 40
    assert loss.mean == pytest.approx(expected.item(), rel=1e-5)
    assert np.isnan(CrossEntropy().mean)
