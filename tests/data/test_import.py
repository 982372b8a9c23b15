"""danet import: every format gives the same masks, and nothing is changed, guessed or left out without a word."""

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from exports import (
    CAR,
    EXPORTS,
    POLYGONS,
    TREE,
    coco,
    cvat,
    cvat_polygon,
    cvat_xml,
    label_studio_result,
    label_studio_task,
    labelme,
    labelme_file,
    labelme_shape,
    scene,
    via,
    write,
    yolo,
)
from miniature import HEIGHT, WIDTH, build, image, save, stripes
from PIL import Image

from danet import InputError
from danet.cli import main
from danet.data.annotations.recognize import FORMATS, recognize
from danet.data.annotations.source import Source
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.import_annotations import Imported, ImportOptions, import_annotations
from danet.data.custom.propose import propose
from danet.data.images.read import read_image, read_mask


def files(root: Path) -> dict[str, str]:
    """Every file below a folder, and its hash."""
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in root.rglob("*") if f.is_file()
    }


def imported(root: Path, **options) -> tuple[Imported, Path]:
    destination = root.with_name(f"{root.name}_imported")
    return import_annotations(root, destination, ImportOptions(**options)), destination


def mask(destination: Path, name: str = "a.png") -> np.ndarray:
    return read_mask(destination / "masks" / name)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_masks(name, tmp_path):
    root = EXPORTS[name](tmp_path / "export")
    before = files(root)
    result, destination = imported(root)
    assert files(root) == before
    assert result.classes.names == ("background", "car", "tree")
    assert (mask(destination) == scene()).all()
    assert result.images == {"all": 2}
    assert not mask(destination, "b.png").any()
    original = next(root.rglob("a.png")) if name != "cvat-masks" else root / "JPEGImages/a.png"
    assert (destination / "images/a.png").read_bytes() == original.read_bytes()
    assert check_folder(destination).problems == ()
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognized_alone(name, tmp_path):
    root = EXPORTS[name](tmp_path / "export")
    assert recognize(Source(root)) == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_without_the_chosen_format_is_an_error(name, tmp_path):
    write(tmp_path / "export/notes.txt", "mine")
    with pytest.raises(InputError):
        imported(tmp_path / "export", format=name)
    assert not (tmp_path / "export_imported").exists()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "cvat-masks"])
def test_init_names_the_command_that_imports_an_export(name, tmp_path):
    root = EXPORTS[name](tmp_path / "export")
    with pytest.raises(InputError) as raised:
        propose(root)
    assert raised.value.what == f"this is a {FORMATS[name].title} export"
    assert raised.value.remedy == f"run danet import {root} {root}_imported"
    assert list(root.rglob("dataset.yaml")) == []


def test_init_reads_masks_and_mentions_an_export_beside_them(tmp_path):
    build(tmp_path / "mine", [stripes(0, 1)] * 4)
    coco(tmp_path / "mine/old").joinpath("images").rename(tmp_path / "mine/old/pictures")  # vocabulary: old name
    notes = propose(tmp_path / "mine").notes
    assert any(note.startswith("not used: this is a COCO export; to use it, run danet import") for note in notes)


def test_the_command_prints_what_was_read_and_how_to_go_on(tmp_path, capsys):
    root, destination = cvat(tmp_path / "my export"), tmp_path / "mine"
    assert main(["import", str(root), str(destination)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote {destination}: 2 images from CVAT for images"
    assert lines[1] == "classes: 0 background, 1 car, 2 tree"
    assert lines[2:-1] == [
        "review: images without shapes, all background (--skip-empty leaves them out): 1 (images/b.png)",
        "review: class 0 is background, added for pixels without a shape (--unlabeled says otherwise)",
    ]
    assert lines[-1] == f"next: danet check {destination}"
    assert main(["check", str(destination)]) == 0
    text = (destination / "dataset.yaml").read_text()
    assert text.startswith(
        "# Written by danet import from my export (CVAT for images). Edit it, then run danet check.\n"
    )
    assert dataset_yaml.load(destination, "train").classes.palette == ((0, 0, 0), (255, 128, 0), (0, 128, 64))


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("import absent new", "absent: no such folder; specify the folder or the file of an export"),
        (
            "import export",
            "danet import: DESTINATION is missing; specify the folder to write, which must be new or empty",
        ),
        ("import export export/new", "export/new: is inside export, where nothing is written; choose another folder"),
        ("import export full", "full: is not empty; choose a new folder, or remove this one"),
        ("import export.zip new", "export.zip: is an archive; unpack it, and specify the folder"),
        (
            "import full new",
            "full: no annotations of a known format were found; known formats: COCO, LabelMe, CVAT for",
        ),
        ("import export new --format cocoo", "--format: 'cocoo' is unknown; did you mean coco?"),
        ("import export new --images absent", "absent: no such folder; specify the folder that contains the images"),
        (
            "import export new --line-width 0",
            "--line-width: must be above 0 and at most 10000 pixels, got 0; for example",
        ),
        ("import export new --order size", "--order: 'size' is unknown; use one of file, area"),
    ],
)
def test_user_errors_are_one_line_and_write_nothing(command, error, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / "export")
    write(tmp_path / "full/notes.txt", "mine")
    write(tmp_path / "export.zip", "PK")
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {error}")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_failed_import_leaves_nothing_behind(tmp_path):
    root = coco(tmp_path / "export")
    (root / "images/b.png").write_bytes((root / "images/b.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"b\.png: truncated or damaged"):
        imported(root)
    save(root / "images/b.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][1]["segmentation"] = [[100, 1, 120, 1, 110, 9]]
    content["annotations"][0]["segmentation"] = [[3.6, 3, 3.7, 3, 3.6, 9]]
    write(root / "annotations.json", content)
    with pytest.raises(InputError, match="no shape has a pixel inside its image"):
        imported(root)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["export"]


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    root = coco(tmp_path / "export")
    monkeypatch.setattr("danet.data.custom.import_annotations.shutil.copyfile", fail)
    with pytest.raises(InputError) as raised:
        imported(root)
    assert (raised.value.what, raised.value.remedy) == (
        "cannot be written (No space left on device)",
        "free some space",
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["export"]


def test_an_interrupted_import_leaves_nothing_behind(tmp_path):
    def interrupt(done: int, _: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    root = coco(tmp_path / "export")
    with pytest.raises(KeyboardInterrupt):
        import_annotations(root, tmp_path / "new", advance=interrupt)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["export"]


def test_files_above_the_limit_are_refused_before_they_are_parsed(tmp_path, monkeypatch):
    root = coco(tmp_path / "export")
    monkeypatch.setattr("danet.data.annotations.records.MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"annotations\.json: more than 0 MiB; export fewer images at a time"):
        imported(root)


def test_an_export_is_recognized_if_its_first_record_is_long(tmp_path):
    image(tmp_path / "export/a.png")
    task = label_studio_task(1, "a.png", label_studio_result("brushlabels", "car", {"rle": [0] * 200_000}))
    write(tmp_path / "export/project.json", [task])
    assert recognize(Source(tmp_path / "export")) == ["label-studio"]


def test_the_current_folder_is_imported_into_one_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(coco(tmp_path / "export"))
    assert main(["init", "."]) == 2
    error = "error: .: this is a COCO export; run danet import . ../export_imported\n"
    assert capsys.readouterr().err == error
    assert main(["import", ".", "../export_imported"]) == 0
    assert (mask(tmp_path / "export_imported") == scene()).all()


def test_an_empty_destination_is_used(tmp_path):
    root = coco(tmp_path / "export")
    (tmp_path / "export_imported").mkdir()
    assert (mask(imported(root)[1]) == scene()).all()


def test_two_formats_in_one_folder_must_be_chosen(tmp_path):
    root = coco(tmp_path / "export")
    write(root / "annotations.xml", cvat_xml(cvat_polygon("car", CAR)))
    with pytest.raises(InputError) as raised:
        imported(root)
    assert raised.value.what == "contains annotations in several formats: coco (COCO) and cvat (CVAT for images)"
    assert raised.value.remedy == "choose one with `format`"
    assert imported(root, format="coco")[0].title == "COCO"


def test_one_file_can_be_imported_with_images_elsewhere(tmp_path):
    root = coco(tmp_path / "export")
    (root / "images").rename(tmp_path / "photos")
    with pytest.raises(InputError) as raised:
        imported(root / "annotations.json")
    assert raised.value.what.startswith("2 of 2 images were not found: a.png, b.png (")
    assert raised.value.what.endswith("annotations.json: images[0])")
    assert "specify their folder as `images`" in raised.value.remedy
    result = import_annotations(root / "annotations.json", tmp_path / "new", ImportOptions(images=tmp_path / "photos"))
    assert result.images == {"all": 2}
    assert (mask(tmp_path / "new") == scene()).all()


def test_missing_images_can_be_left_out_and_are_named(tmp_path):
    root = coco(tmp_path / "export")
    (root / "images/b.png").unlink()
    result, _ = imported(root, skip_missing=True)
    assert "images that were not found, left out: 1 (b.png)" in result.notes
    assert result.images == {"all": 1}


def test_images_without_shapes_can_be_left_out_and_are_named(tmp_path):
    result, destination = imported(coco(tmp_path / "export"), skip_empty=True)
    assert "images without shapes, left out: 1 (images/b.png)" in result.notes
    assert not (destination / "images/b.png").exists()


def test_images_without_a_record_are_named(tmp_path):
    root = coco(tmp_path / "export")
    image(root / "images/c.png")
    assert "images that the annotations do not name, left out: 1 (c.png)" in imported(root)[0].notes


def test_pixels_without_a_shape_can_be_ignored(tmp_path):
    result, destination = imported(coco(tmp_path / "export"), unlabeled="ignore", skip_empty=True)
    assert result.classes.names == ("car", "tree")
    assert (mask(destination) == np.array([255, 0, 1])[scene()]).all()
    assert "pixels without a shape are ignored (255)" in result.notes
    assert "ignore: 255" in (destination / "dataset.yaml").read_text()


def test_background_of_the_export_is_used(tmp_path):
    root = coco(tmp_path / "export")
    content = json.loads((root / "annotations.json").read_text())
    content["categories"].append({"id": 9, "name": "Background"})
    write(root / "annotations.json", content)
    result, destination = imported(root)
    assert result.classes.names == ("car", "tree", "Background")
    assert (mask(destination) == np.array([2, 0, 1])[scene()]).all()
    assert "pixels without a shape are of the class Background of the export" in result.notes


def test_no_background_is_added_to_full_annotations(tmp_path):
    image(tmp_path / "export/a.png")
    full = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    shapes = [labelme_shape("road", full), labelme_shape("car", CAR)]
    labelme_file(tmp_path / "export/a.json", shapes, "a.png")
    result, destination = imported(tmp_path / "export")
    assert result.classes.names == ("car", "road")
    assert (mask(destination) == np.where(scene() == 1, 0, 1)).all()
    assert "every pixel is in a shape" in result.notes


def test_overlaps_are_counted_and_drawn_in_the_chosen_order(tmp_path):
    image(tmp_path / "export/a.png")
    small, large = [[4, 4], [6, 4], [6, 6], [4, 6]], [[2, 2], [10, 2], [10, 10], [2, 10]]
    shapes = [labelme_shape("car", small), labelme_shape("road", large)]
    labelme_file(tmp_path / "export/a.json", shapes, "a.png")
    result, destination = imported(tmp_path / "export")
    assert (mask(destination) == 2).sum() == 64
    assert any(
        note.startswith("4 pixels (2.08%) are in shapes of several classes, and have the later one")
        for note in result.notes
    )
    result = import_annotations(tmp_path / "export", tmp_path / "by_area", ImportOptions(order="area"))
    assert (mask(tmp_path / "by_area") == 1).sum() == 4
    assert (mask(tmp_path / "by_area") == 2).sum() == 60
    assert any("and have the smaller one by area" in note for note in result.notes)


def test_shapes_beyond_the_image_are_clipped_and_named(tmp_path):
    image(tmp_path / "export/a.png")
    outside = [[20, 2], [30, 2], [30, 9]]
    shapes = [labelme_shape("car", [[-5, -5], [4, -5], [4, 3], [-5, 3]]), labelme_shape("car", outside)]
    file = labelme_file(tmp_path / "export/a.json", shapes, "a.png")
    result, destination = imported(tmp_path / "export")
    assert (mask(destination) == 1).sum() == 12
    assert f"shapes beyond the image, clipped: 2 ({file}: shapes[0], {file}: shapes[1])" in result.notes
    assert f"shapes without a pixel, outside or thinner than a pixel: 1 ({file}: shapes[1])" in result.notes


def test_sizes_that_disagree_are_an_error_with_both_sizes(tmp_path):
    root = coco(tmp_path / "export")
    image(root / "images/a.png", height=24, width=32)
    with pytest.raises(InputError) as raised:
        imported(root)
    assert raised.value.where == root / "images/a.png"
    assert raised.value.what.startswith("is 32 x 24, but its annotations are for 16 x 12 (")
    assert raised.value.what.endswith("annotations.json: images[0])")


def test_two_records_of_one_image_are_an_error(tmp_path):
    root = coco(tmp_path / "export")
    content = json.loads((root / "annotations.json").read_text())
    content["images"][1]["file_name"] = "a.png"
    write(root / "annotations.json", content)
    with pytest.raises(InputError, match=r"a\.png: has two records: .*images\[0\] and .*images\[1\]"):
        imported(root)


def test_an_export_of_boxes_says_why_nothing_is_drawn(tmp_path):
    root = coco(tmp_path / "export")
    content = json.loads((root / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    write(root / "annotations.json", content)
    with pytest.raises(
        InputError, match="no shape has a pixel inside its image; left out: boxes without a segmentation: 2"
    ):
        imported(root)


def test_a_file_beside_other_exports_is_imported_alone(tmp_path):
    for name in ("masks", "label-studio-png", "cvat-masks", "yolo"):
        EXPORTS[name](tmp_path / name)
    coco(tmp_path)
    assert recognize(Source(tmp_path / "annotations.json")) == ["coco"]
    assert recognize(Source(tmp_path / "yolo/data.yaml")) == ["yolo"]
    assert recognize(Source(tmp_path / "label-studio-png/project.json")) == ["label-studio"]


def test_more_than_255_classes_are_an_error(tmp_path):
    root = coco(tmp_path / "export")
    content = json.loads((root / "annotations.json").read_text())
    content["categories"] += [{"id": 100 + i, "name": f"class {i}"} for i in range(254)]
    write(root / "annotations.json", content)
    with pytest.raises(InputError, match="has 257 classes, but the 8 bits of a mask hold at most 255"):
        imported(root)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [True, False])
def test_exif_orientations_are_decided_by_the_size_in_the_export(orientation, stored, tmp_path):
    """An image of a red car: its pixels and its labels agree in training, however the tool displayed it."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[2:6, 2:8] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "export/a.png", pixels, exif=exif)
    upright = shown_red(tmp_path / "export/a.png")
    height, width = (HEIGHT, WIDTH) if stored else upright.shape
    points = CAR if stored else corners(upright)
    labelme_file(tmp_path / "export/a.json", [labelme_shape("car", points)], "a.png", height, width)
    swapped = orientation in (5, 6, 7, 8)
    exif_option = None if swapped else "ignore" if stored else "apply"
    result, destination = imported(tmp_path / "export", exif=exif_option)
    image(destination / "images/more.png")
    save(destination / "masks/more.png", stripes(0, 1))
    samples = [dataset_yaml.load(destination, split)[0] for split in ("train", "val")]
    (sample,) = [sample for sample in samples if sample.name == "a"]
    assert ((sample.image[..., 0] == 255) == (sample.labels == 1)).all()
    noted = [note for note in result.notes if "EXIF" in note]
    assert len(noted) == (orientation > 1)
    assert all("as stored" in note if stored else "as displayed" in note for note in noted)


def shown_red(file: Path) -> np.ndarray:
    return read_image(file)[..., 0] == 255


def corners(region: np.ndarray) -> list:
    y, x = np.nonzero(region)
    left, right, top, bottom = int(x.min()), int(x.max()) + 1, int(y.min()), int(y.max()) + 1
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_an_exif_orientation_that_keeps_the_size_is_named(tmp_path):
    root = via(tmp_path / "export")
    exif = Image.Exif()
    exif[0x0112] = 3
    save(root / "a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8), exif=exif)
    notes = imported(root)[0].notes
    assert (
        "images with an EXIF orientation, assumed to be annotated as displayed (`exif` says otherwise): 1 (a.png)"
        in notes
    )


def splits_of(destination: Path) -> dict[str, list[str]]:
    return {split: [pair.name for pair in dataset_yaml.load(destination, split).pairs] for split in ("train", "val")}


def test_splits_of_the_export_are_kept(tmp_path):
    for split in ("train", "valid", "test"):
        coco(tmp_path / f"export/{split}")
    result, destination = imported(tmp_path / "export")
    assert result.images == {"test": 2, "train": 2, "val": 2}
    assert splits_of(destination) == {"train": ["a", "b"], "val": ["a", "b"]}
    assert [pair.name for pair in dataset_yaml.load(destination, "test").pairs] == ["a", "b"]
    assert not any("renamed" in note for note in result.notes)


def test_an_export_without_a_validation_split_says_so(tmp_path):
    for split in ("train", "test"):
        coco(tmp_path / f"export/{split}")
    result, destination = imported(tmp_path / "export")
    assert "the splits are test and train: a fifth of train is used for validation" in result.notes
    assert sorted(name for names in splits_of(destination).values() for name in names) == ["a", "b"]
    coco(tmp_path / "only/train")
    result, destination = imported(tmp_path / "only")
    assert "all images are in the split train: a fifth of them is used for validation" in result.notes
    assert (destination / "images/a.png").exists()


def test_images_with_the_same_name_are_renamed_and_named(tmp_path):
    for folder in ("north", "south"):
        labelme(tmp_path / f"export/{folder}")
    result, destination = imported(tmp_path / "export")
    assert sorted(file.name for file in (destination / "images").iterdir()) == [
        *("a.png", "b.png", "south_a.png", "south_b.png")
    ]
    assert (mask(destination, "south_a.png") == scene()).all()
    what = (
        "images with the same name as another one, renamed: 2 (south/a.png is south_a.png, south/b.png is south_b.png)"
    )
    assert what in result.notes


def test_no_file_outside_the_export_is_read(tmp_path):
    image(tmp_path / "secret.png")
    root = labelme(tmp_path / "export")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "..\\secret.png"):
        labelme_file(root / "a.json", [labelme_shape("car", CAR)], name)
        with pytest.raises(InputError, match=r"1 of 2 images were not found: secret\.png"):
            imported(root)


def test_linked_folders_are_followed_once(tmp_path):
    root = coco(tmp_path / "export")
    (root / "images").rename(tmp_path / "photos")
    (root / "images").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/loop").symlink_to(root)
    assert (mask(imported(root)[1]) == scene()).all()


def test_bands_of_the_images_are_described(tmp_path):
    root = yolo(tmp_path / "export")
    for name in "ab":
        save(root / f"images/{name}.png", np.arange(4 * HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH, 4))
    _, destination = imported(root)
    assert "# channels: 4   # uncomment if the last band is data" in (destination / "dataset.yaml").read_text()


def test_shapes_of_all_images_are_drawn_in_threads_as_one_by_one(tmp_path):
    root = tmp_path / "export"
    for i in range(12):
        image(root / f"{i}.png")
        moved = [[x + i % 3, y] for x, y in POLYGONS["car"]]
        labelme_file(root / f"{i}.json", [labelme_shape("car", moved), labelme_shape("tree", TREE)], f"{i}.png")
    _, destination = imported(root)
    for i in range(12):
        expected = np.where(scene() == 2, 2, 0)
        expected[2:6, 2 + i % 3 : 8 + i % 3] = 1
        assert (mask(destination, f"{i}.png") == np.where(scene() == 2, 2, expected)).all()
