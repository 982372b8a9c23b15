"""Protocols: windows, scales, flips and averaging, compared with the released code and a plain computation."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from protocol_networks import (
    BLACK,
    CLASSES,
    MEAN,
    STD,
    at_stride_4,
    pixel_by_pixel,
    random_image,
    sees_neighbors,
    whole_map,
)
from released import fill_module
from torch.utils._python_dispatch import TorchDispatchMode

from danet import InputError
from danet.predict import protocols, resampling
from danet.predict.inference import Inference
from danet.predict.protocols import PROTOCOLS, Protocol
from danet.predict.sliding_window import averaged, scaled_size, spans, visits

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["single", "multi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_equal_those_of_the_released_evaluator(golden_folder, name, dtype):
    fill = fill_module(golden_folder)
    golden = json.loads((golden_folder / f"official_protocol_{name}.json").read_text())
    expected = np.load(golden_folder / f"official_protocol_{name}.npz")["scores"][0]
    classes = golden["num_classes"]
    shapes = {"a.weight": (8, 3, 3, 3), "a.bias": (8,), "b.weight": (classes, 8, 3, 3), "b.bias": (classes,)}
    state = {key: tensor.to(dtype) for key, tensor in fill.fill(shapes, golden["seed"]).items()}

    def network(images):
        hidden = F.relu(F.conv2d(images, state["a.weight"], state["a.bias"], padding=1))
        return F.conv2d(hidden, state["b.weight"], state["b.bias"], padding=1)

    protocol = replace(
        PROTOCOLS[f"released-{name}-cityscapes"],
        crop=golden["crop"],
        stride=golden["stride"] / golden["crop"],
        scales=tuple(golden["scales"]),
        long_side=golden["base_size"],
    )
    assert protocol.flip == golden["flip"]
    image = fill.image_batch(golden["seed"], tuple(golden["shape"])).to(dtype)
    out = whole_map(network, image, tuple(golden["shape"][2:]), protocol).numpy()
    assert out.dtype == np.dtype(str(dtype).removeprefix("torch."))
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def plainly(net, image, size, protocol: Protocol) -> torch.Tensor:
    """Compute the same with whole maps, after the descriptions of the released evaluator and of mmsegmentation's."""

    def resize(x, to):
        return F.interpolate(x, to, mode="bilinear", align_corners=protocol.align_corners)

    def answer(window):
        logits = resize(net(window), window.shape[2:])
        if not protocol.flip:
            return {"logits": logits, "softmax": logits.softmax(1), "exp": logits.exp()}[protocol.average]
        other = resize(net(window.flip(-1)), window.shape[2:]).flip(-1)
        if protocol.average == "exp":
            return (logits + other).exp()
        return (logits + other) / 2 if protocol.average == "logits" else (logits.softmax(1) + other.softmax(1)) / 2

    total = torch.zeros(1, CLASSES, *size, dtype=torch.float64)
    for scale in protocol.scales:
        long = math.ceil((protocol.long_side or max(image.shape[2:])) * scale)
        height, width = (max(1, int(side * long / max(image.shape[2:]) + 0.5)) for side in image.shape[2:])
        scaled = resize(image, (height, width))
        crop = protocol.crop or max(height, width)
        step = max(1, int(crop * protocol.stride))
        padded = BLACK.repeat(1, 1, height + 2 * crop, width + 2 * crop)
        padded[..., :height, :width] = scaled
        sums, count = torch.zeros(1, CLASSES, height, width, dtype=torch.float64), torch.zeros(height, width)
        for y in range(0, max(height - crop, 0) + step, step):
            for x in range(0, max(width - crop, 0) + step, step):
                if protocol.windows == "shifted" or protocol.crop is None:
                    bottom, right = min(y + crop, height), min(x + crop, width)
                    top, left = max(bottom - crop, 0), max(right - crop, 0)
                    window = scaled[..., top:bottom, left:right]
                else:
                    top, left, bottom, right = y, x, min(y + crop, height), min(x + crop, width)
                    window = padded[..., top : top + crop, left : left + crop]
                sums[..., top:bottom, left:right] += answer(window)[..., : bottom - top, : right - left]
                count[top:bottom, left:right] += 1
        total += resize(sums / count, size)
    return (total if protocol.average == "exp" else total / len(protocol.scales))[0]


fields = st.fixed_dictionaries(
    {
        "crop": st.none() | st.integers(6, 20),
        "stride": st.sampled_from([1.0, 1 / 2, 2 / 3]),
        "windows": st.sampled_from(["released", "shifted"]),
        "scales": st.lists(st.sampled_from([0.4, 0.75, 1.0, 1.3, 2.2]), min_size=1, max_size=2).map(tuple),
        "flip": st.booleans(),
        "average": st.sampled_from(["logits", "softmax", "exp"]),
        "long_side": st.none() | st.integers(8, 20),
        "align_corners": st.booleans(),
    }
)
sides = st.tuples(st.integers(1, 16), st.integers(1, 16))


@given(fields, sides, st.sampled_from([sees_neighbors, at_stride_4]), st.integers(1, 9), st.integers(1, 5000))
def test_scores_equal_the_plain_computation(fields, size, net, batch, elements):
    protocol, image = Protocol(**fields), random_image(*size) / 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "TILE_ELEMENTS", elements)
        out = whole_map(net, image, size, protocol, batch)
    torch.testing.assert_close(out, plainly(net, image, size, protocol))


@given(fields, sides, sides)
def test_windows_and_flips_change_nothing_for_a_pixelwise_network(fields, input_size, size):
    image, protocol = random_image(*input_size), Protocol(**fields)
    whole = replace(protocol, crop=None, flip=False)
    if protocol.average == "exp" and protocol.flip:  # the sum of both logits
        twice = lambda images: 2 * pixel_by_pixel(images)  # noqa: E731
        expected = whole_map(twice, image, size, whole)
    else:
        expected = whole_map(pixel_by_pixel, image, size, whole)
    torch.testing.assert_close(whole_map(pixel_by_pixel, image, size, protocol), expected)


@pytest.mark.parametrize("average", ["logits", "softmax", "exp"])
def test_the_batch_size_does_not_change_the_result(average):
    protocol = Protocol(crop=12, stride=0.5, flip=True, average=average)
    results, batches = [], {}
    for batch in (1, 2, 5, 100):
        batches[batch] = []
        net = lambda images, sizes=batches[batch]: sizes.append(len(images)) or sees_neighbors(images)  # noqa: E731
        results.append(whole_map(net, random_image(20, 30), (20, 30), protocol, batch))
    assert {sum(sizes) for sizes in batches.values()} == {24}  # 3 x 4 windows, flipped too
    assert [max(sizes) for sizes in batches.values()] == [1, 2, 4 if average == "exp" else 5, 24]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@given(
    st.integers(1, 300), st.none() | st.integers(1, 80), st.floats(0.01, 1), st.sampled_from(["released", "shifted"])
)
def test_windows_cover_every_pixel_and_visits_are_counted(side, crop, stride, windows):
    found = spans(side, crop, stride, windows)
    assert [sum(p in span for span in found) for p in range(side)] == visits(side, found)
    assert min(visits(side, found)) >= 1
    assert all(0 <= span.start < span.stop <= side for span in found)
    assert len({span.start for span in found}) == len(found)
    if crop is None:
        assert found == [range(side)]
    elif windows == "shifted":
        assert {len(span) for span in found} == {min(crop, side)}
    else:
        step = found[1].start if len(found) > 1 else crop
        assert [span.start for span in found] == [i * step for i in range(len(found))]
        assert {len(span) for span in found[:-1]} <= {crop}
        assert len(found) == 1 or found[-2].stop < side, "the last window is needed"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 1), st.booleans())
def test_shares_of_all_windows_add_up_to_the_interpolation(size, source, crop, stride, align_corners):
    def matrix(taps, first: int = 0) -> torch.Tensor:
        dense = torch.zeros(size, source, dtype=torch.float64)
        outputs = torch.arange(size)[taps.outputs]
        for sources, weights in zip(
            map(torch.from_numpy, taps.sources), map(torch.from_numpy, taps.weights), strict=True
        ):
            dense.index_put_((outputs, sources + first), weights, accumulate=True)
        return dense

    taps, windows = resampling.linear(size, source, align_corners), spans(source, crop, stride, "shifted")
    counts = visits(source, windows)
    shares = [resampling.share(taps, window, counts) for window in windows]
    total = sum(matrix(part, window.start) for part, window in zip(shares, windows, strict=True))
    torch.testing.assert_close(total, matrix(taps))
    read = [part.weights.sum(0) for part in shares if part.weights.size]
    assert all(weights[0] > 0 and weights[-1] > 0 for weights in read), "outputs that the window does not contribute to"
    impulses = torch.eye(source, dtype=torch.float64)[None]
    expected = F.interpolate(
        impulses[:, None], size=(source, size), mode="bilinear", align_corners=align_corners
    )  # 1,1,source,size
    torch.testing.assert_close(matrix(taps).T, expected[0, 0])


def test_selecting_neighboring_pixels_returns_a_view():
    x, rows, columns = random_image(7, 9)[0], resampling.linear(7, 7, True), resampling.linear(9, 9, False)
    assert resampling.resample(x, rows, columns).data_ptr() == x.data_ptr()
    part = resampling.resample(x, rows.cut(slice(2, 5)), columns)
    assert part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert torch.equal(part, x[:, 2:5])
    every_other = resampling.linear(4, 7, True)
    assert torch.equal(resampling.resample(x, every_other, columns), x[:, ::2])


def test_cityscapes_windows_equal_the_published_protocols():
    single, multi, slide = (PROTOCOLS[n] for n in ("released-single-cityscapes", "paper-multi", "mmseg-slide-769"))
    assert [span.start for span in spans(2048, single.crop, single.stride, single.windows)] == [0, 512, 1024, 1536]
    assert spans(1024, single.crop, single.stride, single.windows) == [range(768), range(512, 1024)]
    assert spans(2048, slide.crop, slide.stride, slide.windows)[1:] == [
        range(513, 1282), range(1026, 1795), range(1279, 2048)
    ]  # fmt: skip
    assert [scaled_size((1024, 2048), scale, 2048) for scale in multi.scales][::7] == [(512, 1024), (2253, 4506)]
    assert scaled_size((90, 120), 1.0, 90) == (68, 90)  # 67.5, halves up
    assert scaled_size((3, 1000), 0.1) == (1, 100)


SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("whole", Protocol(None, 1.0, "released", (1.0,), False, "logits", None, None, False)),
        ("released-single-cityscapes", Protocol(768, 2 / 3, "released", (1.0,), True, "exp", 2048, None, True)),
        ("released-multi-cityscapes", Protocol(1024, 1 / 2, "released", SCALES, True, "exp", 2048, None, True)),
        ("released-multi", Protocol(576, 1 / 2, "released", SCALES, True, "exp", 608, None, True)),
        ("paper-multi", Protocol(1024, 1 / 2, "shifted", SCALES, True, "softmax", None, None, True)),
        ("mmseg-slide-769", Protocol(769, 513 / 769, "shifted", (1.0,), False, "logits", None, None, True)),
        (
            "mmseg-slide-769-multi",
            Protocol(769, 513 / 769, "shifted", SCALES[:6], True, "softmax", None, None, True),
        ),
        ("mmseg-whole", Protocol(None, 1.0, "released", (1.0,), False, "logits", None, None, False)),
        ("mmseg-whole-512", Protocol(None, 1.0, "released", (1.0,), False, "logits", None, 512, False)),
        ("mmseg-whole-512-multi", Protocol(None, 1.0, "released", SCALES[:6], True, "softmax", None, 512, False)),
    ],
)
def test_every_protocol_has_the_published_values(name, expected):
    assert protocols.find_protocol(name) == expected


def test_voc_sizes_equal_the_released_code_and_mmsegmentation():
    released, whole = (PROTOCOLS[name] for name in ("released-multi", "mmseg-whole-512-multi"))
    sizes = [scaled_size((375, 500), scale, released.base(375, 500)) for scale in released.scales]
    assert sizes[::7] == [(228, 304), (1004, 1338)]
    assert [span.start for span in spans(1338, released.crop, released.stride, released.windows)] == [0, 288, 576, 864]
    assert [scaled_size((375, 500), scale, whole.base(375, 500)) for scale in whole.scales][::5] == [
        (257, 342), (897, 1196)
    ]  # fmt: skip


def test_an_unknown_protocol_gets_a_suggestion():
    with pytest.raises(InputError, match=r"^protocol: 'paper-mutli' is unknown; did you mean paper-multi\?"):
        protocols.find_protocol("paper-mutli")
    with pytest.raises(InputError, match="'x' is unknown; use one of whole, paper-multi, released-single-cityscapes"):
        protocols.find_protocol("x")


def test_only_one_map_of_the_images_size_is_held(monkeypatch):
    class Sizes(TorchDispatchMode):
        """Records the number of elements of every tensor created."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not out._is_view() and not any(out is arg for arg in args):
                made.append(out.numel())
            return out

    made: list[int] = []
    monkeypatch.setattr(resampling, "TILE_ELEMENTS", 1 << 16)
    classes = torch.randn(100, CLASSES, 1, 1)
    net = lambda images: F.conv2d(at_stride_4(images), classes)  # noqa: E731
    image, protocol = random_image(96, 128).float(), Protocol(crop=96, scales=(1.0, 2.2), flip=True)
    with Sizes():
        for _ in averaged(net, image, BLACK.float(), (96, 128), protocol, 1):
            pass
    made.sort()
    assert made[-1] == 100 * 96 * 128
    assert made[-2] <= 3 * 212 * 282, "the largest scaled image; its scores would have 33 times as many"


def test_overflowing_exponentials_are_rejected():
    def constant(value):
        return lambda images: torch.full((len(images), 3, *images.shape[2:]), value).to(images.dtype)

    exp = Protocol(flip=True, average="exp")
    image = random_image(6, 8).float()
    with pytest.raises(
        InputError, match=r"a sum of logits is 89\.0, but exp overflows torch\.float32 above 88\.7; .*softmax"
    ):
        whole_map(constant(44.5), image, (6, 8), exp)
    two = replace(exp, scales=(1.0, 1.0))
    with pytest.raises(InputError, match=r"88\.5.*above 88\.0"):  # the sum over scales counts too
        whole_map(constant(44.25), image, (6, 8), two)
    assert whole_map(constant(43.95), image, (6, 8), two).isfinite().all()
    assert whole_map(constant(44.5), image.double(), (6, 8), exp).isfinite().all()
    pixels = np.zeros((6, 8, 3), np.uint8)
    for value, expected in ((44.3, 1 / 3), (-44.3, 1 / 3), (-80.0, 0.0)):  # the last underflows
        _, confidence = Inference(constant(value), MEAN, STD, CPU, protocol=exp).segment(pixels)
        np.testing.assert_allclose(confidence, expected, rtol=1e-5)


def test_half_precision_logits_are_averaged_in_float32():
    out = whole_map(
        lambda images: sees_neighbors(images).half(), random_image(9, 9).float(), (9, 9), Protocol(flip=True)
    )
    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", PROTOCOLS)
def test_labels_and_confidence_are_the_maximum_of_the_scores(name):
    protocol = PROTOCOLS[name]
    if protocol.crop is not None:
        protocol = replace(protocol, crop=protocol.crop // 24, long_side=protocol.long_side and 48)
    elif len(protocol.scales) > 1:
        protocol = replace(protocol, short_side=32)
    image = np.random.default_rng(3).integers(0, 256, (33, 60, 3), np.uint8)
    inference = Inference(sees_neighbors, MEAN, STD, CPU, protocol=protocol)
    labels, confidence = inference.segment(image)
    scores = torch.cat([part for _, _, part in inference.scores(image)], dim=1)
    assert scores.shape == (CLASSES, 33, 60)
    assert np.array_equal(labels, scores.argmax(0).numpy())
    probabilities = scores.softmax(0) if protocol.average == "logits" else scores / scores.sum(0)
    np.testing.assert_allclose(confidence, probabilities.amax(0).numpy(), rtol=1e-5)
    if protocol.average == "softmax":
        torch.testing.assert_close(scores.sum(0), torch.ones(33, 60))


def test_a_protocol_with_a_base_size_ignores_the_long_side():
    image = np.random.default_rng(3).integers(0, 256, (30, 40, 3), np.uint8)

    def input_sizes(long_side, protocol):
        sizes = []
        net = lambda images: sizes.append(tuple(images.shape[2:])) or sees_neighbors(images)  # noqa: E731
        labels, _ = Inference(net, MEAN, STD, CPU, long_side, protocol).segment(image)
        assert labels.shape == (30, 40)
        return sizes

    scales = Protocol(scales=(0.5, 1.5))
    assert input_sizes(20, scales) == [(8, 10), (23, 30)]
    assert input_sizes(20, replace(scales, long_side=80)) == [(30, 40), (90, 120)]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"crop": 0}, "crop", "must be at least 1 pixel, got 0"),
        ({"stride": 0.0}, "stride", r"must be in \(0, 1\], got 0.0"),
        ({"stride": 1.5}, "stride", r"must be in \(0, 1\], got 1.5"),
        ({"scales": ()}, "scales", "must not be empty"),
        ({"scales": (1.0, -0.5)}, "scales", "must be positive numbers, got -0.5"),
        ({"scales": (math.inf,)}, "scales", "must be positive numbers, got inf"),
        ({"scales": (math.nan,)}, "scales", "must be positive numbers, got nan"),
        ({"long_side": 0}, "long_side", "must be at least 1 pixel, got 0"),
        ({"short_side": 0}, "short_side", "must be at least 1 pixel, got 0"),
        ({"long_side": 9, "short_side": 9}, "short_side", "conflicts with protocol.long_side"),
    ],
)
def test_protocols_with_invalid_values_are_rejected(change, where, what):
    with pytest.raises(InputError, match=f"protocol.{where}: {what}; "):
        whole_map(sees_neighbors, random_image(8, 8), (8, 8), replace(Protocol(crop=4), **change))


@pytest.mark.parametrize("fields", [{"crop": 1}, {"long_side": 1}, {"short_side": 1}, {"scales": (0.01,)}])
def test_the_smallest_valid_protocols_work(fields):
    out = whole_map(pixel_by_pixel, random_image(3, 4), (3, 4), Protocol(**fields))
    torch.testing.assert_close(out.sum(0), torch.ones(3, 4, dtype=torch.float64))


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3), st.integers(1, 30))
def test_tiles_cover_a_map_once_and_hold_as_much_as_fits(rows, columns, elements, limit):
    covered = np.zeros((rows, columns), int)
    for down, across in resampling.tiles(rows, columns, elements, limit):
        tile = covered[down, across]
        tile += 1
        assert tile.size * elements <= max(limit, elements)
        assert tile.shape[1] == columns or len(tile) == 1, "whole rows if one fits"
    assert (covered == 1).all()


@pytest.mark.parametrize(("field", "known"), [("windows", "released, shifted"), ("average", "logits, softmax, exp")])
def test_protocols_with_unknown_words_are_rejected(field, known):
    protocol = Protocol()
    object.__setattr__(protocol, field, "mean")  # bypasses the type checker of the tests
    with pytest.raises(InputError, match=f"protocol.{field}: 'mean' is unknown; use one of {known}"):
        whole_map(sees_neighbors, random_image(8, 8), (8, 8), protocol)


@pytest.mark.parametrize(("crop", "at_once"), [(64, 1), (32, 2), (16, 4), (None, 1)])
def test_the_cpu_limits_the_pixels_per_forward_pass(monkeypatch, crop, at_once):
    monkeypatch.setattr("danet.predict.sliding_window.PIXELS_AT_ONCE", 2 * 32 * 32)
    batches = []
    net = lambda images: batches.append(len(images)) or sees_neighbors(images)  # noqa: E731
    whole_map(net, random_image(96, 96), (96, 96), Protocol(crop=crop, flip=True, windows="shifted"), batch=None)
    assert max(batches) == at_once


def test_a_batch_size_of_0_is_rejected():
    with pytest.raises(InputError, match="batch: must be at least 1, got 0; "):
        whole_map(sees_neighbors, random_image(8, 8), (8, 8), Protocol(), batch=0)
