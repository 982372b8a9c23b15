"""danet.robustness: what each corruption does to an image, and what a network's numbers on corrupted images are."""

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
from danet.evaluate import blur, digital, noise, weather
from danet.evaluate.confusion import Confusion
from danet.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from danet.evaluate.evaluation import evaluate
from danet.evaluate.robustness import CLEAN, Condition, Robustness, conditions_of, study
from danet.predict.protocols import WHOLE


def random_image(height: int = 60, width: int = 80) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8))
    return np.asarray(small.resize((width, height)))


def gray(value: float, height: int = 200, width: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value)


@pytest.mark.parametrize("name", CORRUPTIONS)
class TestEveryCorruption:
    def test_gives_an_image_of_the_same_size_that_chance_and_severity_decide(self, name):
        image = random_image()
        before = image.copy()
        results = [corrupt(image, name, severity, "a") for severity in SEVERITIES]
        assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
        assert all(
            (corrupt(image, name, s, "a") == result).all() for s, result in zip(SEVERITIES, results, strict=True)
        )
        assert all((a != b).any() for a, b in pairwise(results))
        assert (image == before).all()

    def test_depends_on_the_key_where_there_is_chance(self, name):
        certain = {"defocus-blur", "brightness", "contrast", "pixelate", "jpeg"}
        same = (corrupt(random_image(), name, 3, "a") == corrupt(random_image(), name, 3, "b")).all()
        assert same == (name in certain)

    def test_takes_away_more_with_each_severity(self, name):
        image = random_image(96, 96).astype(float)
        keys = ("a", "b", "c", "d", "e", "f")
        lost = [
            np.mean([np.abs(corrupt(random_image(96, 96), name, s, k) - image).mean() for k in keys]) for s in (1, 3, 5)
        ]
        assert 0.5 < lost[0] < lost[1] < lost[2]

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (33, 64)])
    def test_takes_images_of_any_size_and_of_one_color(self, name, size):
        for value in (0, 255):
            result = corrupt(np.full((*size, 3), value, np.uint8), name, 5, "a")
            assert result.shape == (*size, 3)


def test_noise_is_as_strong_as_it_is_said():
    rng = np.random.default_rng(0)
    assert np.std(noise.gaussian(gray(0.5), rng, 0.12)) == pytest.approx(0.12, rel=0.02)
    shots = noise.shot(gray(0.5), rng, 12)
    assert (shots.mean(), shots.var()) == (pytest.approx(0.5, rel=0.01), pytest.approx(0.5 / 12, rel=0.03))
    salted = noise.impulse(gray(0.5), rng, 0.17)
    assert [(salted == value).mean() for value in (0, 1)] == pytest.approx([0.085, 0.085], rel=0.05)
    assert ((salted == 0.5) | (salted == 0) | (salted == 1)).all()


def test_a_filter_is_the_sum_over_its_kernel_with_the_edges_continued():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((9, 7, 3)), rng.random((3, 5))
    padded = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode="edge")
    expected = sum(kernel[i, j] * padded[2 - i : 11 - i, 4 - j : 11 - j] for i in range(3) for j in range(5))
    np.testing.assert_allclose(blur.filtered(image, kernel), expected, atol=1e-12)


def test_blurs_spread_a_point_and_keep_its_light():
    point = np.zeros((61, 61, 3))
    point[30, 30] = 1
    rng = np.random.default_rng(0)
    disc = blur.defocus(point, rng, 6, 0.5)[..., 0]
    assert disc.sum() == pytest.approx(1)
    assert disc[30, 24] > 0.5 * disc[30, 30] > 20 * disc[30, 22]
    streak = blur.motion(point, rng, 10, 3.0)[..., 0]
    assert streak.sum() == pytest.approx(1)
    assert np.unravel_index(streak.argmax(), streak.shape) == (30, 30)
    assert len(np.unique(np.nonzero(streak > 1e-9)[1])) > 10  # along a line, to one side
    assert (streak[:, :30] > 1e-9).any() != (streak[:, 31:] > 1e-9).any()


def test_a_streak_goes_in_its_direction():
    y, x = np.nonzero(blur.streak(3, 2.0, 90) > 0)
    assert (x == 6).all()
    assert y.tolist() == list(range(6, 13))
    assert blur.streak(3, 2.0, 0).sum() == pytest.approx(1)


def test_glass_brings_pixels_from_nearby_alone():
    ramp = np.repeat(np.arange(64.0)[None, :, None], 64, 0).repeat(3, 2) / 64
    shuffled = blur.glass(ramp, np.random.default_rng(0), 0.7, 1, 2)
    assert 0.2 < np.abs(shuffled - ramp).max() * 64 < 12
    assert shuffled.mean() == pytest.approx(ramp.mean(), abs=0.02)


def test_fog_is_smoother_the_faster_its_clouds_decay_and_never_darkens_below_its_share():
    smooth, rough = (weather._clouds(128, decay, np.random.default_rng(0)) for decay in (2.5, 1.2))
    assert (smooth.min(), smooth.max(), rough.min(), rough.max()) == (0, 1, 0, 1)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()
    fogged = weather.fog(gray(0.5), np.random.default_rng(0), 2.0, 2.0)
    assert fogged.min() >= 0.5 * 0.5 / 2.5 - 1e-12
    assert fogged.max() <= 0.5 + 1e-12


def test_brightness_keeps_hue_and_saturation():
    image = np.array([[[0.2, 0.4, 0.1], [0.0, 0.0, 0.0], [0.9, 0.3, 0.6]]])
    brighter = weather.brightness(image, np.random.default_rng(0), 0.3)
    np.testing.assert_allclose(brighter, [[[0.35, 0.7, 0.175], [0.3, 0.3, 0.3], [1.0, 1 / 3, 2 / 3]]])


def test_digital_corruptions_do_what_their_values_say():
    rng = np.random.default_rng(0)
    image = random_image() / 255
    np.testing.assert_allclose(digital.contrast(image, rng, 0.2).std((0, 1)), 0.2 * image.std((0, 1)))
    np.testing.assert_allclose(digital.contrast(image, rng, 0.2).mean((0, 1)), image.mean((0, 1)))
    blocks = digital.pixelate(image, rng, 0.25)
    assert (blocks == blocks[::4, ::4].repeat(4, 0).repeat(4, 1)).all()
    np.testing.assert_allclose(blocks[0, 0], image[:4, :4].mean((0, 1)), atol=1 / 255)


def test_an_unknown_corruption_or_severity_is_named():
    for corruptions, severities, said in (
        (["fogg"], [1], "--corruptions: fogg is none; use gaussian-noise"),
        (["fog"], [0], "--severities: 0 is not from 1 to 5"),
        ([], [1], "--corruptions: is empty"),
        (["fog"], [], "--severities: is empty"),
    ):
        with pytest.raises(InputError) as caught:
            conditions_of(corruptions, severities)
        assert str(caught.value).startswith(said)
    assert conditions_of(["jpeg", "fog"], [3, 1, 3]) == [CLEAN, ("fog", 1), ("fog", 3), ("jpeg", 1), ("jpeg", 3)]


def counted(miou: dict[Condition, float]) -> Robustness:
    """Of two classes with so many of 1,000 pixels right each: IoU = right / (2000 - right)."""
    result = Robustness(Classes(("a", "b"), ((0, 0, 0), (255, 0, 0))))
    for condition, value in miou.items():
        right = round(2000 * value / (1 + value))
        result.confusion[condition] = Confusion(2)
        result.confusion[condition].matrix = np.array([[right, 1000 - right], [1000 - right, right]])
    return result


def test_degradation_by_hand():
    conditions = conditions_of(["fog", "jpeg"], [1, 2])
    ours = counted(dict(zip(conditions, (0.8, 0.6, 0.4, 0.8, 0.6), strict=True)))
    theirs = counted(dict(zip(conditions, (0.9, 0.5, 0.3, 0.7, 0.5), strict=True)))
    assert ours.corruptions == ["fog", "jpeg"]
    assert ours.of("fog") == pytest.approx([0.6, 0.4], abs=1e-3)
    assert ours.mean_miou == pytest.approx(0.6, abs=1e-3)
    assert ours.kept == pytest.approx(0.75, abs=2e-3)
    assert ours.degradation(theirs, "fog") == pytest.approx(1.0 / 1.2, abs=3e-3)
    assert ours.degradation(theirs, "fog", relative=True) == pytest.approx(0.6 / 1.0, abs=3e-3)
    assert ours.mean_degradation(theirs) == pytest.approx((1.0 / 1.2 + 0.6 / 0.8) / 2, abs=3e-3)
    perfect = counted(dict.fromkeys(conditions, 1.0))
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
    """Sees brightness alone, so that what is corrupted is answered otherwise; an untrained network names one class."""
    seeing = danet.load(tiny_weights)
    bins = torch.linspace(-1, 1, 6)[:, None, None]
    monkeypatch.setattr(seeing, "logits", lambda images: -((images.mean(1, keepdim=True) - bins) ** 2))
    return seeing


def test_a_study_is_evaluation_of_each_corrupted_image(samples, predictor):
    data = dataset_yaml.load(samples, "train")
    conditions = conditions_of(["fog", "gaussian-noise"], [2, 4])
    told = []
    result = study({"one": predictor}, data, conditions, seed=7, seen=lambda *what: told.append(what[:3]))["one"]
    shown = predictor.resolve_protocol(WHOLE)
    clean = evaluate(predictor.logits, predictor.card, data, predictor.device, protocol=shown)
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

    expected = evaluate(predictor.logits, predictor.card, Corrupted(), predictor.device, protocol=shown)
    assert (result.confusion[Condition("fog", 4)].matrix == expected.matrix).all()
    assert (expected.matrix != clean.matrix).any()
    assert told == [(i, condition, "one") for i in range(len(data)) for condition in conditions]


def test_what_a_network_is_said_to_be_worth_does_not_depend_on_what_else_is_asked(samples, predictor):
    data = dataset_yaml.load(samples, "train")
    wanted = Condition("snow", 3)
    alone = study({"one": predictor}, data, [CLEAN, wanted])["one"]
    among = study({"other": predictor, "one": predictor}, data, conditions_of(["fog", "snow"], [1, 3]))["one"]
    assert (alone.confusion[wanted].matrix == among.confusion[wanted].matrix).all()
    assert alone.calibration[wanted].error == among.calibration[wanted].error
    other_seed = study({"one": predictor}, data, [CLEAN, wanted], seed=1)["one"]
    assert (alone.confusion[wanted].matrix != other_seed.confusion[wanted].matrix).any()


class TestTheCommand:
    def test_prints_a_table_and_writes_every_number(self, samples, tiny_weights, tmp_path, capsys):
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
        ("args", "said"),
        [
            ([], "WEIGHTS: missing"),
            (["{w}", "{w}"], "WEIGHTS: one file is given twice"),
            (["{w}", "--corruptions", "rain"], "--corruptions: rain is none"),
            (["{w}", "--severities", "6"], "--severities: 6 is not from 1 to 5"),
            (["default"], "default: class 2 is 'pole', not 'road'"),
        ],
    )
    def test_refuses_what_cannot_be(self, samples, tiny_weights, capsys, args, said):
        given = [arg.format(w=tiny_weights) for arg in args]
        assert cli.main(["robustness", *given, "--root", str(samples)]) == 2
        assert said in capsys.readouterr().err

    def test_takes_images_of_8_bits_alone(self, tmp_path, tiny_weights, capsys):
        root = build(tmp_path, [stripes(0, 1, 2)] * 2)
        (root / "dataset.yaml").write_text("classes: [sky, building, road, car, sign, person]\nval: 0.5\n")
        for file in (root / "images").iterdir():
            file.unlink()
            rows = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
            Image.fromarray(rows).save(file.with_suffix(".png"))
        assert cli.main(["robustness", str(tiny_weights), "--root", str(root)]) == 2
        assert "has more than 8 bits a value; corruptions are defined for 8 bits" in capsys.readouterr().err
