"""Probabilities of all classes, margins and unknown pixels: in Python, and as files of danet predict."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from danet import InputError, Segmentation
from danet.cli import main
from danet.data.classes import Classes
from danet.data.images.read import read_mask
from danet.predict import protocols
from danet.predict.predictor import load

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
TWO_SCALES = replace(protocols.PAPER_MULTI, scales=(0.5, 1.0))
SUMMED = replace(protocols.RELEASED_MULTI, scales=(0.5, 1.0), crop=64, long_side=100)


@pytest.fixture
def predictor(tiny_weights):
    return load(tiny_weights)


@pytest.fixture
def predict(tiny_weights, tmp_path, capsys):
    """Run the command on some paths; return its exit status and standard error."""

    def run(*args: object) -> tuple[int, str]:
        out = ["--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
        status = main(["predict", *map(str, args), *([] if "--out" in args else out)])
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def street(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "street.png")
    return tmp_path / "street.png"


@pytest.mark.parametrize("protocol", [protocols.WHOLE, TWO_SCALES, SUMMED], ids=["whole", "multi", "summed"])
@pytest.mark.parametrize("kept", [False, True], ids=["on demand", "kept"])
def test_probabilities_agree_with_labels_and_confidence(predictor, protocol, kept):
    result = predictor.segment("a", IMAGE, protocol, keep_probabilities=kept)
    assert result.probabilities.shape == (6, 40, 56)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.labels)
    assert np.array_equal(result.probabilities.max(0), result.confidence)


def test_the_network_runs_again_only_when_probabilities_are_used(predictor, monkeypatch):
    runs, logits = [], predictor.logits
    monkeypatch.setattr(predictor, "logits", lambda images: runs.append(images.shape) or logits(images))
    result = predictor(IMAGE)
    _ = result.summary(), result.overlay()
    assert len(runs) == 1
    _ = result.probabilities, result.margin, result.probabilities
    assert len(runs) == 2
    _ = predictor.segment("a", IMAGE, keep_probabilities=True).probabilities
    assert len(runs) == 3


def test_margin_is_the_difference_of_the_two_largest_probabilities(predictor):
    result = predictor(IMAGE)
    first, second = np.sort(result.probabilities, axis=0)[[-1, -2]]
    assert np.array_equal(result.margin, first - second)
    single = replace(result, compute_probabilities=lambda: np.ones((1, 40, 56), np.float32))
    assert (single.margin == 1).all()


def test_unknown_pixels_are_those_of_low_confidence(predictor):
    result = predictor(IMAGE)
    limit = float(np.median(result.confidence))
    partly = result.with_unknown(limit)
    below = result.confidence < limit
    assert 0.4 < below.mean() < 0.6
    assert np.array_equal(partly.labels, np.where(below, 255, result.labels))
    summary = partly.summary()
    assert summary["unknown"] == {"min_confidence": limit, "pixels": below.sum(), "share": below.mean()}
    assert sum(entry["share"] for entry in summary["classes"]) + below.mean() == pytest.approx(1)
    for entry in summary["classes"]:
        own = partly.labels == entry["id"]
        assert entry["share"] == pytest.approx(own.mean())
        assert entry["mean_confidence"] == pytest.approx(result.confidence[own].mean())
    assert np.array_equal(partly.probabilities, result.probabilities)
    assert "unknown" not in result.summary()
    assert result.with_unknown(0).summary()["unknown"]["pixels"] == 0


def test_another_limit_replaces_the_first(predictor):
    result = predictor(IMAGE)
    low, high = np.quantile(result.confidence, (0.3, 0.7)).tolist()
    for limits in ((high, low), (low, high)):
        once, twice = result.with_unknown(limits[1]), result.with_unknown(limits[0]).with_unknown(limits[1])
        assert np.array_equal(twice.labels, once.labels)
        assert twice.summary() == once.summary()


def test_pixels_without_data_are_counted_apart_from_unknown_ones(predictor):
    result, missing = predictor(IMAGE), np.zeros(IMAGE.shape[:2], bool)
    missing[:10] = True
    assert result.without_data(None) is result
    partly = result.without_data(missing).with_unknown(1).with_unknown(float(np.median(result.confidence)))
    unknown = (result.confidence < np.median(result.confidence)) & ~missing
    assert np.array_equal(partly.labels, np.where(missing | unknown, 255, result.labels))
    summary = partly.summary()
    assert summary["no_data"] == {"pixels": 560, "share": 0.25}
    assert summary["unknown"]["pixels"] == unknown.sum()
    assert sum(entry["share"] for entry in summary["classes"]) + unknown.mean() + 0.25 == pytest.approx(1)
    assert [text for text, _ in partly.legend()][-1] == "no data  25.0%"


def test_unknown_pixels_are_black_in_the_overlay_and_named_in_its_legend():
    classes = Classes(("a", "b"), ((200, 0, 0), (0, 0, 200)))
    confidence = np.full((8, 8), 0.9, np.float32)
    confidence[:, 4:] = 0.3
    image = np.full((8, 8, 3), 100, np.uint8)
    result = Segmentation("x", image, np.zeros((8, 8), np.uint8), confidence, classes).with_unknown(0.5)
    assert result.legend(0.5) == [("a  50.0%", (150, 50, 50)), ("unknown  50.0%", (50, 50, 50))]
    assert result.with_unknown(1).legend(0.5) == [("unknown  100.0%", (50, 50, 50))]
    assert repr(result) == "Segmentation('x', 8 x 8: a 50%)"
    with pytest.raises(InputError, match=r"^min_confidence: must be from 0 to 1, got 1\.5"):
        result.with_unknown(1.5)


def test_a_pickled_segmentation_has_no_probabilities_unless_they_were_computed(predictor):
    result = predictor(IMAGE)
    with pytest.raises(InputError, match=r"^probabilities: unknown: this segmentation was loaded"):
        _ = pickle.loads(pickle.dumps(result)).probabilities
    expected = result.probabilities
    assert np.array_equal(pickle.loads(pickle.dumps(result)).probabilities, expected)


def test_files_hold_probabilities_margin_and_unknown_pixels(predict, predictor, street, tmp_path):
    expected, out = predictor(street), tmp_path / "out"
    limit = float(np.median(expected.confidence))
    assert predict(street, "--probabilities", "npy", "--margin", "--min-confidence", limit)[0] == 0
    stored = np.load(out / "street_probabilities.npy")
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, expected.probabilities, atol=5e-4)
    margin = np.asarray(Image.open(out / "street_margin.png"))
    assert np.abs(margin / 255 - expected.margin).max() <= 0.5 / 255 + 1e-6
    labels = read_mask(out / "street_labels.png")
    assert np.array_equal(labels, expected.with_unknown(limit).labels)
    unknown = json.loads((out / "street.json").read_text())["unknown"]
    assert unknown == {"min_confidence": limit, "pixels": (labels == 255).sum(), "share": (labels == 255).mean()}


def test_files_of_each_class_are_8_bit_images(predict, predictor, street, tmp_path):
    assert predict(street, "--probabilities", "png")[0] == 0
    planes = [np.asarray(Image.open(tmp_path / f"out/street_probability_{i}.png")) for i in range(6)]
    assert np.array_equal(planes, (predictor(street).probabilities * 255).round())
    status, err = predict(street, "--probabilities", "png", "--out", tmp_path / "out2", "--min-confidence", "2")
    assert (status, err) == (2, "error: --min-confidence: must be from 0 to 1, got 2; for example, use 0.5\n")


def test_existing_files_are_found_before_work_begins(predict, street, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/street_probability_3.png").write_text("mine")
    monkeypatch.setattr("danet.predict.predictor.load", lambda *_: pytest.fail("the network was loaded"))
    status, err = predict(street, "--probabilities", "png")
    assert status == 2
    assert "street_probability_3.png: already exists" in err
    assert (tmp_path / "out/street_probability_3.png").read_text() == "mine"


def test_pages_have_files_of_their_own(predict, tmp_path):
    first, second = (Image.fromarray(IMAGE[i:]) for i in (0, 4))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    assert predict(tmp_path / "stack.tif", "--pages", "--margin")[0] == 0
    names = sorted(file.name for file in (tmp_path / "out").glob("*_margin.png"))
    assert names == ["stack_page1_margin.png", "stack_page2_margin.png"]


MAPS = [["--probabilities", "npy"], ["--margin"], ["--min-confidence", "0.5"]]


@pytest.mark.parametrize("option", MAPS, ids=lambda option: option[0])
def test_inputs_without_probabilities_are_refused_in_one_line(predict, street, tmp_path, option):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    Image.new("1", (9000, 8000)).save(tmp_path / "big.png")
    for name, kind in (("clip.mp4", "a video"), ("big.png", "an image of more than 64 million pixels")):
        status, err = predict(tmp_path / name, *option)
        assert status == 2
        remedy = f"for which {option[0]} is not available; leave it out, or leave out {option[0]}"
        assert err == f"error: {tmp_path / name}: is {kind}, {remedy}\n"
    for others in (["--manifest", tmp_path / "m.parquet"], ["--shard", "1/2"], ["--engine", "ray"]):
        status, err = predict(street, *option, *others)
        assert status == 2
        remedy = "leave it out, or leave out the options of batches"
        assert err == f"error: {option[0]}: is not for batches; {remedy}\n"
    status, err = predict(street, *option, "--format", "coco")
    assert status == 2
    assert err.startswith(f"error: {option[0]}: excludes --format, which writes one file")
    assert not (tmp_path / "out").exists()
