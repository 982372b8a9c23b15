"""What a predictor accepts as an image: arrays and tensors of several kinds, and lists of images."""

import inspect
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from danet import InputError
from danet.data.images.channels import RGB, Bands
from danet.predict import predictor as predictor_module
from danet.predict.pixels import read_pixels
from danet.predict.predictor import load
from danet.predict.protocols import WHOLE, as_protocol, find_protocol

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
GRAY = IMAGE[..., 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_from_0_to_1_are_the_pixels_they_came_from(dtype):
    _, pixels = read_pixels((IMAGE / 255).astype(dtype))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, IMAGE)


@pytest.mark.parametrize(
    "gray",
    [GRAY, GRAY[..., None], GRAY / 255, torch.tensor(GRAY), torch.tensor(GRAY)[None], torch.tensor(GRAY / 255)[None]],
)
def test_a_single_band_is_gray_for_a_network_of_rgb(gray):
    name, pixels = read_pixels(gray)
    assert name == "image"
    assert np.array_equal(pixels, GRAY[..., None].repeat(3, axis=2))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_tensors_have_the_bands_first(dtype):
    tensor = torch.tensor(IMAGE).permute(2, 0, 1)
    tensor = tensor if dtype == torch.uint8 else tensor.to(dtype) / 255
    assert np.array_equal(read_pixels(tensor)[1], IMAGE)
    assert np.array_equal(read_pixels(tensor.requires_grad_(dtype != torch.uint8))[1], IMAGE)


def test_half_precision_tensors_are_read_within_their_precision():
    _, pixels = read_pixels((torch.tensor(IMAGE).permute(2, 0, 1) / 255).bfloat16())
    assert np.abs(pixels.astype(int) - IMAGE).max() <= 1


def test_16_bits_keep_their_precision():
    stored = IMAGE.astype(np.uint16) * 257 + 3
    expected = stored.clip(max=65535) / 257
    np.testing.assert_allclose(read_pixels(stored.clip(max=65535))[1], expected, rtol=1e-6)
    np.testing.assert_allclose(read_pixels(torch.tensor(stored).permute(2, 0, 1))[1], stored / 257, rtol=1e-6)


def test_numbers_for_other_bands_stay_floating_point():
    stored = np.random.default_rng(0).random((6, 7, 5), np.float32)
    _, pixels = read_pixels(stored, Bands(5))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, stored * np.float32(255))
    assert read_pixels(stored[..., 0], Bands(1, white=10000))[1].max() <= 255  # 1 is white


@pytest.mark.parametrize(
    ("image", "bands", "text"),
    [
        (np.zeros((4, 4, 2), np.uint8), RGB, r"array has shape \(4, 4, 2\) and type uint8; use H,W,3 RGB, or H,W gray"),
        (np.zeros((0, 4, 3), np.uint8), RGB, r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), RGB, r"type int64; use H,W,3 RGB, or H,W gray, uint8, uint16 or floating"),
        (np.zeros((2, 4, 4, 3), np.uint8), RGB, "for several images, a list of them"),
        (np.zeros(4, np.uint8), RGB, r"shape \(4,\)"),
        (np.zeros((4, 4), np.uint8), Bands(4), r"use H,W,4, uint8"),
        (torch.zeros(4, 4, 3), RGB, r"tensor has shape \(4, 4, 3\) and type float32; use 3,H,W RGB, or H,W gray"),
        (torch.zeros(2, 3, 4, 4), RGB, r"tensor has shape \(2, 3, 4, 4\)"),
        (np.full((4, 4, 3), -0.1), RGB, r"array of float64 has numbers from -0\.1 to -0\.1, but 0 must be black"),
        (torch.full((3, 4, 4), 255.0), RGB, "tensor of float32 has numbers from 255 to 255"),
        (np.full((4, 4, 3), np.nan), RGB, "numbers from nan to nan"),
    ],
)
def test_other_arrays_are_refused_in_one_line(image, bands, text):
    with pytest.raises(InputError, match=rf"^image: [^\n]*{text}"):
        read_pixels(image, bands)


def test_a_list_of_images_gives_a_list_of_segmentations(tiny_weights, tmp_path):
    predictor = load(tiny_weights)
    Image.fromarray(IMAGE[:30]).save(tmp_path / "a.png")
    first, second = predictor([tmp_path / "a.png", IMAGE])
    assert (first.name, first.labels.shape, second.labels.shape) == ("a", (30, 56), (40, 56))
    assert np.array_equal(second.confidence, predictor(IMAGE).confidence)
    assert predictor(()) == []
    assert [one.name for one in predictor((str(tmp_path / "a.png"),), size=64)] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((IMAGE, "papermulti"), "protocol: 'papermulti' is unknown; did you mean paper-multi?"),
        ((IMAGE, "whole", 0), "size: must be at least 1 pixel, got 0"),
        ((b"content of a file",), "image: is of type bytes; use a path, a Pillow image, an array or a tensor"),
    ],
)
def test_other_arguments_are_refused_in_one_line(tiny_weights, arguments, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}"):
        load(tiny_weights)(*arguments)


def test_arguments_of_other_types_are_refused_in_one_line():
    """Without the type checker of these tests, which users do not have."""
    check_size, to_protocol = (inspect.unwrap(checked) for checked in (predictor_module._check_size, as_protocol))
    for size in ("320", 320.5, True):
        with pytest.raises(InputError, match=f"^size: must be a whole number, got {size!r}; use the long side"):
            check_size(size, (1, 1), WHOLE)
    check_size(np.int64(320), (1, 1), WHOLE)
    with pytest.raises(InputError, match=r"^protocol: is of type int; use a Protocol or a name, such as whole"):
        to_protocol(3)


def test_a_protocol_may_be_given_by_its_name(tiny_weights, tmp_path):
    predictor, name = load(tiny_weights), "mmseg-slide-769"
    result = predictor(IMAGE, name, 64)
    assert np.array_equal(result.labels, predictor(IMAGE, find_protocol(name), 64).labels)
    result.save(tmp_path)
    settings = json.loads((tmp_path / "image.json").read_text())["settings"]
    expected = {"weights": predictor.fingerprint, "size": 64, "protocol": name, "dtype": "float32"}
    assert settings == expected
