"""danet init finds images and masks, and infers what the values in the masks mean."""

import os
import re

import numpy as np
import pytest
from miniature import (
    HEIGHT,
    PALETTE,
    ROAD,
    TREE,
    VOID,
    WIDTH,
    build,
    colored,
    image,
    labels,
    save,
    save_palette,
    stripes,
)

from danet import InputError
from danet.data.classes import Classes
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.layout import Layout
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose
from danet.data.datasets import cityscapes
from danet.data.naming import Naming


def test_plain_ids(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 1), stripes(2, 255)] * 5))
    assert (proposal.kind, proposal.layout, proposal.pairs) == ("class ids", Layout(tmp_path, splits={}), 10)
    assert proposal.values == {0: 480, 1: 480, 2: 480, 255: 480}
    assert proposal.classes == Classes.named(("class_0", "class_1", "class_2"))
    assert (proposal.ignore, proposal.label_map) == (255, None)
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


def test_0_255_masks_with_smoothed_edges_are_recognized(tmp_path):
    edge = stripes(0)
    edge[:, :8] = 255
    edge[0, 7:10] = 190, 120, 60
    proposal = propose(build(tmp_path, [edge] * 10))
    assert (proposal.kind, proposal.label_map, proposal.threshold) == ("0/255", None, 128)
    assert proposal.notes == (
        "30 pixels have values between 0 and 255 (3 different ones): smoothed edges, divided by threshold: 128; other "
        "thresholds make objects larger or smaller",
    )
    assert proposal.values == {0: 10 * int((edge < 128).sum()), 255: 10 * int((edge >= 128).sum())}
    write(tmp_path, proposal)
    assert check_folder(tmp_path).problems == ()
    read = dataset_yaml.load(tmp_path, "train").labels(0)
    assert (read == (edge >= 128)).all()


def test_smoothed_masks_without_a_threshold_name_it(tmp_path):
    edge = stripes(0, 255)
    edge[0, 7:10] = 190, 120, 60
    build(tmp_path, [edge] * 10)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nlabel_map: {0: 0, 255: 1}\n")
    problems = check_folder(tmp_path).problems
    assert len(problems) == 10
    assert "write threshold: 128 in dataset.yaml, instead of label_map" in problems[0].remedy


@pytest.mark.parametrize("one_bit", [True, False])
def test_white_may_be_1_in_some_masks_and_255_in_others(tmp_path, one_bit):
    build(tmp_path, [stripes(0, 255)] * 6 + [stripes(0)])
    for i in range(3):
        save(tmp_path / f"masks/p{i}.png", stripes(0, 1) > 0 if one_bit else stripes(0, 1))
    proposal = propose(tmp_path)
    assert (proposal.kind, proposal.classes.names) == ("0/255", ("background", "foreground"))
    assert (proposal.ignore, proposal.label_map) == (None, {0: 0, 1: 1, 255: 1})
    assert proposal.notes == (
        "masks with the values 0 and 1: 3 of 7 (p0.png, p1.png, p2.png); the others have 0 and 255, and none has both "
        "1 and 255, so 1 and 255 are read as one class; if 255 means unlabeled, delete dataset.yaml and run danet init "
        "DIR --ignore 255",
    )
    (tmp_path / "classes.txt").write_text("sky\ncloud\n")
    proposal = propose(tmp_path)
    assert (proposal.classes.names, proposal.label_map) == (("sky", "cloud"), {0: 0, 1: 1, 255: 1})
    write(tmp_path, proposal)
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert not any("255" in warning.what for warning in report.warnings)
    assert report.splits["all"].pixels == (6 * 96 + 192, 6 * 96)
    given = propose(tmp_path, ignore=255)
    assert (given.ignore, given.label_map, given.classes.names) == (255, None, ("sky", "cloud"))


@pytest.mark.parametrize("more", [stripes(0, 1, 255), stripes(0, 2, 255)])
def test_1_and_255_in_one_mask_differ(tmp_path, more):
    proposal = propose(build(tmp_path, [stripes(0, 255), stripes(0, 1), more] * 3))
    assert proposal.ignore == 255
    assert proposal.label_map is None


def test_an_existing_dataset_yaml_that_ignores_one_of_two_whites_is_noticed(tmp_path):
    build(tmp_path, [stripes(0, 255)] * 4 + [stripes(0, 1)] * 4)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    first, *_ = check_folder(tmp_path).warnings
    assert "4 of 8 (p4.png, p5.png, p6.png, p7.png); the others have 0 and 255, and none has both" in first.what
    assert "write label_map: {0: 0, 1: 1, 255: 1} in dataset.yaml, without ignore" in first.remedy


def test_masks_of_the_same_name_in_several_folders_count_each(tmp_path):
    for city, white in (("bonn", 1), ("ulm", 255)):
        build(tmp_path, [stripes(0, white)] * 4, f"images/{city}", f"masks/{city}")
    assert any("0 and 1: 4 of 8 (p0.png, p1.png" in note for note in propose(tmp_path).notes)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nimages: images/*\nmasks: masks/*\n")
    warnings = [warning.what for warning in check_folder(tmp_path).warnings]
    assert any("0 and 1: 4 of 8 (p0.png, p1.png" in what for what in warnings)


def test_white_of_1_bit_is_above_a_threshold(tmp_path):
    edge = stripes(0)
    edge[:, :8] = 255
    edge[0, 7:10] = 190, 120, 60
    build(tmp_path, [edge] * 10)
    save(tmp_path / "masks/p3.png", edge >= 128)
    proposal = propose(tmp_path)
    assert proposal.threshold == 128
    assert proposal.values == {0: 10 * int((edge < 128).sum()), 255: 10 * int((edge >= 128).sum())}
    write(tmp_path, proposal)
    report = check_folder(tmp_path)
    assert report.splits["all"].pixels == tuple(proposal.values.values())
    assert report.warnings == ()


def test_masks_of_0_and_1_below_a_threshold_are_named(tmp_path):
    edge = stripes(0)
    edge[:, :8] = 255
    edge[0, 7:10] = 190, 120, 60
    build(tmp_path, [edge] * 10)
    save(tmp_path / "masks/p3.png", (edge >= 128).astype(np.uint8))
    proposal = propose(tmp_path)
    what = "masks of only 0 and 1, which are below the threshold: 1 of 10 (p3.png)"
    assert f"{what}; save them with 0 and 255" in proposal.notes
    write(tmp_path, proposal)
    assert what in [warning.what for warning in check_folder(tmp_path).warnings]


def test_255_that_is_read_as_unlabeled_is_noted(tmp_path):
    build(tmp_path, [stripes(0, 1, 2, 255)] * 4)
    note = "255 is read as unlabeled: 25.0% of the pixels are ignored; if it is a class, add it to classes and "
    assert any(text.startswith(note) for text in propose(tmp_path).notes)
    assert not any("255 is read" in text for text in propose(tmp_path, ignore=255).notes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("classes: [a, b]\nthreshold: 0", "threshold: must be a mask value from 1 to 255, got 0"),
        ("classes: [a, b]\nthreshold: half", "threshold: must be a mask value from 1 to 255, got 'half'"),
        ("classes: [a, b, c]\nthreshold: 128", "threshold: separates two classes, but there are 3"),
        ("classes: [a, b]\nthreshold: 9\nlabel_map: {0: 0}", "threshold and label_map exclude each other"),
        ("classes: [a, b]\nthreshold: 9\ncolors: [[0, 0, 0], [9, 9, 9]]", "threshold and colors exclude each other"),
    ],
)
def test_invalid_thresholds_are_refused(tmp_path, lines, message):
    build(tmp_path, [stripes(0, 255)] * 10)
    (tmp_path / "dataset.yaml").write_text(f"{lines}\n")
    with pytest.raises(InputError, match=re.escape(message)):
        dataset_yaml.load(tmp_path, "train")


def test_threshold_ignores_only_values_that_are_named(tmp_path):
    build(tmp_path, [stripes(0, 100, 200, 255)] * 10)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nthreshold: 150\nignore: 100\n")
    assert labels(tmp_path) == {0, 1, 255}
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nthreshold: 150\n")
    assert labels(tmp_path) == {0, 1}


def test_gray_coded_masks(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 127, 255, 0)] * 10))
    assert (proposal.kind, proposal.label_map, proposal.ignore) == ("class ids", {0: 0, 127: 1, 255: 2}, None)
    assert "255 is read as a class" in proposal.notes[0]
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2}


@pytest.mark.parametrize(("void", "given"), [(255, None), (0, 0)])
def test_labels_from_one(tmp_path, void, given):
    proposal = propose(build(tmp_path, [stripes(1, 2), stripes(3, void)] * 5), ignore=given)
    assert (proposal.kind, proposal.ignore, proposal.label_map) == ("class ids from 1", void, {1: 0, 2: 1, 3: 2})
    assert proposal.classes.names == ("class_1", "class_2", "class_3")
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2, 255}


def test_gaps_among_the_values(tmp_path):
    proposal = propose(build(tmp_path / "few", [stripes(0, 1, 3, 4)] * 2))
    assert (len(proposal.classes), proposal.label_map) == (5, None)
    assert proposal.notes[0] == "no pixel has the value 2; kept as classes because larger values are used"
    proposal = propose(build(tmp_path / "many", [stripes(0, 9, 31, 32)] * 2))
    assert proposal.label_map == {0: 0, 9: 1, 31: 2, 32: 3}
    assert proposal.classes.names == ("class_0", "class_9", "class_31", "class_32")
    assert any("only those found became classes" in note for note in proposal.notes)
    (tmp_path / "many/classes.txt").write_text("\n".join(f"thing{i}" for i in range(40)))
    proposal = propose(tmp_path / "many", first_class=0)
    assert len(proposal.classes) == 40
    assert not any("only those found became classes" in note for note in proposal.notes)


def test_palette_masks_give_class_ids_and_colors(tmp_path):
    for i in range(10):
        image(tmp_path / "JPEGImages" / f"p{i}.jpg")
        save_palette(tmp_path / "SegmentationClass" / f"p{i}.png", stripes(0, 1, 2, 255), PALETTE)
    proposal = propose(tmp_path)
    assert proposal.layout == Layout(tmp_path, "JPEGImages", "SegmentationClass", splits={})
    assert proposal.kind == "palette"
    assert proposal.classes == Classes(("class_0", "class_1", "class_2"), PALETTE[:3])
    assert (proposal.label_map, proposal.ignore) == (None, 255)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2, 255}
    assert dataset_yaml.load(tmp_path, "train").classes.palette == PALETTE[:3]


def test_palettes_that_differ_are_read_as_colors(tmp_path):
    for i in range(4):
        image(tmp_path / "images" / f"p{i}.jpg")
        save_palette(tmp_path / "masks" / f"p{i}.png", stripes(0, 1), PALETTE[i % 2 :][:4])
    proposal = propose(tmp_path)
    assert (proposal.kind, proposal.classes.palette) == ("colors", tuple(sorted(PALETTE[:3])))
    note = "the palettes differ between masks, so the masks are read as colors, not as palette indices"
    assert proposal.notes[0] == note


def test_colored_masks(tmp_path):
    build(tmp_path, [colored(ROAD, TREE), colored(ROAD), colored(VOID)])
    proposal = propose(tmp_path)
    assert (proposal.kind, proposal.label_map, proposal.ignore) == ("colors", None, None)
    assert proposal.values == {VOID: 192, TREE: 96, ROAD: 288}
    assert proposal.classes == Classes(("rgb_0_0_0", "rgb_0_128_0", "rgb_128_64_128"), (VOID, TREE, ROAD))
    text = write(tmp_path, proposal).read_text()
    assert "colors:   # color of each class in the masks (R, G, B)\n  - [0, 0, 0]   # rgb_0_0_0\n" in text
    assert labels(tmp_path) == {0, 1, 2}
    samples = dataset_yaml.load(tmp_path, "train")
    assert samples.classes == proposal.classes
    assert samples.read_mask(tmp_path / "masks" / "p0.png")[0, :4].tolist() == [2, 1, 2, 1]
    save(tmp_path / "masks" / "p1.png", colored(ROAD, (1, 2, 3)))
    found = check_folder(tmp_path).problems
    assert [str(problem.file.name) for problem in found] == ["p1.png"]
    assert "color [1, 2, 3] is not one of the 3 classes' colors: 96 pixels, the first at x=1, y=0" in found[0].what


def test_smoothed_colors_are_an_error(tmp_path):
    build(tmp_path, [np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for i in range(2)])
    with pytest.raises(InputError, match=r"masks: the masks have \d+ colors, probably from smoothed edges \(most"):
        propose(tmp_path)


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    mask = stripes(0, 1, 4, 7, 8, 11, 17, 19, 20, 21, 23, 24, 26, 33, 3, 31)
    proposal = propose(build(tmp_path, [mask] * 10))
    assert (proposal.kind, proposal.classes, proposal.ignore) == ("Cityscapes label ids", cityscapes.CLASSES, 255)
    assert proposal.label_map == {
        **dict.fromkeys(range(34), 255),
        **{label_id: i for i, label_id in enumerate(cityscapes.TRAIN_TO_LABEL_ID)},
    }
    write(tmp_path, proposal)
    assert labels(tmp_path) == {255, 0, 1, 2, 5, 6, 7, 8, 10, 11, 13, 18, 16}


def test_instance_masks_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"2 values from 26000 to 26001: perhaps instance ids.* with a label_map$"):
        propose(build(tmp_path, [stripes(0, 1).astype(np.uint16) + 26000]))


def test_16_bit_class_codes_are_mapped(tmp_path):
    codes = stripes(0, 1, 2).astype(np.uint16) * 206 + 111
    proposal = propose(build(tmp_path, [codes] * 5))
    assert proposal.label_map == {111: 0, 317: 1, 523: 2}
    assert any("values above 255 are read as classes" in note for note in proposal.notes)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2}


def test_an_ignored_value_that_no_mask_has_is_an_error(tmp_path):
    build(tmp_path, [stripes(0, 255)] * 5)
    with pytest.raises(InputError, match="ignore: no mask has the value 300; choose one of 0, 255"):
        propose(tmp_path, ignore=300)
    assert propose(tmp_path, ignore=255).ignore == 255


def test_a_list_of_names_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfsky\r\nroad\r\n")
    assert propose(build(tmp_path, [stripes(0, 1)] * 5)).classes.names == ("sky", "road")


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("pictures", "labels"),  # vocabulary: old name
        ("Imgs", "GT"),
        ("data/JPEGImages", "data/Ground_Truth"),
        ("img", "annotations"),
        ("leftImg8bit", "gtFine"),
    ],
)
def test_usual_folder_names_are_found(tmp_path, images, masks):
    proposal = propose(build(tmp_path, [stripes(0, 1)] * 5, images, masks))
    assert proposal.layout == Layout(tmp_path, images, masks, splits={})
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}


def test_train_and_val_folders(tmp_path):
    for split in ("train", "val"):
        build(tmp_path, [stripes(0, 1)] * 2, f"images/{split}", f"masks/{split}")
    proposal = propose(tmp_path)
    assert (proposal.layout, proposal.pairs, proposal.notes) == (Layout(tmp_path), 4, ())
    text = write(tmp_path, proposal).read_text()
    assert "val: " not in text
    assert labels(tmp_path) == {0, 1}


@pytest.mark.parametrize(
    ("places", "images", "masks", "splits"),
    [
        ("{}/images {}/masks train val", "{split}/images", "{split}/masks", {}),
        ("data/{}/imgs data/{}/gt Training Valid", "data/{split}/imgs", "data/{split}/gt", ("Training", "Valid")),
        ("images/{} annotations/{} training validation", "images", "annotations", ("training", "validation")),
        ("{} {}annot train val", ".", "{split}annot", {}),
        ("{}_images {}_masks train val", "{split}_images", "{split}_masks", {}),
        ("images/{}2017 annotations/{}2017 train val", "images/{split}2017", "annotations/{split}2017", {}),
        ("images/{} {}/masks train val", "images", "{split}/masks", {}),
    ],
)
def test_split_folders_are_found_at_any_level_and_name(tmp_path, places, images, masks, splits):
    *patterns, train, val = places.split()
    for word, count in ((train, 3), (val, 2)):
        build(tmp_path, [stripes(0, 1)] * count, *(pattern.format(word) for pattern in patterns))
    proposal = propose(tmp_path)
    named = dict(zip(("train", "val"), splits or ("train", "val"), strict=True))
    assert (proposal.layout, proposal.notes) == (Layout(tmp_path, images, masks, splits=named), ())
    write(tmp_path, proposal)
    assert [len(dataset_yaml.load(tmp_path, split)) for split in ("train", "val")] == [3, 2]
    report = check_folder(tmp_path)
    assert (report.problems, list(report.splits)) == ((), ["train", "val"])
    assert labels(tmp_path) == {0, 1}


@pytest.mark.parametrize(("images", "masks"), [("{}/images", "{}/masks"), ("images/{}", "masks/{}")])
def test_a_single_split_is_divided_and_unused_folders_noted(tmp_path, images, masks):
    build(tmp_path, [stripes(0, 1)] * 5, images.format("train"), masks.format("train"))
    build(tmp_path, [stripes(0, 1)], images.format("test"), masks.format("test"))
    proposal = propose(tmp_path)
    assert proposal.layout == Layout(tmp_path, images.format("train"), masks.format("train"), splits={})
    assert proposal.notes == (
        f"not used: the images in {images.format('test')}",
        f"{images.format('train')} is the only split with masks: part of it is used for validation",
    )
    write(tmp_path, proposal)
    assert len(dataset_yaml.load(tmp_path, "train")) + len(dataset_yaml.load(tmp_path, "val")) == 5
    assert check_folder(tmp_path).problems == ()


@pytest.mark.parametrize("end", [".png", "_mask.png", "_L.png"])
@pytest.mark.parametrize("place", ["", "images", "{split}"])
def test_masks_in_the_folder_of_their_images(tmp_path, place, end):
    for split in ("train", "val") if place == "{split}" else ("",):
        where = place.format(split=split)
        build(tmp_path, [stripes(0, 1)] * 12, where, where, end)  # p1 is a prefix of p10
    proposal = propose(tmp_path)
    inside = {"train": "train", "val": "val"} if place == "{split}" else {}
    where = place.replace("{split}", "") or "."
    assert (proposal.layout, proposal.notes) == (Layout(tmp_path, where, where, Naming(end), inside), ())
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == []
    first = dataset_yaml.load(tmp_path, "train").pairs[0].image.parent
    (first / f"p3{end}").unlink()
    assert any("masks are missing" in str(p) or f"p3{end}" in str(p) for p in check_folder(tmp_path).problems)


@pytest.mark.parametrize(
    ("image_suffix", "mask_suffix", "together"),
    [
        ("_sat", "_mask.png", False),
        ("_sat", "_mask.png", True),
        ("_leftImg8bit", "_gtFine_labelTrainIds.png", False),
    ],
)
def test_images_with_their_own_suffix(tmp_path, image_suffix, mask_suffix, together):
    build(tmp_path, [stripes(0, 1)] * 12, "images", "images" if together else "masks", mask_suffix)
    for file in (tmp_path / "images").glob("*.jpg"):
        file.rename(file.with_name(f"{file.stem}{image_suffix}.jpg"))
    proposal = propose(tmp_path)
    where = "images" if together else "masks"
    assert proposal.layout == Layout(tmp_path, "images", where, Naming(mask_suffix, image_suffix), {})
    assert (proposal.pairs, proposal.notes) == (12, ())
    assert (
        f"the mask of a{image_suffix}.jpg is a{mask_suffix}\nimage_suffix: {image_suffix}\n"
        in write(tmp_path, proposal).read_text()
    )
    assert labels(tmp_path) == {0, 1}
    assert check_folder(tmp_path).problems == ()
    (tmp_path / "images" / f"p7{image_suffix}.jpg").unlink()
    (problem,) = check_folder(tmp_path).problems
    assert (problem.file.name, problem.remedy) == (f"p7{mask_suffix}", f"add p7{image_suffix}.jpg, or remove the mask")


def test_roboflow_exports_are_recognized(tmp_path):
    for split, images in (("train", 6), ("valid", 2), ("test", 1)):
        build(tmp_path, [stripes(0, 1, 2)] * images, split, split, "_mask.png")
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, crack\n2, rust\n")
    proposal = propose(tmp_path)
    assert proposal.classes.names == ("background", "crack", "rust")
    assert proposal.notes[0] == "not used: the images in test"
    write(tmp_path, proposal)
    assert [len(dataset_yaml.load(tmp_path, split)) for split in ("train", "val")] == [6, 2]
    assert check_folder(tmp_path).problems == ()
    longer = "Pixel Value, Class\n0, background\n1, crack\n2, rust\n3, moss\n"
    (tmp_path / "train" / "_classes.csv").write_text(longer)
    assert propose(tmp_path).classes.names == ("background", "crack", "rust", "moss")
    assert "_classes.csv lists classes that no pixel has: 1 (moss); they are kept" in propose(tmp_path).notes
    (tmp_path / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n5, crack\n2, rust\n")
    assert propose(tmp_path).classes.names == ("background", "class_1", "rust", "crack")


def test_video_frames_are_not_mistaken_for_masks(tmp_path):
    for i in range(12):
        image(tmp_path / f"frame_{i:03}.png")
    with pytest.raises(InputError, match="found images in the folder itself, but no pair of images and masks"):
        propose(tmp_path)


def test_a_folder_of_images_beside_another_dataset_is_not_taken_for_its_part(tmp_path):
    build(tmp_path / "other", [stripes(0, 1)])
    image(tmp_path / "export" / "train" / "a.jpg")
    with pytest.raises(InputError, match="train: found images in the folder itself, but no pair"):
        propose(tmp_path / "export" / "train")


def test_a_folder_with_only_masks_is_an_error(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 3, "", "")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nimages: .\nmasks: .\n")
    for file in tmp_path.glob("*.jpg"):
        file.unlink()
    with pytest.raises(InputError, match=r"contains only masks \(\*\.png\), no images; add the images"):
        dataset_yaml.load(tmp_path, "train")


@pytest.mark.parametrize(
    ("places", "images", "masks", "note"),
    [
        ("train/images train/masks dev/images dev/masks", "train/images", "train/masks", "dev/images, dev/masks"),
        ("trainset/images trainset/masks testset/images testset/masks", "trainset/images", "trainset/masks", "testset"),
        ("data/images data/labels predictions/masks", "data/images", "data/labels", "predictions/masks"),
        (
            "part1/images part1/masks part2/images part2/masks",
            "*/images",
            "*/masks",
            "in 2 folders, */images: part1, part2",
        ),
        ("img_dir/train ann_dir/train", "img_dir/train", "ann_dir/train", "part of it is used for validation"),
        ("images/train masks", "images/train", "masks", "part of it is used for validation"),
        ("a b/train b/trainannot", "b/train", "b/trainannot", "is the only split with masks"),
        ("stills labeled", "stills", "labeled", ""),
    ],
)
def test_matching_folders_are_found_and_others_noted(tmp_path, places, images, masks, note):
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    for place in places.split():
        end = ".png" if any(word in place for word in ("mask", "annot", "label", "ann_")) else ".jpg"
        for i in range(6):
            save(tmp_path / place / f"p{i}{end}", stripes(0, 1) if end == ".png" else colored(ROAD, TREE))
    proposal = propose(tmp_path)
    assert (proposal.layout.images, proposal.layout.masks) == (images, masks)
    assert note in " ".join(proposal.notes)
    write(tmp_path, proposal)
    assert len(dataset_yaml.load(tmp_path, "train")) == (10 if "*" in images else 5)
    assert check_folder(tmp_path).problems == ()


def test_splits_may_share_a_folder_of_masks(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 8)
    for i in range(8):
        split = tmp_path / "images" / ("val" if i > 5 else "train")
        split.mkdir(exist_ok=True)
        (tmp_path / "images" / f"p{i}.jpg").rename(split / f"p{i}.jpg")
    proposal = propose(tmp_path)
    assert (proposal.layout, proposal.pairs, proposal.notes) == (Layout(tmp_path), 8, ())
    write(tmp_path, proposal)
    assert [len(dataset_yaml.load(tmp_path, split)) for split in ("train", "val")] == [6, 2]
    assert check_folder(tmp_path).problems == ()
    save(tmp_path / "masks" / "z.png", stripes(0, 1))
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == ["z.png"]


def test_the_suffix_with_a_mask_word_is_preferred(tmp_path):
    for end in ("_mask.png", "_pred.png"):
        build(tmp_path / "same", [stripes(0, 1)] * 4, "", "", end)
    assert propose(tmp_path / "same").layout.naming == Naming("_mask.png")
    for end in ("_edges.png", "_label.png"):
        build(tmp_path / "apart", [stripes(0, 1)] * 4, end=end)
    assert propose(tmp_path / "apart").layout.naming == Naming("_label.png")


def test_empty_split_folders_are_not_splits(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5)
    for place in ("images/train", "images/val", "masks/train", "masks/val"):
        (tmp_path / place).mkdir()
    write(tmp_path, propose(tmp_path))
    assert labels(tmp_path) == {0, 1}
    assert check_folder(tmp_path).problems == ()


def test_a_split_without_masks_is_not_used(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5, "images/train", "masks/train")
    image(tmp_path / "images" / "val" / "v.jpg")
    proposal = propose(tmp_path)
    assert proposal.notes[0] == "not used: the images in images/val"
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}


def test_the_folder_of_images_suggests_its_parent(tmp_path):
    build(tmp_path, [stripes(0, 1)])
    with pytest.raises(InputError, match=rf"images: contains no .*; use {re.escape(str(tmp_path))}$"):
        propose(tmp_path / "images")


def test_masks_with_their_own_suffix(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 1)] * 3, end="_mask.png"))
    assert (proposal.layout.naming, proposal.pairs) == (Naming("_mask.png"), 3)
    assert "mask_suffix: _mask.png   # the mask of a.jpg is a_mask.png" in write(tmp_path, proposal).read_text()
    assert labels(tmp_path) == {0, 1}
    assert check_folder(tmp_path).problems == ()
    (tmp_path / "masks" / "p1_mask.png").rename(tmp_path / "masks" / "p9_mask.png")
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == ["p9_mask.png", "p1_mask.png"]


def test_a_color_may_mean_unlabeled(tmp_path):
    build(tmp_path, [colored(ROAD, VOID)] * 5)
    (tmp_path / "dataset.yaml").write_text("classes: [road]\ncolors: [[128, 64, 128]]\nignore: [0, 0, 0]\n")
    assert labels(tmp_path) == {0, 255}
    assert check_folder(tmp_path).splits["all"].ignored == 5 * HEIGHT * WIDTH // 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colors: [[0, 0]]", "colors: must be a list of colors [r, g, b]"),
        ("colors: [[0, 0, 0]]", "colors: must have one color for each of the 2 classes, got 1"),
        ("colors: [[0, 0, 0], [0, 0, 0]]", "colors: two classes have the same color"),
        (
            "colors: [[0, 0, 0], [1, 1, 1]]\nlabel_map: {0: 0}",
            "label_map and colors exclude each other; remove label_map",
        ),
        ("colors: [[0, 0, 0], [1, 1, 1]]\nignore: 255", "(or a list of colors) that no class has, got 255"),
        ("colors: [[0, 0, 0], [1, 1, 1]]\nignore: [1, 1, 1]", "that no class has, got [1, 1, 1]"),
        (
            "missing_masks: drop",
            "missing_masks: must be skip, got 'drop'; write missing_masks: skip, or remove the line",
        ),
        ("splits: {trai: a}", "splits: must name the train and val folders or lists, got {'trai': 'a'}; for example:"),
        ("splits: training", "splits: must name the train and val folders or lists, got 'training'"),
        ("splits: {train: val}", "splits: train and val are the same folder, val; use two folders"),
        (
            "mask_suffix: png",
            "mask_suffix: must end in .png, .bmp, .tif, .tiff, .gif, .pgm, .pbm, .ppm, .tga, got 'png'",
        ),
        ("mask_suffix: _mask.jpg", "tga, got '_mask.jpg'"),
        ("image_suffix: .jpg", "image_suffix: must not include the file extension, got '.jpg'; remove the line"),
        ('masks: "{split}_masks"', "masks: {split}_masks has train and val folders, but the images have none; add"),
        ("image_suffix: _sat.jpg", "the file extension, got '_sat.jpg'; write image_suffix: _sat"),
        ("image_suffix: 3", "image_suffix: must be a file name suffix, got 3; for example: image_suffix: _image"),
        ("mask_suffix: 3", "mask_suffix: must be a file name suffix, got 3; for example: mask_suffix: .png"),
    ],
)
def test_an_invalid_setting_is_an_error(tmp_path, text, message):
    build(tmp_path, [colored(ROAD, TREE)])
    (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\n{text}\n")
    with pytest.raises(InputError) as error:
        dataset_yaml.load(tmp_path, "train")
    assert message in str(error.value)


def test_unpaired_files_and_unreadable_masks_are_noted(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 4)
    (tmp_path / "masks" / "p0.png").unlink()
    (tmp_path / "images" / "p1.jpg").unlink()
    (tmp_path / "masks" / "p2.png").write_bytes(b"")
    notes = propose(tmp_path).notes
    assert notes[:2] == (
        "images without a mask: 1 of 3 (p0.jpg); add their masks, or write missing_masks: skip to leave these images "
        "out",
        "masks without an image: 1 of 3 (p1.png)",
    )
    assert "unreadable masks: 1 of 2 (danet check lists all of them); the first: " in notes[2]
    assert "p2.png: empty file" in notes[2]


@pytest.mark.parametrize(
    ("images", "masks", "end", "message"),
    [
        (
            "pics",
            "truth",
            ".jpg",
            "the files in pics, truth have the same names, but masks in a lossy format such as JPEG are not read; save",
        ),
        (
            "images/train",
            "masks/val",
            ".png",
            "images are in train, but masks are in val; use the same names for the folders of the masks",
        ),
        ("images", "masks", ".jpg", r"a mask in a lossy format \(JPEG\)"),
    ],
)
def test_layouts_that_dataset_yaml_cannot_express_fail(tmp_path, images, masks, end, message):
    with pytest.raises(InputError, match=message):
        propose(build(tmp_path, [stripes(0, 1)], images, masks, end))


def test_masks_with_other_names_are_an_error(tmp_path):
    build(tmp_path, [stripes(0, 1)])
    (tmp_path / "masks" / "p0.png").rename(tmp_path / "masks" / "m0.png")
    with pytest.raises(
        InputError, match=r"no mask is named after an image \(masks such as m0\.png, images such as p0\."
    ):
        propose(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        propose(tmp_path / "nowhere")


@pytest.mark.parametrize("photos", [["jpg"], ["jpg", "png", "webp", "bmp"]])
def test_swapped_folders_are_recognized(tmp_path, photos):
    for i in range(8):
        image(tmp_path / "masks" / f"p{i}.{photos[i % len(photos)]}")
        save(tmp_path / "images" / f"p{i}.png", stripes(0, 1))
    with pytest.raises(InputError, match=r"masks: its files \(p0\..*\) may be the images of the masks in images; swap"):
        propose(tmp_path)


def test_photos_as_masks_are_named(tmp_path):
    gray = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    (note,) = (note for note in propose(build(tmp_path, [gray])).notes if "values became classes" in note)
    assert note.startswith("192 values became classes; if they are none, correct the masks: photos, depth maps and")


def test_only_unlabeled_masks_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"every pixel is unlabeled \(value 255\)"):
        propose(build(tmp_path, [stripes(255)]))


def test_dataset_yaml_is_never_overwritten(tmp_path):
    proposal = propose(build(tmp_path, [stripes(0, 1)]))
    write(tmp_path, proposal)
    (tmp_path / "dataset.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"dataset\.yaml: already exists; edit it"):
        write(tmp_path, proposal)
    assert (tmp_path / "dataset.yaml").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="POSIX file names")
def test_unusual_names_give_valid_yaml(tmp_path):
    names = ["on", "5", "a: b # c", "- d"]
    build(tmp_path, [stripes(0, 1, 2, 3)] * 3)
    (tmp_path / "classes.txt").write_text("\n".join(name.replace(":", "") for name in names))
    image(tmp_path / "images" / "two\nlines\udcff: x.jpg")
    write(tmp_path, propose(tmp_path))
    loaded = dataset_yaml._read(tmp_path / "dataset.yaml")
    assert loaded["classes"] == [name.replace(":", "") for name in names]


@pytest.mark.parametrize("installed", [True, False])
def test_files_that_are_not_read_as_images_are_named(tmp_path, monkeypatch, installed):
    monkeypatch.setattr("danet.data.custom.scan_masks.HAS_HEIF", installed)
    build(tmp_path, [stripes(0, 1)] * 4)
    assert not any("not read as images" in note for note in propose(tmp_path).notes)
    for name in ("a.mp4", "b.HEIC.part", "c.pdf", "notes.txt", "p0.tfw", ".hidden.mp4"):
        (tmp_path / "images" / name).write_bytes(b"x")
    note = "files that are not read as images: 3 (a.mp4, b.HEIC.part, c.pdf)"
    assert note in propose(tmp_path).notes
    monkeypatch.setattr("danet.data.custom.scan_masks.HEIF_SUFFIXES", (".part",))
    advice = "" if installed else "; HEIC images need pillow-heif (uv sync --extra heif)"
    assert f"{note}{advice}" in propose(tmp_path).notes


def test_a_folder_of_too_many_folders_is_no_dataset(tmp_path, monkeypatch):
    """Such as a whole disk, through a link."""
    monkeypatch.setattr("danet.data.custom.discover._MAX_FOLDERS", 3)
    build(tmp_path, [stripes(0, 1)] * 4)
    (tmp_path / "a").mkdir()
    propose(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="contains more than 3 folders; specify the folder of one dataset"):
        propose(tmp_path)
    with pytest.raises(InputError, match="images: found images in the folder itself"):
        propose(tmp_path / "images")  # the folders around it are not named
