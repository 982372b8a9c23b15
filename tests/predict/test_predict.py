"""Predictor and Segmentation: results, the files written, and files never overwritten."""

import io
import json
import multiprocessing
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from memory import needs_proc, peak_of
from PIL import Image

import danet
from danet import InputError
from danet.data import registry
from danet.data.classes import Classes
from danet.data.images.read import read_image, read_mask
from danet.predict import overlay as draw
from danet.predict.inputs import find_jobs
from danet.predict.predictor import load
from danet.predict.segmentation import class_shares


@pytest.fixture
def predictor(tiny_weights):
    return load(tiny_weights)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def test_paths_images_and_arrays_give_the_same_result(predictor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "street.png")
    by_path, by_array = predictor(tmp_path / "street.png"), predictor(image)
    assert by_path.name == "street"
    for other in (by_array, predictor(Image.fromarray(image)), predictor(str(tmp_path / "street.png"))):
        assert np.array_equal(by_path.labels, other.labels)
        assert np.array_equal(by_path.confidence, other.confidence)


def test_arrays_with_negative_strides_are_accepted(predictor, image):
    predictor.card = replace(predictor.card, size=None)
    mirrored = predictor(image[:, ::-1, ::-1])
    assert np.array_equal(mirrored.labels, predictor(image[:, ::-1, ::-1].copy()).labels)


def test_a_size_beyond_the_pixel_limit_is_rejected(predictor, image):
    with pytest.raises(InputError, match=r"^size: 10000000 makes an image of 71,428,571,428,571 pixels, more than"):
        predictor(image, size=10_000_000)


def test_predictions_of_samples_equal_those_of_single_images(predictor):
    samples = registry.load("toy", None, "val")
    for index, (sample, labels, confidence) in zip((3, 1), predictor.predictions(samples, indices=(3, 1)), strict=True):
        assert np.array_equal(sample.image, samples[index].image)
        assert np.array_equal(labels, predictor(sample.image).labels)
        assert np.array_equal(confidence, predictor(sample.image).confidence)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (7, 7), (333, 21)])
def test_images_of_any_size_are_segmented_at_their_own_size(predictor, size):
    segmentation = predictor(np.zeros((*size, 3), np.uint8))
    assert segmentation.labels.shape == segmentation.confidence.shape == size
    assert segmentation.labels.max() < 6
    assert ((segmentation.confidence > 0) & (segmentation.confidence <= 1)).all()


def test_saved_files_hold_the_labels_and_the_summary(predictor, image, tmp_path):
    segmentation = predictor(image)
    paths = segmentation.save(tmp_path / "out")
    assert [path.name for path in paths] == ["image_overlay.png", "image_labels.png", "image.json"]
    assert np.array_equal(read_mask(paths[1]), segmentation.labels)
    overlay = read_image(paths[0])
    assert overlay.shape[0] >= 40
    assert overlay.shape[1] > 56
    summary = json.loads(paths[2].read_text())
    assert (summary["width"], summary["height"]) == (56, 40)
    assert sum(entry["share"] for entry in summary["classes"]) == pytest.approx(1)
    for entry in summary["classes"]:
        mask = segmentation.labels == segmentation.classes.names.index(entry["name"])
        assert entry["share"] == pytest.approx(mask.mean())
        assert entry["mean_confidence"] == pytest.approx(segmentation.confidence[mask].mean())


def test_repr_names_the_essentials_on_one_line(predictor, image):
    result = predictor(image)
    assert repr(predictor.inspect(image)).startswith("Inspection(Segmentation(")
    height, width = result.labels.shape
    first = ", ".join(result.classes.names[:3])
    assert repr(predictor) == f"Predictor(danet on test_resnet, 6 classes: {first}, ..., long side 128, cpu)"
    of_two = replace(predictor.card, classes=Classes.named(("a", "b")), size=None)
    predictor.card = replace(of_two, network={"architecture": "smp:PSPNet", **of_two.network})
    assert repr(predictor) == "Predictor(smp:PSPNet on test_resnet, 2 classes: a, b, any size, cpu)"
    assert repr(result).startswith(f"Segmentation('image', {width} x {height}: ")
    assert re.search(r": \w+ \d+%.*\)$", repr(result))
    unlabeled = replace(result, labels=np.full((2, 3), 255, np.uint8))
    assert repr(unlabeled) == "Segmentation('image', 3 x 2)"


def test_existing_files_are_overwritten_only_on_request(predictor, image, tmp_path):
    segmentation = predictor(image)
    (tmp_path / "image.json").write_text("mine")
    with pytest.raises(InputError, match=r"image\.json: already exists; choose another `out`, or add `overwrite`"):
        segmentation.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image.json"]
    segmentation.save(tmp_path, overwrite=True)
    assert json.loads((tmp_path / "image.json").read_text())["name"] == "image"


def test_conflicting_outputs_are_found_before_work_begins(tmp_path, image):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.fromarray(image).save(tmp_path / name)
    with pytest.raises(InputError, match=r"a\.png: would overwrite the results of .*a\.jpg; .* `out` folders"):
        find_jobs([tmp_path], tmp_path / "out")
    (tmp_path / "a.jpg").unlink()
    assert [job.file.name for job in find_jobs([tmp_path], tmp_path / "out").jobs] == ["a.png", "b.png"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b_labels.png").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        find_jobs([tmp_path], tmp_path / "out")
    with pytest.raises(InputError, match="would have 262 bytes, more than 255"):
        find_jobs([tmp_path / ("x" * 250 + ".png")], tmp_path / "out")


def test_outputs_that_differ_only_in_case_conflict_where_case_is_ignored(tmp_path, image, monkeypatch):
    for name in ("a.png", "A.png"):
        Image.fromarray(image).save(tmp_path / name)
    assert len(find_jobs([tmp_path], tmp_path / "out").jobs) == 2
    monkeypatch.setattr("danet.predict.inputs.ignores_case", lambda _: True)  # as on macOS and Windows
    with pytest.raises(InputError, match=r"a\.png: would overwrite the results of .*A\.png; rename one of them"):
        find_jobs([tmp_path], tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks beside threads
def test_a_forked_process_can_segment_images(predictor):
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(512, 512) @ torch.randn(512, 512)  # starts OpenMP's threads
        expected = predictor(image).confidence
        with multiprocessing.get_context("fork").Pool(1) as pool:
            confidence = pool.apply_async(_confidence, (predictor, image)).get(timeout=60)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(confidence, expected, atol=1e-5)


def _confidence(predictor, image) -> np.ndarray:
    return predictor(image).confidence


def test_label_images_keep_every_id(tmp_path):
    labels = np.array([[0, 1, 5, 255]], np.uint8)
    draw.label_image(labels, Classes.named(("a", "b"))).save(tmp_path / "l.png")
    assert read_mask(tmp_path / "l.png").tolist() == labels.tolist()


def test_overlays_blend_image_and_colors_with_white_borders():
    classes = Classes(("a", "b"), ((200, 0, 0), (0, 0, 200)))
    labels = np.zeros((6, 6), np.uint8)
    labels[:, 3:] = 1
    image = draw.overlay(np.full((6, 6, 3), 100, np.uint8), labels, classes, opacity=0.5)
    assert image[0, 0].tolist() == [150, 50, 50]
    assert image[0, 5].tolist() == [50, 50, 150]
    assert (image[:, 3] > 150).all()  # the border is white
    assert class_shares(labels, classes) == [(0, 0.5), (1, 0.5)]


@pytest.mark.parametrize(
    ("size", "legend"),
    [((480, 640), 640 * 0.4), ((4000, 3000), 3000 * 0.6), ((65_000, 1), 200), ((40_000, 300), 300), ((1, 5000), 200)],
)
def test_legends_are_no_wider_than_their_share_of_the_page(size, legend):
    entries = draw.share_legend(Classes.named(("sky", "building", "bicyclist")), [(0, 0.5), (1, 0.3), (2, 0.2)])
    page = draw.page_size(size, entries)
    assert size[1] < page[1] <= size[1] + legend
    assert size[0] <= page[0] <= max(size[0], 100)
    if size[0] * size[1] < 400_000:
        assert draw.with_legend(np.zeros((*size, 3), np.uint8), entries).size == page[::-1]


@pytest.mark.parametrize("size", [(1, 8_000_000), (8_000_000, 1)])
def test_only_strips_far_smaller_than_their_legend_get_none(size):
    entries = draw.share_legend(Classes.named(("a",)), [(0, 1.0)])
    assert draw.page_size(size, entries) == size


def test_names_of_classes_are_one_short_line_in_legends():
    names = ("x" * 1000, "\N{RIGHT-TO-LEFT OVERRIDE}ab")
    entries = draw.share_legend(Classes.named(names), [(0, 0.5), (1, 0.25)])
    assert [text for text, _ in entries] == ["x" * 57 + "...  50.0%", "\\u202eab  25.0%"]
    assert draw.with_legend(np.zeros((90, 60, 3), np.uint8), entries).width < 600


@needs_proc
@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 1)])
def test_memory_of_the_longest_images_is_bounded(predictor, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    results = []
    peak = peak_of(lambda: results.append(predictor(image)) or draw.to_png(results[0].overlay()))
    assert results[0].labels.shape == size
    assert peak < 100_000_000


def test_a_notebook_shows_the_overlay(predictor, image):
    result = predictor(image)
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(result.overlay()))


def test_segmentations_can_be_compared_and_are_equal_only_to_themselves(predictor, image):
    one, other = predictor(image), predictor(image)
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_dir_of_the_package_lists_the_public_names():
    assert {name for name in dir(danet) if not name.startswith("_")} == set(danet.__all__)


def test_every_public_name_can_be_imported():
    assert all(getattr(danet, name) is not None for name in danet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        danet.nothing  # noqa: B018
