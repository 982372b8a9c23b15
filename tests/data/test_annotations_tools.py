"""Supervisely, VGG Image Annotator, YOLO, run lengths in CSV, and one mask file per class or object."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import (
    CAR,
    COLORS,
    kaggle_runs,
    masks,
    png,
    rle_csv,
    scene,
    supervisely,
    supervisely_bitmap,
    supervisely_object,
    uncovered_scene,
    via,
    via_region,
    write,
    yolo,
)
from labelformat.formats import YOLOv8InstanceSegmentationInput
from miniature import HEIGHT, WIDTH, image, save

from danet import InputError
from danet.data.annotations import mask_files as mask_reader
from danet.data.annotations import rle_csv as csv_reader
from danet.data.annotations import supervisely as supervisely_reader
from danet.data.annotations import via as via_reader
from danet.data.annotations import yolo as yolo_reader
from danet.data.annotations.frames import draw_frame, find_frame
from danet.data.annotations.rasterize import draw_shapes
from danet.data.annotations.recognize import recognize
from danet.data.annotations.shapes import AnnotatedImage, Export
from danet.data.annotations.source import Source

SIZE = HEIGHT, WIDTH


def labels(image: AnnotatedImage, names: dict[str, int], line_width: float | None = None) -> np.ndarray:
    return draw_frame(find_frame(image), names, line_width, largest_first=False).labels


# Supervisely


def project(root: Path, *objects: dict) -> Export:
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": list(objects), "tags": []}
    write(supervisely(root) / "street/ann/a.png.json", content)
    return supervisely_reader.read(Source(root))


def test_supervisely_bitmaps_polygons_with_holes_and_rectangles(tmp_path):
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    objects = [
        supervisely_object("car", "bitmap", bitmap=supervisely_bitmap(mask, 3, 2)),
        supervisely_object("tree", "rectangle", points={"exterior": [[15, 9], [12, 8]], "interior": []}),
    ]
    drawn = labels(project(tmp_path / "1", *objects).images[0], {"car": 1, "tree": 2})
    assert (drawn[2:6, 3:9] == np.where(mask, 1, -1)).all()
    assert np.argwhere(drawn == 2)[[0, -1]].tolist() == [[8, 12], [9, 15]]  # both corners are inside
    outer, hole = [[1, 1], [11, 1], [11, 11], [1, 11]], [[4, 4], [8, 4], [8, 8], [4, 8]]
    ring = supervisely_object("car", "polygon", points={"exterior": outer, "interior": [hole]})
    drawn = labels(project(tmp_path / "2", ring).images[0], {"car": 1})
    assert (drawn == 1).sum() == 100 - 16
    assert (drawn[4:8, 4:8] == -1).all()


def test_supervisely_classes_have_the_order_and_colors_of_the_project(tmp_path):
    found = supervisely_reader.read(Source(supervisely(tmp_path)))
    assert found.classes == {"car": COLORS["car"], "tree": COLORS["tree"]}


def test_supervisely_other_geometries_are_left_out_and_lines_are_lines(tmp_path):
    point = supervisely_object("car", "point", points={"exterior": [[1, 2]], "interior": []})
    line = supervisely_object("car", "line", points={"exterior": [[1, 2], [9, 2]], "interior": []})
    found = project(tmp_path, point, line)
    assert list(found.left_out) == ["point objects"]
    assert (labels(found.images[0], {"car": 1}, line_width=2) == 1).sum() >= 16


def test_supervisely_datasets_are_splits_and_images_of_both_are_found(tmp_path):
    root = supervisely(tmp_path)
    (root / "street").rename(root / "train")
    supervisely(tmp_path / "more")
    (tmp_path / "more/street").rename(root / "val")
    (tmp_path / "more/meta.json").unlink()
    found = supervisely_reader.read(Source(root)).images
    assert [(each.split, each.file) for each in found] == [
        (split, root / split / "img" / name) for split in ("train", "val") for name in ("a.png", "b.png")
    ]


def test_supervisely_annotations_without_the_suffix_of_the_image_are_read(tmp_path):
    root = supervisely(tmp_path)
    for name in "ab":
        (root / f"street/ann/{name}.png.json").rename(root / f"street/ann/{name}.json")
    assert [each.file for each in supervisely_reader.read(Source(root)).images] == [
        root / "street/img/a.png",
        root / "street/img/b.png",
    ]


@pytest.mark.parametrize(
    ("item", "place", "what"),
    [
        (supervisely_object("bus", "polygon"), ".classTitle", "'bus' is not a class in meta.json"),
        (supervisely_object("car", "bitmap", bitmap={"origin": [1, 2]}), ".bitmap", "has no 'data'"),
        (
            supervisely_object("car", "bitmap", bitmap={"origin": [1, 2], "data": "AAAA"}),
            ".bitmap.data",
            "is not compressed by",
        ),
        (
            supervisely_object("car", "bitmap", bitmap={"origin": [1], "data": "AAAA"}),
            ".bitmap.origin",
            "must be [left, top], got 1 numbers",
        ),
        (
            supervisely_object("car", "bitmap", bitmap={"origin": [1.5, 2], "data": ""}),
            ".bitmap.origin[0]",
            "must be a whole",
        ),
        (supervisely_object("car", "polygon", points={"exterior": CAR}), ".points", "has no 'interior'"),
    ],
)
def test_supervisely_mistakes_name_the_object_and_the_field(item, place, what, tmp_path):
    with pytest.raises(InputError) as raised:
        project(tmp_path, item)
    assert raised.value.where == tmp_path / "street/ann/a.png.json"
    assert raised.value.what.startswith(f"objects[0]{place}: {what}")


def test_a_supervisely_dataset_without_its_project_is_an_error(tmp_path):
    (supervisely(tmp_path) / "meta.json").unlink()
    with pytest.raises(InputError, match=r"contains no meta\.json, which defines the classes"):
        supervisely_reader.read(Source(tmp_path))


# VGG Image Annotator


def regions(root: Path, *found: dict, **more) -> Export:
    image(root / "a.png")
    write(root / "via.json", {"a.png1": {"filename": "a.png", "size": 1, "regions": list(found)}, **more})
    return via_reader.read(Source(root))


def test_via_shapes_are_drawn(tmp_path):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    shapes = [
        via_region("rect", name="rect", x=1, y=1, width=3, height=2),
        via_region("circle", name="circle", cx=10, cy=6, r=2.5),
    ]
    drawn = labels(regions(tmp_path / "1", *shapes).images[0], {"rect": 0, "circle": 1})
    assert (drawn == 0).sum() == 6
    assert ((drawn == 1) == ((x - 10) ** 2 + (y - 6) ** 2 <= 6.25)).all()
    turned = via_region("e", name="ellipse", cx=8, cy=6, rx=5, ry=2, theta=np.pi / 2)
    drawn = labels(regions(tmp_path / "2", turned).images[0], {"e": 0})
    assert ((drawn == 0) == (((x - 8) / 2) ** 2 + ((y - 6) / 5) ** 2 <= 1)).all()
    line = via_region("l", name="polyline", all_points_x=[1, 9], all_points_y=[3, 3])
    point = via_region("l", name="point", cx=1, cy=1)
    found = regions(tmp_path / "3", line, point)
    assert (labels(found.images[0], {"l": 0}, line_width=2) == 0).sum() >= 16
    assert list(found.left_out) == ["points"]


def test_via_version_1_and_projects_are_read(tmp_path):
    root = via(tmp_path)
    content = json.loads((root / "via_region_data.json").read_text())
    first = next(iter(content.values()))
    first["regions"] = {str(i): region for i, region in enumerate(first["regions"])}
    write(root / "via_region_data.json", content)
    assert [shape.name for shape in via_reader.read(Source(root)).images[0].shapes] == ["car", "tree"]
    attributes = {"region": {"type": {"type": "dropdown", "options": {"tree": "a tree", "car": ""}}}, "file": {}}
    project = {"_via_settings": {}, "_via_img_metadata": content, "_via_attributes": attributes}
    write(root / "via_region_data.json", project)
    found = via_reader.read(Source(root))
    assert list(found.classes) == ["tree", "car"]
    assert found.notes == ()


def test_via_the_attribute_with_the_class_must_be_chosen_if_there_are_several(tmp_path):
    region = via_region("car", name="rect", x=1, y=1, width=3, height=2)
    region["region_attributes"]["quality"] = "good"
    with pytest.raises(InputError) as raised:
        regions(tmp_path, region)
    assert raised.value.what == "its regions have 2 attributes: type, quality"
    assert raised.value.remedy == "choose the one that holds the class with `class_attribute`"
    assert list(via_reader.read(Source(tmp_path, class_attribute="quality")).classes) == ["good"]
    with pytest.raises(InputError, match="'kind' is unknown"):
        via_reader.read(Source(tmp_path, class_attribute="kind"))


def test_via_regions_without_attributes_are_one_class(tmp_path):
    region = via_region(None, name="rect", x=1, y=1, width=3, height=2)
    found = regions(tmp_path, region)
    assert list(found.classes) == ["foreground"]
    assert found.notes == ("regions have no attributes: all are of one class, 'foreground'",)


def test_via_checkboxes_must_name_one_class(tmp_path):
    region = via_region("car", name="rect", x=1, y=1, width=3, height=2)
    region["region_attributes"]["type"] = {"car": True, "tree": False}
    assert list(regions(tmp_path, region).classes) == ["car"]
    region["region_attributes"]["type"] = {"car": True, "tree": True}
    with pytest.raises(InputError, match="has several classes: car, tree"):
        regions(tmp_path, region)
    region["region_attributes"] = {}
    other = via_region("car", name="rect", x=1, y=1, width=3, height=2)
    assert list(regions(tmp_path, region, other).left_out) == ["regions without 'type'"]


@pytest.mark.parametrize(
    ("shape", "place", "what"),
    [
        ({"name": "polygon", "all_points_x": [1, 2, 3]}, ".shape_attributes", "has no 'all_points_y'"),
        (
            {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]},
            ".shape_attributes.all_points_y",
            "has 2 numbers, but all_points_x has 3",
        ),
        ({"name": "circle", "cx": 1, "cy": 2, "r": "big"}, ".shape_attributes.r", "must be a number from -1000000 to"),
        ({"name": "star"}, ".shape_attributes.name", "'star' is unknown"),
    ],
)
def test_via_mistakes_name_the_region_and_the_field(shape, place, what, tmp_path):
    with pytest.raises(InputError) as raised:
        regions(tmp_path, via_region("car", **shape))
    assert raised.value.where == tmp_path / "via.json"
    assert raised.value.what.startswith(f"['a.png1'].regions[0]{place}: {what}")


# YOLO


def test_labelformat_reads_the_same_yolo_polygons(tmp_path):
    root = yolo(tmp_path)
    write(root / "data.yaml", "path: .\ntrain: images\nval: images\nnames:\n  0: car\n  1: tree\n")
    write(root / "labels/b.txt", "")
    theirs = list(YOLOv8InstanceSegmentationInput(root / "data.yaml", "train").get_labels())
    ours = {found.name: found for found in yolo_reader.read(Source(root)).images}
    assert len(theirs) >= 1
    for other in theirs:
        for shape, instance in zip(ours[other.image.filename].shapes, other.objects, strict=True):
            assert shape.name == instance.category.name
            points = shape.regions[0].rings[0] * (WIDTH, HEIGHT)
            assert np.allclose(points, instance.segmentation.polygons[0])


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ("train: images/train\nval: images/val\nnames: [car, tree]\n", None),
        ("path: ../mine\ntrain: ../train/images\nval: ../valid/images\nnc: 2\nnames: [car, tree]\n", "roboflow"),
        ("train: a.txt\nval: [b.txt]\nnames:\n  0: car\n  1: tree\n", "lists"),
    ],
)
def test_yolo_splits_are_those_of_data_yaml(settings, layout, tmp_path):
    root = yolo(tmp_path / "export")
    write(root / "data.yaml", settings)
    if layout == "lists":
        write(root / "a.txt", "./images/a.png\n")
        write(root / "b.txt", "./images/b.png\n")
    else:
        for name, split in (("a", "train"), ("b", "val")):
            image_folder, label_folder = root / f"images/{split}", root / f"labels/{split}"
            if layout == "roboflow":
                split = {"val": "valid"}.get(split, split)
                image_folder, label_folder = root / f"{split}/images", root / f"{split}/labels"
            image_folder.mkdir(parents=True)
            label_folder.mkdir(parents=True)
            (root / f"images/{name}.png").rename(image_folder / f"{name}.png")
            if (root / f"labels/{name}.txt").exists():
                (root / f"labels/{name}.txt").rename(label_folder / f"{name}.txt")
    found = {each.name: each for each in yolo_reader.read(Source(root)).images}
    assert {name: each.split for name, each in found.items()} == {"a.png": "train", "b.png": "val"}
    assert (labels(found["a.png"], {"car": 1, "tree": 2}) == uncovered_scene()).all()
    assert list(found["b.png"].shapes) == []


def test_yolo_ids_of_one_name_are_one_class_and_named(tmp_path):
    root = yolo(tmp_path)
    write(root / "data.yaml", "path: .\ntrain: images\nnames: [car, car]\n")
    found = yolo_reader.read(Source(root))
    assert (list(found.classes), found.notes) == (["car"], ("ids with the same name are one class: car",))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_yolo_settings_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    root = yolo(tmp_path)
    settings = "names: [car, tree]\npath: .\ntrain: images\n"
    (root / "data.yaml").write_bytes(settings.encode(encoding))
    assert recognize(Source(root)) == ["yolo"]
    assert list(yolo_reader.read(Source(root)).classes) == ["car", "tree"]


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt", "images/classes.txt"])
def test_yolo_labels_next_to_images_and_a_list_of_names_are_read(tmp_path, place):
    root = yolo(tmp_path)
    (root / "data.yaml").unlink()
    (root / "labels/a.txt").rename(root / "images/a.txt")
    write(root / place, "car\ntree\n")
    assert recognize(Source(root)) == ["yolo"]
    assert len(list(yolo_reader.read(Source(root)).images[0].shapes)) == 2


def test_yolo_boxes_are_left_out_and_keypoints_refused(tmp_path):
    root = yolo(tmp_path)
    write(root / "labels/a.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.5\n")
    found = yolo_reader.read(Source(root))
    assert found.left_out == {"boxes without a polygon": [f"{root / 'labels/a.txt'}: line 1"]}
    write(root / "data.yaml", "names: [car]\nkpt_shape: [17, 3]\n")
    with pytest.raises(InputError, match=r"kpt_shape: these are keypoints"):
        yolo_reader.read(Source(root))


def test_yolo_labels_without_an_image_are_an_error(tmp_path):
    root = yolo(tmp_path)
    write(root / "labels/c.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    with pytest.raises(InputError, match=r"c\.txt: has labels, but there is no image c \(and 0 other such files\)"):
        yolo_reader.read(Source(root))


def test_yolo_images_elsewhere_are_found_by_name(tmp_path):
    root = yolo(tmp_path / "export")
    (root / "images").rename(tmp_path / "photos")
    found = yolo_reader.read(Source(root, images=tmp_path / "photos"))
    assert len(list(found.images[0].shapes)) == 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("x 0.1 0.1 0.5 0.1 0.5 0.5", "line 1, class: must be a number from 0 to 1000000, got 'x'"),
        ("7 0.1 0.1 0.5 0.1 0.5 0.5", "line 1: class 7 has no name in data.yaml or classes.txt"),
        ("0 0.1 0.1 0.5 0.1 0.5", "line 1: must be a list of numbers x, y, x, y, ..., got 5 numbers"),
        ("0 0.1 0.1 0.5 0.1 0.5 nan", "line 1: point 2: y must be within any image, got nan"),
        ("0 0.1 0.1 0.5 0.1 0.5 a", "line 1: must be a list of numbers"),
    ],
)
def test_yolo_mistakes_name_the_line(line, what, tmp_path):
    root = yolo(tmp_path)
    write(root / "labels/a.txt", line)
    with pytest.raises(InputError) as raised:
        yolo_reader.read(Source(root))
    assert (raised.value.where, raised.value.what) == (root / "labels/a.txt", what)


# run lengths in CSV


@pytest.mark.parametrize(
    ("header", "row", "name"),
    [
        ("ImageId,EncodedPixels", "a.png,{}", "foreground"),
        ("ImageId,EncodedPixels", "a,{}", "foreground"),
        ("ImageId_ClassId,EncodedPixels", "a.png_3,{}", "class_3"),
        ("Image_Label,EncodedPixels", "a.png_Fish,{}", "Fish"),
        ("ImageId,ClassId,EncodedPixels", "a.png,4,{}", "class_4"),
        ("img,rle_mask", "a.png,{}", "foreground"),
        ("id,class,segmentation", "a,stomach,{}", "stomach"),
        ("ImageId,EncodedPixels,Height,Width,ClassId", "a.png,{},12,16,6", "class_6"),
        ("id,annotation,width,height,cell_type", "a,{},16,12,cort", "foreground"),
    ],
)
@pytest.mark.parametrize("by_columns", [True, False])
def test_the_columns_of_competitions_are_known_and_the_order_is_inferred(header, row, name, by_columns, tmp_path):
    image(tmp_path / "train/a.png")
    mask = scene() > 0
    write(tmp_path / "train.csv", f"{header}\n{row.format(kaggle_runs(mask, by_columns))}\n")
    found = csv_reader.read(Source(tmp_path))
    assert list(found.classes) == [name]
    assert ((labels(found.images[0], {name: 1}) == 1) == mask).all()
    how = "down the columns" if by_columns else "along the rows"
    assert found.notes == (
        f"run lengths are counted {how} (inferred from the shapes' boundaries; `run_order` says otherwise)",
    )
    other = Source(tmp_path, run_order="rows" if by_columns else "columns")
    drawn = labels(csv_reader.read(other).images[0], {name: 1}) == 1
    assert drawn.sum() == mask.sum()
    assert (drawn != mask).any()


@pytest.mark.parametrize(
    ("shape", "why"),
    [((16, 16), "all images are square"), ((12, 16), "the boundaries of the shapes are equally long either way")],
)
def test_the_order_of_runs_is_assumed_if_no_shape_shows_it(shape, why, tmp_path):
    save(tmp_path / "train/a.png", np.zeros(shape, np.uint8))
    mask = np.ones(shape, bool)
    mask[4:, :] = shape[0] != shape[1]
    write(tmp_path / "train.csv", f"ImageId,EncodedPixels\na.png,{kaggle_runs(mask, by_columns=False)}\n")
    found = csv_reader.read(Source(tmp_path))
    assert found.notes == (
        f"run lengths are assumed to be counted down the columns, as in most files of Kaggle: {why}; if the masks are "
        "transposed, import again with `run_order` rows",
    )
    assert ((labels(found.images[0], {"foreground": 1}) == 1) == (mask.T if shape == (16, 16) else mask)).all()


def test_square_images_have_the_order_of_runs_of_the_others(tmp_path):
    square = np.zeros((64, 64), bool)
    square[:40] = True
    lines = ["ImageId,EncodedPixels"]
    for i in range(60):
        save(tmp_path / f"train/a{i}.png", np.zeros(square.shape, np.uint8))
        lines.append(f"a{i}.png,{kaggle_runs(square, by_columns=False)}")
    image(tmp_path / "train/b.png")
    lines.append(f"b.png,{kaggle_runs(scene() > 0, by_columns=False)}")
    write(tmp_path / "train.csv", "\n".join(lines))
    found = csv_reader.read(Source(tmp_path))
    assert found.notes[0].startswith("run lengths are counted along the rows (inferred")
    assert ((labels(found.images[0], {"foreground": 1}) == 1) == square).all()


def test_rows_without_pixels_are_images_without_shapes(tmp_path):
    root = rle_csv(tmp_path)
    write(root / "train.csv", "ImageId,EncodedPixels\na.png,1 3\nb.png,-1\n")
    found = csv_reader.read(Source(root))
    assert [len(list(each.shapes)) for each in found.images] == [1, 0]


def test_sample_submissions_are_not_read_and_several_files_must_be_chosen(tmp_path):
    root = rle_csv(tmp_path)
    write(root / "sample_submission.csv", "ImageId,EncodedPixels\na.png,1 1\n")
    assert len(csv_reader.read(Source(root)).images) == 2
    write(root / "other.csv", "ImageId,EncodedPixels\na.png,1 3\n")
    with pytest.raises(InputError, match=r"contains 2 files of run lengths: other\.csv, train\.csv"):
        csv_reader.read(Source(root))
    assert len(csv_reader.read(Source(root / "other.csv")).images) == 1


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a.png,car", "line 2: has 2 fields, but the header has 3"),
        ("a.png,car,1 2 3", "line 2, EncodedPixels: must be START LENGTH START LENGTH ..., in whole numbers"),
        ("a.png,car,0 5", "line 2, EncodedPixels: runs must be within the pixels 1 to 192 (16 x 12), got 0 to 4"),
        ("a.png,car,190 9", "line 2, EncodedPixels: runs must be within the pixels 1 to 192 (16 x 12), got 190 to 198"),
        ("a.png,car,1 -5", "line 2, EncodedPixels: runs must be within the pixels 1 to 192 (16 x 12), got 1 to -5"),
        ("a.png,car,1 9 5 3", "line 2, EncodedPixels: runs overlap"),
        ("a.png,car,1.5 2", "line 2, EncodedPixels: must be START LENGTH START LENGTH ..., in whole numbers"),
        ("a.png,car,1 1e99", "line 2, EncodedPixels: must be START LENGTH START LENGTH ..., in whole numbers"),
        ("a.png,car,one two", "line 2, EncodedPixels: must be a list of numbers"),
        (",car,1 5", "line 2.ImageId: must be a text, got ''"),
    ],
)
def test_csv_mistakes_name_the_line_and_the_column(row, what, tmp_path):
    root = rle_csv(tmp_path)
    write(root / "train.csv", f"ImageId,ClassId,EncodedPixels\n{row}\n")
    with pytest.raises(InputError) as raised:
        csv_reader.read(Source(root))
    assert (raised.value.where, raised.value.what) == (root / "train.csv", what)


def test_runs_of_images_of_more_than_a_million_pixels(tmp_path):
    save(tmp_path / "train/a.png", np.zeros((1000, 1200), np.uint8))
    write(tmp_path / "train.csv", "ImageId,EncodedPixels\na.png,1199001 1000\n")
    found = csv_reader.read(Source(tmp_path, run_order="columns"))
    drawn = labels(found.images[0], {"foreground": 1}) == 1
    assert drawn[:, -1].all()
    assert drawn.sum() == 1000


# one mask file per class or object


def put(file: Path, index: int) -> None:
    save(file, np.where(scene() == index, 255, 0).astype(np.uint8))


def by_suffix(root: Path) -> None:
    put(root / "masks/a_car.png", 1)
    put(root / "masks/a_tree.png", 2)


def by_number(root: Path) -> None:
    put(root / "masks/a_car_1.png", 1)
    put(root / "masks/a-tree 2.png", 2)


def by_class_folder(root: Path) -> None:
    put(root / "masks/car/a.png", 1)
    put(root / "masks/tree/a.png", 2)


def by_image_folder(root: Path) -> None:
    put(root / "masks/a/car.png", 1)
    put(root / "masks/a/tree.png", 2)


@pytest.mark.parametrize("layout", [by_suffix, by_number, by_class_folder, by_image_folder])
def test_masks_per_class_are_read_in_every_layout(layout, tmp_path):
    for name in "ab":
        image(tmp_path / f"images/{name}.png")
    layout(tmp_path)
    assert recognize(Source(tmp_path)) == ["masks"]
    found = mask_reader.read(Source(tmp_path))
    assert list(found.classes) == ["car", "tree"]
    a, b = found.images
    assert (labels(a, {"car": 1, "tree": 2}) == uncovered_scene()).all()
    assert list(b.shapes) == []


def test_masks_per_object_are_one_class(tmp_path):
    for name in ("2f1a", "77bc"):
        image(tmp_path / f"stage1_train/{name}/images/{name}.png")
        for i in (1, 2):
            put(tmp_path / f"stage1_train/{name}/masks/{name}{i}f0.png", i)
    assert recognize(Source(tmp_path)) == ["masks"]
    found = mask_reader.read(Source(tmp_path))
    assert list(found.classes) == ["foreground"]
    assert ((labels(found.images[0], {"foreground": 1}) == 1) == (scene() > 0)).all()
    assert found.notes == ("the masks' names contain no class, so each is an object of one class",)


def test_one_mask_per_image_is_no_export(tmp_path):
    image(tmp_path / "images/a.png")
    put(tmp_path / "masks/a_car.png", 1)
    assert recognize(Source(tmp_path)) == []
    save(tmp_path / "masks/a_viz.png", np.arange(3 * HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3))
    assert recognize(Source(tmp_path)) == []


def test_masks_of_no_image_and_of_several_values_are_errors(tmp_path):
    root = masks(tmp_path)
    for kind in (np.uint8, np.uint16):
        save(root / "masks/a_tree.png", np.arange(HEIGHT * WIDTH, dtype=kind).reshape(SIZE))
        with pytest.raises(InputError, match=r"a_tree\.png: has more than two values"):
            list(mask_reader.read(Source(root)).images[0].shapes)
    put(root / "masks/c_car.png", 1)
    with pytest.raises(InputError, match=r"c_car\.png: belongs to no image \(and 0 other masks\)"):
        mask_reader.read(Source(root))


def test_the_longest_name_decides_which_image_a_mask_belongs_to(tmp_path):
    for name in ("a", "a_1"):
        image(tmp_path / f"images/{name}.png")
        put(tmp_path / f"masks/{name}_car.png", 1)
        put(tmp_path / f"masks/{name}_tree.png", 2)
    found = mask_reader.read(Source(tmp_path))
    assert [[shape.name for shape in each.shapes] for each in found.images] == [["car", "tree"]] * 2


def test_transparent_masks_are_inside_where_they_are_opaque(tmp_path):
    from danet.data.images.binary_masks import decode_binary_mask, read_binary_mask

    inside = scene() == 1
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[inside, 3] = 255
    assert (decode_binary_mask(png(pixels), "m") == inside).all()
    pixels[..., 3] = 255
    pixels[inside, 0] = 9
    assert (decode_binary_mask(png(pixels), "m") == inside).all()
    save(tmp_path / "m.png", np.uint16(1000 * inside))
    assert (read_binary_mask(tmp_path / "m.png", two_values=True) == inside).all()
    save(tmp_path / "m.png", inside)
    assert (read_binary_mask(tmp_path / "m.png", two_values=True) == inside).all()
    save(tmp_path / "m.jpg", np.uint8(255 * inside))
    with pytest.raises(InputError, match="lossy format"):
        read_binary_mask(tmp_path / "m.jpg")


def test_regions_of_a_frame_are_scaled_from_fractions(tmp_path):
    found = yolo_reader.read(Source(yolo(tmp_path))).images[0]
    assert draw_shapes(found.shapes, (1, 1), {"car": 0, "tree": 0}).labels.shape == (1, 1)
    assert (labels(found, {"car": 1, "tree": 2}) == uncovered_scene()).all()
