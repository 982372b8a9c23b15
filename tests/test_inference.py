"""Pictures in, labels and confidence out, over any callable."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from danet.inference import normalise, resized, segment

CPU = torch.device("cpu")


def test_normalise_is_the_usual_formula_in_channels_last():
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    out = normalise(images, mean, std)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize(("size", "expected"), [((60, 80), (30, 40)), ((80, 60), (40, 30)), ((1, 4000), (1, 40))])
def test_the_long_side_is_brought_to_its_size(size, expected):
    assert resized(np.zeros((*size, 3), np.uint8), 40).shape == (*expected, 3)
    assert resized(np.zeros((*size, 3), np.uint8), None).shape == (*size, 3)


def brightness_as_class(images: torch.Tensor) -> torch.Tensor:
    """Three classes: dark, middle, bright; at half the resolution, as a network's grid would be."""
    grey = F.avg_pool2d(images.mean(1, keepdim=True), 2, ceil_mode=True)
    return torch.cat([-20 * (grey - level).square() for level in (0.0, 0.5, 1.0)], dim=1)


@pytest.mark.parametrize("long_side", [None, 32, 128])
def test_labels_and_confidence_come_at_the_pictures_own_size(long_side):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32:] = 255
    labels, confidence = segment(brightness_as_class, image, (0.0,) * 3, (1.0,) * 3, CPU, long_side)
    assert labels.shape == confidence.shape == (48, 64)
    assert set(labels[:, :28].ravel()) == {0}
    assert set(labels[:, 36:].ravel()) == {2}
    assert confidence[:, :28].min() > 0.98
    assert confidence[:, 28:36].min() < 0.95
    assert (confidence <= 1).all()
