"""Public datasets, read from miniature folders with the layout in which they are distributed."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from danet.data.datasets import ade20k, cityscapes, coco_stuff, pascal_context, pascal_voc
from danet.data.images.matlab import read_mat
from danet.data.samples import PairedFiles
from danet.errors import InputError

scipy_io = pytest.importorskip("scipy.io")


def image(file: Path, height: int = 2, width: int = 3) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file)


def png(file: Path, mask: list, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(mask, np.uint8))
    if mode == "P":
        image.putpalette([channel for color in pascal_voc.CLASSES.palette for channel in color])
    image.save(file)


def mat(file: Path, **variables: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(file, variables, do_compression=True)


def lists(folder: Path, **splits: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, stems in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems.split()))


def labels(samples: PairedFiles) -> dict[str, list]:
    return {sample.name: sample.labels.tolist() for sample in (samples[i] for i in range(len(samples)))}


ALL_LABEL_IDS = np.array([*range(34), 255]).reshape(5, 7)


def build_cityscapes(root: Path) -> None:
    for split, frame, mask in (
        ("train", "bochum_000000_000313", ALL_LABEL_IDS),
        ("train", "aachen_000001_000019", ALL_LABEL_IDS),
        ("val", "frankfurt_000000_000294", ALL_LABEL_IDS),
        ("test", "berlin_000000_000019", ALL_LABEL_IDS % 4),
    ):
        stem = root / "gtFine" / split / frame.split("_")[0] / f"{frame}_gtFine"
        image(root / "leftImg8bit" / split / frame.split("_")[0] / f"{frame}_leftImg8bit.png", 5, 7)
        png(stem.with_name(f"{stem.name}_labelIds.png"), mask.tolist())
        Image.fromarray((mask * 1000).astype(np.uint16)).save(stem.with_name(f"{stem.name}_instanceIds.png"))
        Image.new("RGBA", (7, 5)).save(stem.with_name(f"{stem.name}_color.png"))
        stem.with_name(f"{stem.name}_polygons.json").write_text("{}")


def build_voc(root: Path, devkit: str = "VOCdevkit/VOC2012", sbd: str = "benchmark_RELEASE/dataset") -> None:
    lists(
        root / devkit / "ImageSets" / "Segmentation",
        train="2007_b 2008_a",
        val="2007_c",
        trainval="2007_b 2007_c 2008_a",
        test="2008_t",
    )
    for stem in ("2007_b", "2007_c", "2008_a", "2008_t"):
        image(root / devkit / "JPEGImages" / f"{stem}.jpg")
    for stem in ("2007_b", "2007_c", "2008_a"):
        png(root / devkit / "SegmentationClass" / f"{stem}.png", [[0, 255, 15], [20, 255, 1]], "P")
    lists(root / sbd, train="2008_a 2007_c 2010_e", val="2009_d 2007_b")
    for stem in ("2007_b", "2007_c", "2008_a", "2009_d", "2010_e"):
        image(root / sbd / "img" / f"{stem}.jpg")
        boundaries = np.empty((20, 1), object)
        boundaries[:] = [[np.zeros((2, 3))]] * 20
        mask = np.array([[7, 7, 7], [0, 20, 0]], np.uint8)
        mat(
            root / sbd / "cls" / f"{stem}.mat",
            GTcls={"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": [[7], [20]]},
        )


def build_context(root: Path) -> None:
    lists(root / "VOCdevkit/VOC2010/ImageSets/SegmentationContext", train="2008_b 2008_a", val="2008_c")
    for stem in ("2008_a", "2008_b", "2008_c"):
        image(root / "VOCdevkit/VOC2010/JPEGImages" / f"{stem}.jpg")
        mat(root / "trainval" / f"{stem}.mat", LabelMap=np.array([[2, 284, 458], [0, 1, 459]], np.uint16))


def build_coco_stuff(root: Path) -> None:
    lists(root / "imageLists", train="COCO_train2014_000000000077", test="COCO_train2014_000000000064", all="77 64")
    for number in (64, 77):
        stem = f"COCO_train2014_{number:012d}"
        image(root / "images" / f"{stem}.jpg")
        mask = np.array([[0.0, 1, 11], [13, 90, 92 if number == 77 else 182]])  # MATLAB's double
        mat(root / "annotations" / f"{stem}.mat", S=mask, names=np.array(["person"], object), captions=["a cat"])


def build_ade20k(root: Path) -> None:
    for folder, stem in (
        ("training", "ADE_train_00000001"),
        ("training", "ADE_train_00000002"),
        ("validation", "ADE_val_00000001"),
    ):
        image(root / "images" / folder / f"{stem}.jpg")
        png(root / "annotations" / folder / f"{stem}.png", [[0, 1, 2], [149, 150, 0]])


class Miniature(NamedTuple):
    build: Callable[[Path], None]
    load: Callable[[Path, str], PairedFiles]
    counts: dict[str, int]
    classes: int
    mask: str
    sizes: dict[str, int]


DATASETS = {
    "cityscapes": Miniature(
        build_cityscapes,
        cityscapes.load,
        cityscapes.COUNTS,
        19,
        "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png",
        {"train": 2, "val": 1, "test": 1},
    ),
    "voc": Miniature(
        build_voc,
        pascal_voc.load,
        pascal_voc.COUNTS,
        21,
        "VOCdevkit/VOC2012/SegmentationClass/2008_a.png",
        {"train": 2, "trainaug": 4, "val": 1, "trainval": 3, "test": 1},
    ),
    "context": Miniature(
        build_context, pascal_context.load, pascal_context.COUNTS, 60, "trainval/2008_a.mat", {"train": 2, "val": 1}
    ),
    "coco_stuff": Miniature(
        build_coco_stuff,
        coco_stuff.load,
        coco_stuff.COUNTS,
        171,
        "annotations/COCO_train2014_000000000077.mat",
        {"train": 1, "test": 1, "val": 1},
    ),
    "ade20k": Miniature(
        build_ade20k,
        ade20k.load,
        ade20k.COUNTS,
        150,
        "annotations/training/ADE_train_00000002.png",
        {"train": 2, "val": 1},
    ),
}


@pytest.fixture(params=DATASETS)
def dataset(request, tmp_path) -> Miniature:
    chosen = DATASETS[request.param]
    chosen.build(tmp_path)
    return chosen


def test_every_split_has_its_samples_in_train_ids(dataset, tmp_path):
    assert dataset.sizes.keys() == dataset.counts.keys()
    for split, size in dataset.sizes.items():
        samples = pickle.loads(pickle.dumps(dataset.load(tmp_path, split)))  # as a worker of the loader receives them
        assert len(samples) == size
        assert len(samples.classes) == dataset.classes
        for image, mask in ((samples[i].image, samples[i].labels) for i in range(size)):
            assert image.shape == (*mask.shape, 3)
            assert mask.dtype == np.uint8
            assert set(mask.ravel()) <= {*range(dataset.classes), 255}


def test_a_missing_mask_is_reported(dataset, tmp_path):
    mask = tmp_path / dataset.mask
    mask.unlink()
    with pytest.raises(InputError, match=rf"1 of \d masks are missing.*{mask.name}"):
        dataset.load(tmp_path, "train")


def test_an_unknown_split_lists_the_splits_and_an_empty_root_is_named(dataset, tmp_path):
    for root, split, message in (
        (tmp_path, "training_set", ", ".join(dataset.counts)),
        (tmp_path / "nowhere", "train", "nowhere"),
    ):
        with pytest.raises(InputError, match=message):
            dataset.load(root, split)


@pytest.mark.parametrize("name", ["voc", "context", "coco_stuff"])
def test_a_missing_image_of_a_list_is_reported(name, tmp_path):
    DATASETS[name].build(tmp_path)
    next(tmp_path.rglob("*_a.jpg"), tmp_path / "images/COCO_train2014_000000000077.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of \d images are missing: (2008_a|COCO_train2014_000000000077)\.jpg"):
        DATASETS[name].load(tmp_path, "train")


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path):
    build_cityscapes(tmp_path)
    samples = cityscapes.load(tmp_path, "train")
    assert [pair.name for pair in samples.pairs] == ["aachen_000001_000019", "bochum_000000_000313"]
    by_label_id = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    by_label_id += [255, 255, 16, 17, 18, 255]
    assert samples[0].labels.ravel().tolist() == by_label_id
    assert [by_label_id[label_id] for label_id in cityscapes.TRAIN_TO_LABEL_ID] == list(range(19))
    assert (cityscapes.load(tmp_path, "test")[0].labels == 255).all()


def test_cityscapes_refuses_an_unknown_label_id(tmp_path):
    build_cityscapes(tmp_path)
    png(tmp_path / DATASETS["cityscapes"].mask, np.full((5, 7), 34).tolist())
    with pytest.raises(InputError, match=r"aachen_000001_000019_gtFine_labelIds\.png: value 34 .* 35 pixels"):
        _ = cityscapes.load(tmp_path, "train")[0]


@pytest.mark.parametrize("layout", [("VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"), (".", "sbd")])
def test_trainaug_is_voc_train_plus_sbd_without_voc_val(tmp_path, layout):
    build_voc(tmp_path, *layout)
    from_voc, from_sbd = [[0, 255, 15], [20, 255, 1]], [[7, 7, 7], [0, 20, 0]]
    assert labels(pascal_voc.load(tmp_path, "trainaug")) == {
        "2007_b": from_voc,
        "2008_a": from_voc,
        "2009_d": from_sbd,
        "2010_e": from_sbd,
    }
    assert labels(pascal_voc.load(tmp_path, "val")) == {"2007_c": from_voc}


def test_voc_test_is_unlabeled(tmp_path):
    build_voc(tmp_path)
    shutil.rmtree(tmp_path / "VOCdevkit/VOC2012/SegmentationClass")
    assert labels(pascal_voc.load(tmp_path, "test")) == {"2008_t": [[255] * 3] * 2}


def test_voc_has_the_official_palette():
    colors = dict(zip(pascal_voc.CLASSES.names, pascal_voc.CLASSES.palette, strict=True))
    assert (colors["background"], colors["person"], colors["tvmonitor"]) == (
        (0, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
    )


def test_context_has_60_or_59_classes(tmp_path):
    build_context(tmp_path)
    assert labels(pascal_context.load(tmp_path, "val")) == {"2008_c": [[1, 37, 59], [0, 0, 0]]}
    assert labels(pascal_context.load59(tmp_path, "val")) == {"2008_c": [[0, 36, 58], [255, 255, 255]]}
    assert pascal_context.CLASSES.names[37] == pascal_context.CLASSES_59.names[36] == "person"
    assert pascal_context.CLASSES.palette[1:] == pascal_context.CLASSES_59.palette


def test_context_reads_the_splits_of_the_detail_challenge(tmp_path):
    build_context(tmp_path)
    shutil.rmtree(tmp_path / "VOCdevkit/VOC2010/ImageSets")
    merged = tmp_path / "trainval_merged.json"
    images = [
        {"file_name": "2008_a.jpg", "image_id": 2008000001, "phase": "val"},
        {"file_name": "2008_b.jpg", "image_id": 2008000002, "phase": "train"},
        {"file_name": "2008_c.jpg", "image_id": 2008000003, "phase": "train"},
    ]
    merged.write_text(json.dumps({"images": images, "annos_segmentation": []}))
    assert [pair.name for pair in pascal_context.load(tmp_path, "train").pairs] == ["2008_b", "2008_c"]
    with pytest.raises(InputError, match=r"trainval_merged\.json: lists no images"):
        pascal_context.load(tmp_path, "test")
    merged.write_text(json.dumps({"images": images})[:-9])
    with pytest.raises(InputError, match=r"trainval_merged\.json: truncated or damaged"):
        pascal_context.load(tmp_path, "train")


def test_coco_stuff_skips_ids_that_are_never_labeled(tmp_path):
    build_coco_stuff(tmp_path)
    names = coco_stuff.CLASSES.names
    assert labels(coco_stuff.load(tmp_path, "train")) == {"COCO_train2014_000000000077": [[255, 0, 10], [11, 79, 80]]}
    assert labels(coco_stuff.load(tmp_path, "val")) == labels(coco_stuff.load(tmp_path, "test"))
    assert labels(coco_stuff.load(tmp_path, "val"))["COCO_train2014_000000000064"][1][2] == names.index("wood") == 170
    assert [names[i] for i in (0, 10, 11, 79, 80)] == ["person", "fire hydrant", "stop sign", "toothbrush", "banner"]
    mat(tmp_path / DATASETS["coco_stuff"].mask, S=np.full((2, 3), 12))
    with pytest.raises(InputError, match=r"000000000077\.mat: value 12 is not one of the 171 classes"):
        _ = coco_stuff.load(tmp_path, "train")[0]


def test_ade20k_ids_begin_with_one(tmp_path):
    build_ade20k(tmp_path)
    assert labels(ade20k.load(tmp_path, "val")) == {"ADE_val_00000001": [[255, 0, 1], [148, 149, 255]]}
    assert (ade20k.CLASSES.names[0], ade20k.CLASSES.palette[0]) == ("wall", (120, 120, 120))
    assert (ade20k.CLASSES.names[-1], ade20k.CLASSES.palette[-1]) == ("flag", (92, 0, 255))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8", "?"])
def test_mat_files_read_as_scipy_reads_them(tmp_path, dtype, compressed):
    for shape in ((1, 1), (2, 1), (7, 5), (40, 30)):  # up to four bytes are stored in the tag
        mask = np.random.default_rng(0).integers(0, 128, shape).astype(dtype)
        variables = {"caption": "a cat", "cells": np.array([[1, "b"]], object), "S": mask, "G": {"a": [1.5], "S": mask}}
        scipy_io.savemat(tmp_path / "mask.mat", variables, do_compression=compressed)
        for field in ("S", "G.S"):
            assert np.array_equal(read_mat(tmp_path / "mask.mat", field), scipy_io.loadmat(tmp_path / "mask.mat")["S"])


@pytest.mark.parametrize(
    "variables",
    [{"T": [[1]]}, {"S": np.zeros((2, 2, 2))}, {"S": [[0.5]]}, {"S": [[-1]]}, {"S": [[np.nan]]}, {"S": "text"}],
    ids=["other name", "three axes", "fraction", "negative", "nan", "text"],
)
def test_a_mat_file_without_ids_is_refused(tmp_path, variables):
    mat(tmp_path / "mask.mat", **variables)
    with pytest.raises(InputError, match=r"mask\.mat: truncated or damaged: cannot read S"):
        read_mat(tmp_path / "mask.mat", "S")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_mat_files_are_one_line_errors(tmp_path, compressed):
    file, mask = tmp_path / "mask.mat", np.arange(600, dtype=np.uint16).reshape(20, 30)
    scipy_io.savemat(file, {"GTcls": {"Segmentation": mask}}, do_compression=compressed)
    whole = file.read_bytes()
    cut = [whole[: len(whole) * tenths // 10] for tenths in range(10)]
    rng = np.random.default_rng(0)
    flipped = [np.frombuffer(whole, np.uint8).copy() for _ in range(200)]
    for content in flipped:
        content[rng.integers(120, len(whole))] ^= 1 << rng.integers(8)
    refusals = []
    for damaged in [b"<!DOCTYPE html>" * 40, *cut, *(content.tobytes() for content in flipped)]:
        file.write_bytes(damaged)
        try:
            assert read_mat(file, "GTcls.Segmentation").dtype == np.uint16
        except InputError as error:
            refusals.append(str(error))
    assert all("mask.mat: truncated or damaged" in refusal and "\n" not in refusal for refusal in refusals)
    assert len(refusals) > (200 if compressed else 20)  # only compressed data has a checksum
