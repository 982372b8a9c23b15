"""CVAT: every shape of its XML, the order of layers, masks with colors, and XML that must be refused."""

from pathlib import Path

import numpy as np
import pytest
from exports import CAR, COLORS, TREE, cvat, cvat_masks, cvat_polygon, cvat_xml, scene, write
from miniature import HEIGHT, WIDTH, image, save

from danet import InputError
from danet.data.annotations import cvat_masks as masks
from danet.data.annotations.cvat import read
from danet.data.annotations.rasterize import draw_shapes
from danet.data.annotations.shapes import Export
from danet.data.annotations.source import Source


def export(root: Path, *elements: str, **more) -> Export:
    image(root / "images/a.png")
    write(root / "annotations.xml", cvat_xml(*elements, **more))
    return read(Source(root))


def drawn(root: Path, *elements: str) -> np.ndarray:
    found = export(root, *elements).images[0]
    return draw_shapes(found.shapes, (HEIGHT, WIDTH), {"car": 0, "tree": 1}).labels


def test_every_shape_is_drawn(tmp_path):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    box = '<box label="car" xtl="2.00" ytl="3.00" xbr="7.00" ybr="5.00"></box>'
    assert (drawn(tmp_path / "1", box) == 0).sum() == 10
    rotated = '<box label="car" xtl="4.00" ytl="4.00" xbr="10.00" ybr="6.00" rotation="90.00"></box>'
    assert np.argwhere(drawn(tmp_path / "2", rotated) == 0)[[0, -1]].tolist() == [[2, 6], [7, 7]]
    ellipse = '<ellipse label="car" cx="8.00" cy="6.00" rx="5.00" ry="3.00"></ellipse>'
    expected = ((x - 8) / 5) ** 2 + ((y - 6) / 3) ** 2 <= 1
    assert ((drawn(tmp_path / "3", ellipse) == 0) == expected).all()
    mask = '<mask label="car" rle="1, 2, 1, 3, 1" left="4" top="6" width="4" height="2"></mask>'
    assert np.argwhere(drawn(tmp_path / "4", mask) == 0).tolist() == [[6, 5], [6, 6], [7, 4], [7, 5], [7, 6]]
    line = '<polyline label="car" points="2.00,2.00;9.00,2.00"></polyline>'
    found = export(tmp_path / "5", line).images[0]
    assert (draw_shapes(found.shapes, (HEIGHT, WIDTH), {"car": 0}, 2).labels == 0).sum() >= 14


def test_masks_of_more_than_a_million_pixels_are_read(tmp_path):
    mask = '<mask label="car" rle="1200000, 300000" left="0" top="0" width="1500" height="1000"></mask>'
    found = export(tmp_path, mask, height=1000, width=1500).images[0]
    assert (draw_shapes(found.shapes, (1000, 1500), {"car": 0}).labels[800:] == 0).all()


def test_shapes_are_drawn_in_the_order_of_their_layers(tmp_path):
    full = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    above, below = cvat_polygon("car", CAR, z_order=1), cvat_polygon("tree", full, z_order=-1)
    assert (drawn(tmp_path / "1", above, below) == np.where(scene() == 1, 0, 1)).all()
    assert (drawn(tmp_path / "2", cvat_polygon("car", CAR), cvat_polygon("tree", full)) == 1).all()


def test_points_cuboids_skeletons_and_tags_are_left_out_and_named(tmp_path):
    elements = [
        '<points label="car" points="1.00,1.00"></points>',
        '<cuboid label="car" xtl1="1"></cuboid>',
        '<tag label="car" source="manual"></tag>',
        '<polygon label="car" points="1.00,1.00;2.00,2.00"></polygon>',
    ]
    found = export(tmp_path, *elements)
    assert {kind: len(places) for kind, places in found.left_out.items()} == {
        "points elements": 1,
        "cuboid elements": 1,
        "tag elements": 1,
        "polygons of fewer than 3 points": 1,
    }
    assert found.left_out["tag elements"] == [f"{tmp_path / 'annotations.xml'}: line 8 <tag>"]


def test_labels_and_colors_are_those_of_the_task_and_subsets_are_splits(tmp_path):
    opened = f'<image id="1" name="b.png" subset="Validation" width="{WIDTH}" height="{HEIGHT}">'
    found = export(tmp_path, cvat_polygon("car", CAR), more=f"{opened}</image>")
    assert found.classes == {"car": COLORS["car"], "tree": COLORS["tree"]}
    assert [each.split for each in found.images] == [None, "val"]
    (tmp_path / "annotations.xml").rename(tmp_path / "train.xml")
    assert [each.split for each in read(Source(tmp_path)).images] == ["train", "val"]


@pytest.mark.parametrize(
    ("element", "place", "what"),
    [
        (cvat_polygon("bus", CAR), "line 6 <polygon>.label", "'bus' is not one of the labels of the task"),
        ('<polygon label="car"/>', "line 6 <polygon>", "has no 'points'"),
        (
            '<polygon label="car" points="1,2;x,3;4,5"/>',
            "line 6 <polygon>.points",
            "must be a number from -1000000 to 1000000",
        ),
        ('<polygon label="car" points="1,2;3;4,5"/>', "line 6 <polygon>.points", "must be a list of numbers"),
        ('<polygon label="car" points="1,2;nan,3;4,5"/>', "line 6 <polygon>.points", "must be a number from"),
        ('<box label="car" xtl="1" ytl="2" xbr="3"/>', "line 6 <box>", "has no 'ybr'"),
        ('<star label="car"/>', "line 6 <star>", "is not a shape of CVAT for images 1.1"),
        (
            '<mask label="car" rle="9" left="0" top="0" width="4" height="2"/>',
            "line 6 <mask>.rle",
            "the counts must be",
        ),
        (
            '<mask label="car" rle="7" left="0" top="0" width="4" height="2"/>',
            "line 6 <mask>.rle",
            "the counts add up to 7",
        ),
        (
            '<mask label="car" rle="8" left="0" top="0" width="-4" height="-2"/>',
            "line 6 <mask>.width",
            "must be a number from 1 to 1000000, got '-4'",
        ),
        (
            '<mask label="car" rle="1,7" left="0" top="0" width="999999" height="99999"/>',
            "line 6 <mask>.rle",
            "999999 x",
        ),
    ],
)
def test_mistakes_name_the_line_the_element_and_the_attribute(element, place, what, tmp_path):
    with pytest.raises(InputError) as raised:
        export(tmp_path, element)
    assert raised.value.where == tmp_path / "annotations.xml"
    assert raised.value.what.startswith(f"{place}: {what}")


def test_tracks_of_videos_are_refused_with_advice(tmp_path):
    track = '<track id="0" label="car"><polygon frame="0" points="1,1;5,1;5,5"/></track>'
    with pytest.raises(InputError) as raised:
        export(tmp_path, more=track)
    assert raised.value.what == "line 8 <track>: a track of CVAT for video"
    assert raised.value.remedy == "export the task as CVAT for images 1.1"


LAUGHS = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><annotations>&l9;</annotations>', "contains a DOCTYPE"),
        ('<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotations>&f;</annotations>', "contains a DOCTYPE"),
        ("<annotations><image></annotations>", "invalid XML: mismatched tag: line 1, column 22"),
        ("<annotations>&l9;</annotations>", "invalid XML: undefined entity"),
        ("", "invalid XML: no element found"),
        ("<a>" * 50 + "</a>" * 50, "line 1 <a>: nested deeper than 32 levels"),
        ('<?xml version="1.0" encoding="nonsense"?><annotations/>', "invalid XML: unknown encoding"),
    ],
)
def test_dangerous_or_damaged_xml_is_one_line(text, what, tmp_path):
    file = write(tmp_path / "annotations.xml", text)
    with pytest.raises(InputError) as raised:
        read(Source(file))
    assert raised.value.where == file
    assert raised.value.what.startswith(what)


def test_masks_have_the_names_and_colors_of_labelmap_txt(tmp_path):
    found = masks.read(Source(cvat_masks(tmp_path)))
    assert found.classes == COLORS
    labels = draw_shapes(found.images[0].shapes, (HEIGHT, WIDTH), {"background": 0, "car": 1, "tree": 2}).labels
    assert (labels == scene()).all()


def test_lists_of_masks_are_splits_and_other_masks_are_named(tmp_path):
    root = cvat_masks(tmp_path)
    (root / "ImageSets/Segmentation/default.txt").unlink()
    write(root / "ImageSets/Segmentation/train.txt", "b\n")
    found = masks.read(Source(root))
    assert [(each.name, each.split) for each in found.images] == [("b", "train")]
    assert found.notes == ("masks that no list names, left out: a",)
    write(root / "ImageSets/Segmentation/val.txt", "c\n")
    with pytest.raises(InputError, match=r"val\.txt: names 'c', but .*SegmentationClass contains no such mask"):
        masks.read(Source(root))


def test_masks_are_never_taken_for_their_images(tmp_path):
    root = cvat_masks(tmp_path)
    (root / "JPEGImages").rename(tmp_path / "elsewhere")
    assert [each.file for each in masks.read(Source(root)).images] == [
        tmp_path / "elsewhere/a.png",
        tmp_path / "elsewhere/b.png",
    ]
    (tmp_path / "elsewhere/a.png").unlink()
    assert masks.read(Source(root)).images[0].file is None


def test_unknown_colors_and_invalid_lines_are_errors(tmp_path):
    root = cvat_masks(tmp_path)
    save(root / "SegmentationClass/a.png", np.full((HEIGHT, WIDTH, 3), 7, np.uint8))
    with pytest.raises(InputError, match=r"a\.png: color \[7, 7, 7\] is not one of the 3 classes' colors"):
        list(masks.read(Source(root)).images[0].shapes)
    write(root / "labelmap.txt", "# label:color_rgb\ncar:1,2::\n")
    with pytest.raises(InputError, match=r"labelmap\.txt: line 2: must be NAME:R,G,B::, got 'car:1,2::'"):
        masks.read(Source(root))
    write(root / "labelmap.txt", "car:1,2,3::\ntree:1,2,3::\n")
    with pytest.raises(InputError, match=r"line 2: another class has the color \[1, 2, 3\]"):
        masks.read(Source(root))


def test_an_image_in_a_subfolder_is_found(tmp_path):
    image(tmp_path / "images/north/a.png")
    image(tmp_path / "images/south/a.png")
    write(tmp_path / "annotations.xml", cvat_xml(cvat_polygon("tree", TREE), name="south/a.png"))
    assert read(Source(tmp_path)).images[0].file == tmp_path / "images/south/a.png"
    write(tmp_path / "annotations.xml", cvat_xml(cvat_polygon("tree", TREE), name="a.png"))
    with pytest.raises(InputError, match=r"'a\.png' names several images"):
        read(Source(tmp_path))


def test_the_whole_export_is_read(tmp_path):
    assert len(read(Source(cvat(tmp_path))).images) == 2
