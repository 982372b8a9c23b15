"""Corruptions do what they claim, and robustness results equal their definitions."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from miniature import build, stripes
from PIL import Image

import danet
from danet import cli
from danet.data.classes import Classes
from danet.data.custom import dataset_yaml
from danet.data.samples import Sample
from danet.errors import InputError
from danet.evaluate import corruptions
from danet.evaluate.confusion import Confusion
from danet.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from danet.evaluate.evaluation import evaluate
from danet.evaluate.robustness import CLEAN, Condition, Robustness, evaluate_corrupted, list_conditions
from danet.predict.protocols import WHOLE


def random_image(height: int = 60, width: int = 80) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8))
    return np.asarray(small.resize((width, height)))


def gray(value: float, height: int = 200, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value)


@pytest.mark.parametrize("name", CORRUPTIONS)
class TestEveryCorruption:
    def test_keeps_the_size_is_deterministic_and_depends_on_severity(self, name):
        image = random_image()
        before = image.copy()
        results = [corrupt(image, name, severity, "a") for severity in SEVERITIES]
        assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
        assert all(
            (corrupt(image, name, s, "a") == result).all() for s, result in zip(SEVERITIES, results, strict=True)
        )
        assert all((a != b).any() for a, b in pairwise(results))
        assert (image == before).all()

    def test_depends_on_the_key_if_it_is_random(self, name):
        deterministic = {"defocus-blur", "brightness", "contrast", "pixelate", "jpeg"}
        same = (corrupt(random_image(), name, 3, "a") == corrupt(random_image(), name, 3, "b")).all()
        assert same == (name in deterministic)

    def test_error_grows_with_severity(self, name):
        image = random_image(96, 96).astype(float)
        keys = ("a", "b", "c", "d", "e", "f")
        errors = [
            np.mean([np.abs(corrupt(random_image(96, 96), name, s, k) - image).mean() for k in keys]) for s in (1, 3, 5)
        ]
        assert 0.5 < errors[0] < errors[1] < errors[2]

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (33, 64)])
    def test_accepts_any_size_and_uniform_images(self, name, size):
        for value in (0, 255):
            result = corrupt(np.full((*size, 3), value, np.uint8), name, 5, "a")
            assert result.shape == (*size, 3)


def test_noise_has_the_given_strength():
    rng = np.random.default_rng(0)
    assert np.std(corruptions.gaussian_noise(gray(0.5), rng, 0.12)) == pytest.approx(0.12, rel=0.02)
    shots = corruptions.shot_noise(gray(0.5), rng, 12)
    assert (shots.mean(), shots.var()) == (pytest.approx(0.5, rel=0.01), pytest.approx(0.5 / 12, rel=0.03))
    impulses = corruptions.impulse_noise(gray(0.5), rng, 0.17)
    assert [(impulses == value).mean() for value in (0, 1)] == pytest.approx([0.085, 0.085], rel=0.05)
    assert ((impulses == 0.5) | (impulses == 0) | (impulses == 1)).all()


def test_convolution_equals_the_direct_sum_with_repeated_edges():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((9, 7, 3)), rng.random((3, 5))
    padded = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode="edge")
    expected = sum(kernel[i, j] * padded[2 - i : 11 - i, 4 - j : 11 - j] for i in range(3) for j in range(5))
    np.testing.assert_allclose(corruptions.convolve(image, kernel), expected, atol=1e-12)


def test_blurs_spread_a_point_and_preserve_the_sum():
    point = np.zeros((61, 61, 3))
    point[30, 30] = 1
    rng = np.random.default_rng(0)
    disc = corruptions.defocus_blur(point, rng, 6, 0.5)[..., 0]
    assert disc.sum() == pytest.approx(1)
    assert disc[30, 24] > 0.5 * disc[30, 30] > 20 * disc[30, 22]
    streak = corruptions.motion_blur(point, rng, 10, 3.0)[..., 0]
    assert streak.sum() == pytest.approx(1)
    assert np.unravel_index(streak.argmax(), streak.shape) == (30, 30)
    assert len(np.unique(np.nonzero(streak > 1e-9)[1])) > 10  # along a line, to one side
    assert (streak[:, :30] > 1e-9).any() != (streak[:, 31:] > 1e-9).any()


def test_streak_kernel_follows_its_angle():
    y, x = np.nonzero(corruptions.streak_kernel(3, 2.0, 90) > 0)
    assert (x == 6).all()
    assert y.tolist() == list(range(6, 13))
    assert corruptions.streak_kernel(3, 2.0, 0).sum() == pytest.approx(1)


def test_glass_blur_moves_pixels_only_nearby():
    ramp = np.repeat(np.arange(64.0)[None, :, None], 64, 0).repeat(3, 2) / 64
    shuffled = corruptions.glass_blur(ramp, np.random.default_rng(0), 0.7, 1, 2)
    assert 0.2 < np.abs(shuffled - ramp).max() * 64 < 12
    assert shuffled.mean() == pytest.approx(ramp.mean(), abs=0.02)


def test_fog_gets_smoother_with_decay_and_keeps_its_range():
    smooth, rough = (corruptions.plasma_fractal(128, decay, np.random.default_rng(0)) for decay in (2.5, 1.2))
    assert (smooth.min(), smooth.max(), rough.min(), rough.max()) == (0, 1, 0, 1)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()
    fogged = corruptions.fog(gray(0.5), np.random.default_rng(0), 2.0, 2.0)
    assert fogged.min() >= 0.5 * 0.5 / 2.5 - 1e-12
    assert fogged.max() <= 0.5 + 1e-12


def test_brightness_keeps_hue_and_saturation():
    image = np.array([[[0.2, 0.4, 0.1], [0.0, 0.0, 0.0], [0.9, 0.3, 0.6]]])
    brighter = corruptions.brightness(image, np.random.default_rng(0), 0.3)
    np.testing.assert_allclose(brighter, [[[0.35, 0.7, 0.175], [0.3, 0.3, 0.3], [1.0, 1 / 3, 2 / 3]]])


def test_digital_corruptions_match_their_parameters():
    rng = np.random.default_rng(0)
    image = random_image() / 255
    np.testing.assert_allclose(corruptions.contrast(image, rng, 0.2).std((0, 1)), 0.2 * image.std((0, 1)))
    np.testing.assert_allclose(corruptions.contrast(image, rng, 0.2).mean((0, 1)), image.mean((0, 1)))
    blocks = corruptions.pixelate(image, rng, 0.25)
    assert (blocks == blocks[::4, ::4].repeat(4, 0).repeat(4, 1)).all()
    np.testing.assert_allclose(blocks[0, 0], image[:4, :4].mean((0, 1)), atol=1 / 255)


def test_unknown_corruptions_and_severities_are_rejected():
    for names, severities, message in (
        (["fogg"], [1], "corruptions: 'fogg' is unknown; did you mean fog?"),
        (["fog"], [0], "severities: must be from 1 to 5, got 0"),
        ([], [1], "corruptions: needs at least one value"),
        (["fog"], [], "severities: needs at least one value"),
    ):
        with pytest.raises(InputError) as caught:
            list_conditions(names, severities)
        assert str(caught.value).startswith(message)
    assert list_conditions(["jpeg", "fog"], [3, 1, 3]) == [CLEAN, ("fog", 1), ("fog", 3), ("jpeg", 1), ("jpeg", 3)]


def results_with(miou: dict[Condition, float]) -> Robustness:
    """Return results of two classes, each with `right` of 1,000 pixels correct: IoU = right / (2000 - right)."""
    result = Robustness(Classes(("a", "b"), ((0, 0, 0), (255, 0, 0))))
    for condition, value in miou.items():
        right = round(2000 * value / (1 + value))
        result.confusion[condition] = Confusion(2)
        result.confusion[condition].matrix = np.array([[right, 1000 - right], [1000 - right, right]])
    return result


def test_degradation_equals_hand_computed_values():
    conditions = list_conditions(["fog", "jpeg"], [1, 2])
    ours = results_with(dict(zip(conditions, (0.8, 0.6, 0.4, 0.8, 0.6), strict=True)))
    theirs = results_with(dict(zip(conditions, (0.9, 0.5, 0.3, 0.7, 0.5), strict=True)))
    assert ours.corruptions == ["fog", "jpeg"]
    assert ours.mious("fog") == pytest.approx([0.6, 0.4], abs=1e-3)
    assert ours.mean_miou == pytest.approx(0.6, abs=1e-3)
    assert ours.kept == pytest.approx(0.75, abs=2e-3)
    assert ours.degradation(theirs, "fog") == pytest.approx(1.0 / 1.2, abs=3e-3)
    assert ours.degradation(theirs, "fog", relative=True) == pytest.approx(0.6 / 1.0, abs=3e-3)
    assert ours.mean_degradation(theirs) == pytest.approx((1.0 / 1.2 + 0.6 / 0.8) / 2, abs=3e-3)
    perfect = results_with(dict.fromkeys(conditions, 1.0))
    assert np.isnan(ours.mean_degradation(perfect))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = build(tmp_path_factory.mktemp("data"), [stripes(0, 1, 2, height=40, width=48)] * 3)
    (root / "dataset.yaml").write_text("classes: [sky, building, road, car, sign, person]\nval: 0.4\n")
    for file in (root / "images").iterdir():
        Image.fromarray(random_image(40, 48)).save(file)
    return root


@pytest.fixture
def predictor(tiny_weights, monkeypatch):
    """Classify by brightness, which corruptions change; an untrained network predicts a single class."""
    network = danet.load(tiny_weights)
    bins = torch.linspace(-1, 1, 6)[:, None, None]
    monkeypatch.setattr(network, "logits", lambda images: -((images.mean(1, keepdim=True) - bins) ** 2))
    return network


def test_results_equal_evaluation_on_corrupted_images(samples, predictor):
    data = dataset_yaml.load(samples, "train")
    conditions = list_conditions(["fog", "gaussian-noise"], [2, 4])
    calls = []
    results = evaluate_corrupted(
        {"one": predictor}, data, conditions, seed=7, on_image=lambda *args: calls.append(args[:3])
    )
    result = results["one"]
    protocol = predictor.resolve_protocol(WHOLE)
    clean = evaluate(predictor.logits, predictor.card, data, predictor.device, protocol=protocol)
    assert (result.confusion[CLEAN].matrix == clean.matrix).all()

    class Corrupted:
        classes, bands = data.classes, data.bands

        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> Sample:
            sample = data[index]
            return sample._replace(image=corrupt(sample.image, "fog", 4, f"7/{sample.name}"))

        def labels(self, index: int) -> np.ndarray:
            return data.labels(index)

    expected = evaluate(predictor.logits, predictor.card, Corrupted(), predictor.device, protocol=protocol)
    assert (result.confusion[Condition("fog", 4)].matrix == expected.matrix).all()
    assert (expected.matrix != clean.matrix).any()
    assert calls == [(i, condition, "one") for i in range(len(data)) for condition in conditions]


def test_results_do_not_depend_on_other_networks_or_conditions(samples, predictor):
    data = dataset_yaml.load(samples, "train")
    wanted = Condition("snow", 3)
    alone = evaluate_corrupted({"one": predictor}, data, [CLEAN, wanted])["one"]
    among = evaluate_corrupted({"other": predictor, "one": predictor}, data, list_conditions(["fog", "snow"], [1, 3]))[
        "one"
    ]
    assert (alone.confusion[wanted].matrix == among.confusion[wanted].matrix).all()
    assert alone.calibration[wanted].error == among.calibration[wanted].error
    other_seed = evaluate_corrupted({"one": predictor}, data, [CLEAN, wanted], seed=1)["one"]
    assert (alone.confusion[wanted].matrix != other_seed.confusion[wanted].matrix).any()


class TestTheCommand:
    def test_prints_a_table_and_writes_all_results(self, samples, tiny_weights, tmp_path, capsys):
        other = tmp_path / "other.safetensors"
        other.write_bytes(tiny_weights.read_bytes())
        file = tmp_path / "numbers.json"
        args = [str(tiny_weights), str(other), "--root", str(samples), "--split", "train", "--severities", "5", "1"]
        args += ["--corruptions", "jpeg", "shot-noise", "--json", str(file)]
        assert cli.main(["robustness", *args]) == 0
        printed = capsys.readouterr().out
        assert "shot-noise (noise)" in printed
        assert "degradation (mCD)" in printed
        numbers = json.loads(file.read_text())
        assert (numbers["severities"], numbers["seed"], numbers["images"]) == ([1, 5], 0, 2)
        first, second = numbers["networks"]
        assert list(first["corruptions"]) == ["shot-noise", "jpeg"]
        assert len(first["corruptions"]["jpeg"]["miou"]) == 2
        assert second["mean_degradation"] == 1
        assert first["corruptions"] == second["corruptions"]

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ([], "danet robustness: no weights given"),
            (["{w}", "{w}"], "WEIGHTS: a file is given twice"),
            (["{w}", "--corruptions", "rain"], "--corruptions: 'rain' is unknown"),
            (["{w}", "--severities", "6"], "--severities: must be from 1 to 5, got 6"),
            (
                ["default"],
                "default: its classes differ from the dataset's",
            ),
        ],
    )
    def test_rejects_invalid_options(self, samples, tiny_weights, capsys, args, message):
        given = [arg.format(w=tiny_weights) for arg in args]
        assert cli.main(["robustness", *given, "--root", str(samples)]) == 2
        assert message in capsys.readouterr().err

    def test_rejects_16_bit_images(self, tmp_path, tiny_weights, capsys):
        root = build(tmp_path, [stripes(0, 1, 2)] * 2)
        (root / "dataset.yaml").write_text("classes: [sky, building, road, car, sign, person]\nval: 0.5\n")
        for file in (root / "images").iterdir():
            file.unlink()
            rows = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
            Image.fromarray(rows).save(file.with_suffix(".png"))
        assert cli.main(["robustness", str(tiny_weights), "--root", str(root)]) == 2
        assert "has more than 8 bits per channel; corruptions need 8-bit RGB images" in capsys.readouterr().err
