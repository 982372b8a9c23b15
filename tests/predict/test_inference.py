"""Labels and confidence of an image, with any function as the network."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from danet.data.images.channels import resize_long_side
from danet.model.preprocess import normalize
from danet.predict.inference import Inference, labels_from_logits
from danet.predict.protocols import PROTOCOLS, WHOLE, Protocol
from danet.predict.sliding_window import scaled_size

CPU = torch.device("cpu")


def test_normalize_is_the_usual_formula_in_channels_last():
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    out = normalize(images, mean, std)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize(("size", "expected"), [((60, 80), (30, 40)), ((80, 60), (40, 30)), ((1, 4000), (1, 40))])
def test_images_are_resized_to_the_long_side(size, expected):
    assert resize_long_side(np.zeros((*size, 3), np.uint8), 40).shape == (*expected, 3)
    assert resize_long_side(np.zeros((*size, 3), np.uint8), None).shape == (*size, 3)
    assert resize_long_side(np.zeros((2, 1, 3), np.uint8), 3).shape == (3, 2, 3)  # N = long side
    assert resize_long_side(np.zeros((2, 1, 3), np.uint8), 8).shape == (8, 4, 3)


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(1, 3000), st.floats(0.1, 3))
def test_images_keep_their_aspect_ratio_at_every_scale(height, width, base, scale):
    scaled = scaled_size((height, width), scale, base)
    assert max(scaled) == math.ceil(base * scale)
    assert min(scaled) >= 1
    assert abs(min(scaled) - max(scaled) * min(height, width) / max(height, width)) <= 0.5 + (min(scaled) == 1)
    if height != width:
        assert (scaled[0] > scaled[1]) <= (height > width)
        assert scaled_size((width, height), scale, base) == scaled[::-1]


@given(sides, sides, st.integers(1, 300))
def test_a_short_side_limits_the_longer_side_to_four_times_it(height, width, short):
    base = Protocol(short_side=short).base(height, width)
    assert base == Protocol(short_side=short).base(width, height)
    assert base is not None
    assert short <= base <= 4 * short
    assert base == 4 * short or abs(base - short * max(height, width) / min(height, width)) <= 0.5


@given(
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    st.sampled_from([None, 7, 16]),
    st.sampled_from(sorted(PROTOCOLS)),
    st.integers(1, 9),
)
def test_every_pixel_is_covered_with_equal_weight(size, long_side, name, batch):
    """No pixel is left out and none is counted twice, whatever the windows, scales and padding."""
    protocol = replace(PROTOCOLS[name], scales=PROTOCOLS[name].scales[::3])
    if protocol.crop is not None:
        protocol = replace(protocol, crop=12, long_side=protocol.long_side and 18)
    protocol = replace(protocol, short_side=protocol.short_side and 9)
    scores = torch.tensor([0.0, 2.0, 1.0]).view(1, 3, 1, 1)
    net = lambda images: scores.expand(len(images), 3, *images.shape[2:])  # noqa: E731
    image = np.zeros((*size, 3), np.uint8)
    labels, confidence = Inference(net, (0.5,) * 3, (0.2,) * 3, CPU, long_side, protocol, batch).segment(image)
    assert (labels == 1).all()
    sharper = 2 if protocol.average == "exp" and protocol.flip else 1  # the sum of both logits
    np.testing.assert_allclose(confidence, torch.softmax(sharper * scores, 1)[0, 1].item(), rtol=1e-5)


def brightness_as_class(images: torch.Tensor) -> torch.Tensor:
    """Three classes: dark, middle, bright; at half the resolution, as a network's grid would be."""
    gray = F.avg_pool2d(images.mean(1, keepdim=True), 2, ceil_mode=True)
    return torch.cat([-20 * (gray - level).square() for level in (0.0, 0.5, 1.0)], dim=1)


@pytest.mark.parametrize("long_side", [None, 32, 128])
def test_labels_and_confidence_have_the_images_own_size(long_side):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32:] = 255
    labels, confidence = Inference(brightness_as_class, (0.0,) * 3, (1.0,) * 3, CPU, long_side).segment(image)
    assert labels.shape == confidence.shape == (48, 64)
    assert set(labels[:, :28].ravel()) == {0}
    assert set(labels[:, 36:].ravel()) == {2}
    assert confidence[:, :28].min() > 0.98
    assert confidence[:, 28:36].min() < 0.95
    assert (confidence <= 1).all()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("long_side", [None, 32, 128])
def test_labels_from_logits_equal_those_of_segment(long_side, align_corners):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    protocol = replace(WHOLE, align_corners=align_corners)
    inputs = resize_long_side(image, long_side)
    logits = brightness_as_class(normalize(torch.tensor(inputs)[None], (0.0,) * 3, (1.0,) * 3))
    expected = Inference(brightness_as_class, (0.0,) * 3, (1.0,) * 3, CPU, long_side, protocol).segment(image)
    for found, own in zip(labels_from_logits(logits, inputs.shape[:2], (48, 64), align_corners), expected, strict=True):
        assert np.array_equal(found, own)
