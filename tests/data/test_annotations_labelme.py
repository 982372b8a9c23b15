"""LabelMe: every kind of shape, the embedded image, the list of labels, and the folders that must not be imported."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from exports import CAR, TREE, base64_png, labelme, labelme_file, labelme_shape, png, scene, write
from miniature import HEIGHT, WIDTH, image, save

from danet import InputError
from danet.data.annotations.labelme import read
from danet.data.annotations.rasterize import draw_shapes
from danet.data.annotations.recognize import choose_format
from danet.data.annotations.source import Source
from danet.data.custom.import_annotations import ImportOptions, import_annotations
from danet.data.custom.propose import propose
from danet.data.images.read import read_mask


def drawn(root: Path, *shapes: dict, line_width: float | None = None) -> np.ndarray:
    """The pixels of the shapes of an image."""
    image(root / "a.png")
    labelme_file(root / "a.json", list(shapes), "a.png")
    (found,) = read(Source(root)).images
    return draw_shapes(found.shapes, (HEIGHT, WIDTH), {"x": 0}, line_width).labels == 0


def test_every_kind_of_shape_is_drawn(tmp_path):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    assert np.argwhere(drawn(tmp_path / "1", labelme_shape("x", [[9, 5], [6, 3]], "rectangle"))).tolist() == [
        *([3, 6], [3, 7], [3, 8], [4, 6], [4, 7], [4, 8])
    ]
    circle = drawn(tmp_path / "2", labelme_shape("x", [[8, 6], [8, 9.3]], "circle"))
    assert (circle == ((x - 8) ** 2 + (y - 6) ** 2 <= 3.3**2)).all()
    diamond = [[8, 2], [12, 6], [8, 10], [4, 6]]
    oriented = drawn(tmp_path / "3", labelme_shape("x", diamond, "oriented_rectangle"))
    assert (oriented == drawn(tmp_path / "4", labelme_shape("x", diamond))).all()
    mask = np.random.default_rng(0).random((4, 5)) < 0.5
    patch = labelme_shape("x", [[3, 2], [7, 5]], "mask", mask=base64_png(np.uint8(mask)))
    whole = drawn(tmp_path / "5", patch)
    assert (whole[2:6, 3:8] == mask).all()
    assert whole.sum() == mask.sum()


def test_lines_are_drawn_with_the_given_width_or_left_out_and_named(tmp_path):
    strip = labelme_shape("x", [[2, 3], [12, 3], [12, 9]], "linestrip")
    assert not drawn(tmp_path / "none", strip).any()
    lines = drawn(tmp_path / "wide", strip, line_width=2)
    assert lines[2:4, 2:12].all()
    assert lines[3:9, 11:13].all()
    image(tmp_path / "export/a.png")
    file = labelme_file(tmp_path / "export/a.json", [strip, labelme_shape("x", CAR)], "a.png")
    result = import_annotations(tmp_path / "export", tmp_path / "without")
    assert f"lines without a width, left out (`line_width` draws them): 1 ({file}: shapes[0])" in result.notes
    import_annotations(tmp_path / "export", tmp_path / "with", ImportOptions(line_width=2))
    counts = [int((read_mask(tmp_path / name / "masks/a.png") == 1).sum()) for name in ("without", "with")]
    assert counts[0] == 24 < counts[1]


def test_points_are_left_out_and_named(tmp_path):
    root = labelme(tmp_path)
    file = labelme_file(root / "a.json", [labelme_shape("x", [[1, 1]], "point"), labelme_shape("x", CAR[:2])], "a.png")
    assert read(Source(root)).left_out == {
        "points": [f"{file}: shapes[0]"],
        "shapes with too few points": [f"{file}: shapes[1]"],
    }


def test_the_order_of_the_classes_is_that_of_labels_txt_or_alphabetical(tmp_path):
    root = labelme(tmp_path)
    found = read(Source(root))
    assert list(found.classes) == ["car", "tree"]
    assert "alphabetical" in found.notes[0]
    write(root / "labels.txt", "__ignore__\n_background_\ntree\nsky\n")
    found = read(Source(root))
    assert list(found.classes) == ["_background_", "tree", "sky", "car"]
    assert found.notes == ()


def test_the_class_ignore_marks_ignored_pixels(tmp_path):
    image(tmp_path / "export/a.png")
    shapes = [labelme_shape("tree", TREE), labelme_shape("__ignore__", CAR)]
    labelme_file(tmp_path / "export/a.json", shapes, "a.png")
    result = import_annotations(tmp_path / "export", tmp_path / "new")
    assert result.classes.names == ("background", "tree")
    assert (read_mask(tmp_path / "new/masks/a.png") == np.array([0, 255, 1])[scene()]).all()


def test_the_embedded_image_is_used_if_there_is_no_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = base64.b64encode(png(pixels)).decode()
    labelme_file(tmp_path / "export/a.json", [labelme_shape("car", CAR)], "..\\photos\\a.jpg", imageData=data)
    result = import_annotations(tmp_path / "export", tmp_path / "new")
    assert (tmp_path / "new/images/a.png").read_bytes() == png(pixels)
    assert "images taken from the annotation files, as there are no image files: 1 (a.jpg)" in result.notes
    image(tmp_path / "export/a.jpg")
    result = import_annotations(tmp_path / "export", tmp_path / "by_file")
    assert not any("taken from" in note for note in result.notes)


def test_image_paths_of_windows_and_of_other_folders_are_found(tmp_path):
    image(tmp_path / "photos/a.png")
    labelme_file(tmp_path / "labels/a.json", [labelme_shape("car", CAR)], "..\\photos\\a.png")
    assert [found.file for found in read(Source(tmp_path)).images] == [tmp_path / "photos/a.png"]


def test_old_label_folders_are_refused_with_advice(tmp_path):
    save(tmp_path / "a_json/label.png", scene())
    image(tmp_path / "a_json/img.png")
    image(tmp_path / "a_json/label_viz.png")
    write(tmp_path / "a_json/label_names.txt", "_background_\ncar\n")
    for refuse in (lambda: choose_format(Source(tmp_path)), lambda: propose(tmp_path)):
        with pytest.raises(InputError) as raised:
            refuse()
        assert raised.value.where == tmp_path / "a_json/label.png"
        assert "whose numbers mean other classes in each image" in raised.value.what
        assert raised.value.remedy == "import the .json files that LabelMe saved, not the folders made from them"
    labelme(tmp_path)
    assert choose_format(Source(tmp_path)).title == "LabelMe"


def test_other_json_files_are_named(tmp_path):
    root = labelme(tmp_path)
    write(root / "notes.json", {"version": 1})
    assert "not LabelMe files, left out: notes.json" in read(Source(root)).notes


@pytest.mark.parametrize(
    ("shape", "place", "what"),
    [
        (labelme_shape("x", [[1, 2], [3]]), "shapes[0].points", "must be a list of numbers"),
        (labelme_shape("x", [1, 2, 3]), "shapes[0].points", "must be a list of points [x, y]"),
        (labelme_shape("x", "abc"), "shapes[0].points", "must be a list, got 'abc'"),
        (labelme_shape("", CAR), "shapes[0].label", "must be a text, got ''"),
        (labelme_shape("x", CAR, "star"), "shapes[0].shape_type", "'star' is unknown"),
        (labelme_shape("x", [[0, 0], [3, 3]], "mask"), "shapes[0]", "has no 'mask'"),
        (labelme_shape("x", [[0, 0], [3, 3]], "mask", mask="%"), "shapes[0].mask", "is not base64"),
        ({"points": CAR, "shape_type": "polygon"}, "shapes[0]", "has no 'label'"),
    ],
)
def test_mistakes_name_the_file_the_shape_and_the_field(shape, place, what, tmp_path):
    image(tmp_path / "a.png")
    file = labelme_file(tmp_path / "a.json", [shape], "a.png")
    with pytest.raises(InputError) as raised:
        read(Source(tmp_path))
    assert (raised.value.where, raised.value.what) == (file, f"{place}: {what}")


def test_a_damaged_mask_or_image_names_its_record(tmp_path):
    broken = base64.b64encode(png(scene())[:-20]).decode()
    shape = labelme_shape("x", [[0, 0], [3, 3]], "mask", mask=broken)
    file = labelme_file(tmp_path / "a.json", [shape], "a.png", imageData=broken)
    with pytest.raises(InputError, match=r"a\.json: shapes\[0\]\.mask: truncated or damaged"):
        read(Source(tmp_path))
    content = json.loads(file.read_text())
    content["shapes"] = [labelme_shape("x", CAR)]
    write(file, content)
    with pytest.raises(InputError, match=r"a\.json: truncated or damaged"):
        import_annotations(tmp_path, tmp_path.with_name("new"))
