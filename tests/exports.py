"""Exports of annotation tools, each with the same scene, written from the tools' documentation of their formats.

The scene is an image a.png of 16 x 12 pixels with a car, the rectangle from (2, 2) to (8, 6), and a tree, the polygon
(10, 1), (15, 1), (15, 10), (10, 10). An image b.png has no shapes.
"""

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from miniature import HEIGHT, WIDTH, image, save
from PIL import Image

from danet.data.annotations.brush import encode_brush
from danet.data.annotations.coco import encode_counts

CAR, TREE = [[2, 2], [8, 2], [8, 6], [2, 6]], [[10, 1], [15, 1], [15, 10], [10, 10]]
POLYGONS = {"car": CAR, "tree": TREE}
COLORS = {"background": (0, 0, 0), "car": (255, 128, 0), "tree": (0, 128, 64)}


def scene() -> np.ndarray:
    """The label map of a.png: background, car, tree."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:6, 2:8] = 1
    labels[1:10, 10:15] = 2
    return labels


def uncovered_scene() -> np.ndarray:
    """The labels of a.png as they are drawn: -1 for pixels without a shape."""
    return np.where(scene() == 0, -1, scene().astype(int))


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def png(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def base64_png(array: np.ndarray) -> str:
    return base64.b64encode(png(array)).decode()


def images(folder: Path, *names: str) -> None:
    for name in names or ("a.png", "b.png"):
        image(folder / name)


def coco(root: Path) -> Path:
    images(root / "images")
    sizes = {"width": WIDTH, "height": HEIGHT}
    records = [{"id": i, "file_name": name, **sizes} for i, name in enumerate(("a.png", "b.png"), 1)]
    shapes = [
        {"id": i, "image_id": 1, "category_id": i + 5, "segmentation": [np.ravel(points).tolist()], "iscrowd": 0}
        for i, points in enumerate(POLYGONS.values())
    ]
    names = [{"id": i + 5, "name": name, "supercategory": ""} for i, name in enumerate(POLYGONS)]
    write(root / "annotations.json", {"images": records, "annotations": shapes, "categories": names})
    return root


def labelme_shape(label: str, points: list, kind: str = "polygon", **more: Any) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme_file(file: Path, shapes: list[dict], name: str, height: int = HEIGHT, width: int = WIDTH, **more) -> Path:
    sizes = {"imageHeight": height, "imageWidth": width}
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None, **sizes}
    return write(file, content | more)


def labelme(root: Path) -> Path:
    images(root)
    labelme_file(root / "a.json", [labelme_shape(name, points) for name, points in POLYGONS.items()], "a.png")
    labelme_file(root / "b.json", [], "b.png")
    return root


def cvat_xml(*elements: str, name: str = "a.png", height: int = HEIGHT, width: int = WIDTH, more: str = "") -> str:
    """An annotations.xml with one image and its shapes; `more` are further images."""
    labels = "".join(
        f"<label><name>{name}</name><color>#{bytes(color).hex()}</color><attributes></attributes></label>"
        for name, color in COLORS.items()
        if name != "background"
    )
    meta = f"<meta><task><id>1</id><name>roads</name><labels>{labels}</labels></task></meta>"
    opened = f'<image id="0" name="{name}" width="{width}" height="{height}">'
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n{meta}\n{opened}\n'
        + "\n".join(elements)
        + f"\n</image>\n{more}\n</annotations>\n"
    )


def cvat_polygon(label: str, points: list, z_order: int = 0) -> str:
    text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon label="{label}" source="manual" occluded="0" points="{text}" z_order="{z_order}"></polygon>'


def cvat(root: Path) -> Path:
    images(root / "images")
    more = f'<image id="1" name="b.png" width="{WIDTH}" height="{HEIGHT}"></image>'
    shapes = [cvat_polygon(name, points) for name, points in POLYGONS.items()]
    write(root / "annotations.xml", cvat_xml(*shapes, more=more))
    return root


def cvat_masks(root: Path) -> Path:
    images(root / "JPEGImages")
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in COLORS.items()]
    write(root / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    write(root / "ImageSets/Segmentation/default.txt", "a\nb\n")
    colors = np.array(list(COLORS.values()), np.uint8)
    for name, labels in (("a", scene()), ("b", 0 * scene())):
        save(root / f"SegmentationClass/{name}.png", colors[labels])
        save(root / f"SegmentationObject/{name}.png", colors[labels])
    return root


def percent(points: list) -> list:
    return [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in points]


def label_studio_result(kind: str, label: str, value: dict, height: int = HEIGHT, width: int = WIDTH) -> dict:
    sizes = {"original_width": width, "original_height": height, "image_rotation": 0}
    names = {"id": f"{kind}-{label}", "type": kind, "from_name": "label", "to_name": "image", "origin": "manual"}
    return {**names, **sizes, "value": {**value, kind: [label]}}


def label_studio_task(number: int, name: str, *results: dict, **more: Any) -> dict:
    annotation = {"id": 10 * number, "completed_by": 1, "was_cancelled": False, "result": list(results)}
    path = f"/data/upload/1/0a1b2c3d-{name}"
    return {"id": number, "annotations": [annotation], "predictions": [], "data": {"image": path}, **more}


def label_studio(root: Path) -> Path:
    images(root / "images")
    results = [
        label_studio_result("polygonlabels", name, {"points": percent(points), "closed": True})
        for name, points in POLYGONS.items()
    ]
    write(root / "project.json", [label_studio_task(1, "a.png", *results), label_studio_task(2, "b.png")])
    return root


def label_studio_png(root: Path) -> Path:
    images(root / "images")
    names = {1: "a.png", 2: "b.png"}
    tasks = [{"id": i, "annotations": [], "data": {"image": f"/data/upload/1/0a1b2c3d-{n}"}} for i, n in names.items()]
    write(root / "project.json", tasks)
    for i, name in enumerate(POLYGONS, 1):
        mask = np.where(scene() == i, 255, 0).astype(np.uint8)
        save(root / f"task-1-annotation-7-by-1-label-{name}-0.png", mask)
    return root


def supervisely_object(title: str, kind: str, **more: Any) -> dict:
    return {"id": 1, "classTitle": title, "geometryType": kind, "tags": [], **more}


def supervisely_bitmap(mask: np.ndarray, left: int, top: int) -> dict:
    data = base64.b64encode(zlib.compress(png(np.where(mask, 255, 0).astype(np.uint8)))).decode()
    return {"data": data, "origin": [left, top]}


def supervisely(root: Path) -> Path:
    images(root / "street/img")
    classes = [
        {"title": name, "shape": "any", "color": f"#{bytes(color).hex().upper()}"}
        for name, color in COLORS.items()
        if name != "background"
    ]
    write(root / "meta.json", {"classes": classes, "tags": []})
    objects = [
        supervisely_object(name, "polygon", points={"exterior": points, "interior": []})
        for name, points in POLYGONS.items()
    ]
    size = {"height": HEIGHT, "width": WIDTH}
    for name, found in (("a", objects), ("b", [])):
        write(root / f"street/ann/{name}.png.json", {"description": "", "tags": [], "size": size, "objects": found})
    return root


def via_region(label: str | None, **shape: Any) -> dict:
    return {"shape_attributes": shape, "region_attributes": {"type": label} if label else {}}


def via(root: Path) -> Path:
    images(root)
    regions = [
        via_region(name, name="polygon", all_points_x=[x for x, _ in points], all_points_y=[y for _, y in points])
        for name, points in POLYGONS.items()
    ]
    files = {
        f"{name}123": {"filename": name, "size": 123, "regions": found, "file_attributes": {}}
        for name, found in (("a.png", regions), ("b.png", []))
    }
    write(root / "via_region_data.json", files)
    return root


def yolo(root: Path) -> Path:
    images(root / "images")
    write(root / "data.yaml", "path: .\ntrain: images\nnames:\n  0: car\n  1: tree\n")
    lines = [
        f"{i} " + " ".join(f"{x / WIDTH:.8f} {y / HEIGHT:.8f}" for x, y in points)
        for i, points in enumerate(POLYGONS.values())
    ]
    write(root / "labels/a.txt", "\n".join(lines) + "\n")
    return root


def kaggle_runs(mask: np.ndarray, by_columns: bool = True) -> str:
    flat = np.concatenate([[0], (mask.T if by_columns else mask).ravel(), [0]]).astype(int)
    starts, stops = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    return " ".join(f"{start + 1} {stop - start}" for start, stop in zip(starts, stops, strict=True))


def rle_csv(root: Path) -> Path:
    images(root / "train")
    lines = [f"a.png,{name},{kaggle_runs(scene() == i)}" for i, name in enumerate(POLYGONS, 1)]
    write(root / "train.csv", "\n".join(["ImageId,ClassId,EncodedPixels", *lines, "b.png,car,"]) + "\n")
    return root


def masks(root: Path) -> Path:
    images(root / "images")
    for i, name in enumerate(POLYGONS, 1):
        save(root / f"masks/a_{name}.png", np.where(scene() == i, 255, 0).astype(np.uint8))
    return root


EXPORTS: dict[str, Callable[[Path], Path]] = {
    "coco": coco,
    "labelme": labelme,
    "cvat": cvat,
    "cvat-masks": cvat_masks,
    "label-studio": label_studio,
    "label-studio-png": label_studio_png,
    "supervisely": supervisely,
    "via": via,
    "yolo": yolo,
    "rle-csv": rle_csv,
    "masks": masks,
}
"""Format -> function that writes an export into a folder."""


def with_every_shape(name: str, root: Path) -> Path:
    """Write an export with shapes of every kind that its format has, for tests of damaged files."""
    EXPORTS[name](root)
    mask = scene() == 1
    if name == "coco":
        content = json.loads((root / "annotations.json").read_text())
        plain = {"size": [HEIGHT, WIDTH], "counts": [26, 4, 8, 4, 150]}
        compressed = {"size": [HEIGHT, WIDTH], "counts": encode_counts(np.array(plain["counts"]))}
        more = [{"image_id": 2, "category_id": 5, "iscrowd": 1, "segmentation": each} for each in (plain, compressed)]
        content["annotations"] += [{"id": i, **shape} for i, shape in enumerate(more, 7)]
        write(root / "annotations.json", content)
    elif name == "labelme":
        kinds = {
            "rectangle": [[1, 1], [4, 4]],
            "circle": [[8, 6], [10, 6]],
            "line": [[1, 1], [9, 9]],
            "point": [[1, 1]],
        }
        shapes = [labelme_shape("car", points, kind) for kind, points in kinds.items()]
        shapes.append(labelme_shape("tree", [[1, 1], [16, 12]], "mask", mask=base64_png(np.uint8(mask))))
        data = base64_png(np.zeros((HEIGHT, WIDTH), np.uint8))
        labelme_file(root / "a.json", [labelme_shape("tree", TREE), *shapes], "a.png", imageData=data)
        write(root / "labels.txt", "__ignore__\ncar\ntree\n")
    elif name == "cvat":
        elements = [
            '<box label="car" xtl="2.00" ytl="3.00" xbr="7.00" ybr="5.00" rotation="30.0" z_order="1"></box>',
            '<ellipse label="tree" cx="8.00" cy="6.00" rx="5.00" ry="3.00"></ellipse>',
            '<mask label="car" rle="1, 2, 1, 3, 1" left="4" top="6" width="4" height="2"></mask>',
            '<polyline label="tree" points="2.00,2.00;9.00,2.00"></polyline>',
            '<points label="car" points="1.00,1.00"></points>',
        ]
        write(root / "annotations.xml", cvat_xml(cvat_polygon("car", CAR), *elements))
    elif name == "label-studio":
        box = {"x": 12.5, "y": 25, "width": 50, "height": 25, "rotation": 10}
        round_box = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25}
        url = {"imageDataURL": f"data:image/png;base64,{base64_png(np.uint8(mask))}"}
        values = {"rectanglelabels": box, "ellipselabels": round_box, "bitmasklabels": url}
        values["brushlabels"] = {"format": "rle", "rle": encode_brush(mask)}
        results = [label_studio_result(kind, "car", value) for kind, value in values.items()]
        polygon = label_studio_result("polygonlabels", "tree", {"points": percent(TREE)})
        write(root / "project.json", [label_studio_task(1, "a.png", polygon, *results), label_studio_task(2, "b.png")])
    elif name == "supervisely":
        objects = [
            supervisely_object("car", "bitmap", bitmap=supervisely_bitmap(mask, 0, 0)),
            supervisely_object("tree", "rectangle", points={"exterior": [[15, 9], [12, 8]], "interior": []}),
            supervisely_object("tree", "polygon", points={"exterior": TREE, "interior": [[[11, 3], [12, 3], [12, 5]]]}),
            supervisely_object("car", "line", points={"exterior": [[1, 2], [9, 2]], "interior": []}),
        ]
        content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": objects, "tags": []}
        write(root / "street/ann/a.png.json", content)
    elif name == "via":
        shapes = [
            via_region("car", name="rect", x=1, y=1, width=3, height=2),
            via_region("tree", name="ellipse", cx=8, cy=6, rx=5, ry=2, theta=0.5),
            via_region("car", name="circle", cx=10, cy=6, r=2.5),
            via_region("tree", name="polyline", all_points_x=[1, 9], all_points_y=[3, 3]),
            via_region("tree", name="polygon", all_points_x=[10, 15, 15], all_points_y=[1, 1, 9]),
        ]
        write(root / "via_region_data.json", {"a": {"filename": "a.png", "size": 1, "regions": shapes}})
    return root
