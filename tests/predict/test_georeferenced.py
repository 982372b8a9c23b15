"""Labels, polygons and mosaics of images with coordinates agree with the images' pixels and places."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from danet import InputError
from danet.cli import main
from danet.data.classes import Classes
from danet.data.images.read import read_image
from danet.predict.georeferenced import write_mosaic, write_polygons
from danet.predict.inputs import find_jobs, kind_of
from danet.predict.predictor import load

rasterio = pytest.importorskip("rasterio")
affine = pytest.importorskip("affine")
GroundControlPoint = pytest.importorskip("rasterio.control").GroundControlPoint

CRS = "EPSG:32633"  # UTM, in meters


def tile(
    path: Path, x: float = 500_000, y: float = 5_300_000, step: float = 10, crs: str | None = CRS, size=(24, 32)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(int(x + y) % 1000).integers(0, 256, (3, *size), np.uint8)
    shape = {"count": 3, "height": size[0], "width": size[1], "dtype": "uint8", "photometric": "RGB"}
    place = {"crs": crs, "transform": affine.Affine(step, 0, x, 0, -step, y)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(pixels)
    return path


def label_tile(path: Path, labels: np.ndarray, x: float, y: float, crs: str | None = CRS) -> Path:
    shape = {"count": 1, "height": labels.shape[0], "width": labels.shape[1], "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=affine.Affine(10, 0, x, 0, -10, y), **shape) as f:
        f.write(labels, 1)
    return path


def run(weights: Path, out: Path, *args: object) -> int:
    return main(["predict", *map(str, args), "--weights", str(weights), "--out", str(out)])


def test_labels_of_a_small_geotiff_have_its_coordinates(tmp_path, tiny_weights):
    source = tile(tmp_path / "a.tif")
    assert kind_of(source) == "geo"
    assert run(tiny_weights, tmp_path / "out", source) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_overlay.png", "a_labels.tif", "a.json"}
    with rasterio.open(tmp_path / "out/a_labels.tif") as labels, rasterio.open(source) as image:
        assert (labels.crs, labels.transform) == (image.crs, image.transform)
        assert np.array_equal(labels.read(1), load(tiny_weights)(source).labels)
        assert labels.colormap(1)[1][:3] == load(tiny_weights).classes.palette[1]


@pytest.mark.parametrize("orientation", [3, 6])
def test_coordinates_of_rotated_pixels_are_refused(orientation, tmp_path, tiny_weights, capsys):
    """GDAL and coordinates ignore the orientation that is applied to other images."""
    with Image.open(tile(tmp_path / "mine/a.tif")) as image:
        tags = ImageFileDirectory_v2()
        for key in image.tag_v2.keys() & {33550, 33922, 34735, 34736, 34737}:
            tags.tagtype[key], tags[key] = image.tag_v2.tagtype[key], image.tag_v2[key]
        tags[274] = orientation
        image.save(tmp_path / "mine/b.tif", tiffinfo=tags)
    assert run(tiny_weights, tmp_path / "out", tmp_path / "mine") == 2
    assert "b.tif: is rotated by its EXIF orientation; save it upright" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_overlay.png", "a_labels.tif", "a.json"}


@pytest.mark.parametrize("crs", ["EPSG:4326", None])
def test_labels_of_an_image_with_ground_control_points_have_them(crs, tmp_path, tiny_weights, capsys):
    """As images of Sentinel-1 do. A mosaic of them cannot be made of pixels, which are not on a grid."""
    corners = [GroundControlPoint(row, column, 10 + column, 50 - row) for row in (0, 24) for column in (0, 32)]
    form = {"driver": "GTiff", "count": 3, "height": 24, "width": 32, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", **form, gcps=corners, crs=crs or rasterio.CRS()) as file:
        file.write(np.zeros((3, 24, 32), np.uint8))
    for option, what in (
        ("--mosaic", "has ground control points, but no coordinates of its pixels"),
        ("--polygons", "has no coordinate system, or no coordinates of its pixels"),
    ):
        assert run(tiny_weights, tmp_path / "out", tmp_path / "a.tif", option) == 2
        assert f"error: {tmp_path}/a.tif: {what}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert run(tiny_weights, tmp_path / "out", tmp_path / "a.tif") == 0
    with rasterio.open(tmp_path / "out/a_labels.tif") as labels:
        points, found = labels.gcps
    assert [(p.row, p.col, p.x, p.y) for p in points] == [(p.row, p.col, p.x, p.y) for p in corners]
    assert (found or None) == (crs and rasterio.CRS.from_string(crs))


def test_images_without_coordinates_keep_png_labels(tmp_path, tiny_weights):
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "a.tif")
    assert kind_of(tmp_path / "a.tif") == "image"
    assert run(tiny_weights, tmp_path / "out", tmp_path / "a.tif") == 0
    assert (tmp_path / "out/a_labels.png").exists()


def test_without_rasterio_labels_are_png_and_it_is_said(tmp_path, tiny_weights, monkeypatch, capsys):
    monkeypatch.setattr("danet.predict.inputs.has_rasterio", lambda: False)
    tile(tmp_path / "in/a.tif")
    tile(tmp_path / "in/b.tif")
    assert run(tiny_weights, tmp_path / "out", tmp_path / "in") == 0
    assert (tmp_path / "out/a_labels.png").exists()
    said = "2 images have coordinates, but their labels do not: rasterio is not installed (uv sync --extra geo)"
    assert said in capsys.readouterr().err
    with pytest.raises(InputError, match=r"polygons need rasterio, which is not installed; .* uv sync --extra geo"):
        find_jobs([tmp_path / "in"], tmp_path / "out2", polygons=True)


def area(rings: list) -> float:
    """The area of a polygon in square degrees, holes subtracted."""
    total = 0.0
    for sign, ring in zip([1, *[-1] * (len(rings) - 1)], rings, strict=True):
        x, y = np.array(ring).T
        total += sign * abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
    return total


def test_polygons_cover_the_pixels_of_each_class(tmp_path):
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = 1
    labels[8:12, 8:12] = 2  # a hole
    labels[:, 25:] = 255  # ignored
    path = label_tile(tmp_path / "l.tif", labels, 500_000, 5_300_000)
    write_polygons(path, tmp_path / "l.geojson", Classes.named(("ground", "house", "yard")))
    content = json.loads((tmp_path / "l.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    named = {feature["properties"]["class"]: feature for feature in content["features"]}
    assert [named[name]["properties"]["id"] for name in ("ground", "house", "yard")] == [0, 1, 2]
    assert len(content["features"]) == 3
    pixels = {"ground": 20 * 25 - 100, "house": 100 - 16, "yard": 16}
    areas = {name: area(named[name]["geometry"]["coordinates"]) for name in pixels}
    unit = areas["yard"] / 16
    for name, count in pixels.items():
        assert areas[name] / unit == pytest.approx(count, rel=1e-3)
    lon, lat = named["ground"]["geometry"]["coordinates"][0][0]
    assert (lon, lat) == pytest.approx((15.0, 47.85), abs=0.05)


def test_predict_writes_polygons_before_the_json(tmp_path, tiny_weights, capsys):
    assert run(tiny_weights, tmp_path / "out", tile(tmp_path / "a.tif"), "--polygons") == 0
    names = {"a_overlay.png", "a_labels.tif", "a.geojson", "a.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    features = json.loads((tmp_path / "out/a.geojson").read_text())["features"]
    with rasterio.open(tmp_path / "out/a_labels.tif") as labels:
        present = set(np.unique(labels.read(1)).tolist())
    assert {feature["properties"]["id"] for feature in features} == present
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "b.png")
    capsys.readouterr()
    assert run(tiny_weights, tmp_path / "out", tmp_path / "b.png", "--polygons") == 2
    assert "b.png: has no coordinates, so it has no polygons; leave out --polygons" in capsys.readouterr().err


def test_a_mosaic_shows_all_tiles_at_their_places(tmp_path, tiny_weights, capsys):
    tile(tmp_path / "in/a.tif", 500_000, 5_300_000)
    tile(tmp_path / "in/b.tif", 500_000 + 320, 5_300_000)
    tile(tmp_path / "in/sub/c.tif", 500_000 + 160, 5_300_000 - 240)
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "in/plain.png")
    out = tmp_path / "out"
    assert run(tiny_weights, out, tmp_path / "in", "--mosaic", "--recursive") == 0
    assert "labels.vrt  3 images" in capsys.readouterr().out
    with rasterio.open(out / "labels.vrt") as mosaic:
        assert (mosaic.height, mosaic.width, mosaic.crs.to_string()) == (48, 64, CRS)
        assert mosaic.transform == affine.Affine(10, 0, 500_000, 0, -10, 5_300_000)
        shown = mosaic.read(1)
    for name, row, column in (("a", 0, 0), ("b", 0, 32), ("sub/c", 24, 16)):
        with rasterio.open(out / f"{name}_labels.tif") as labels:
            assert np.array_equal(shown[row : row + 24, column : column + 32], labels.read(1))
    assert (shown[24:, :16] == 255).all()
    out.rename(tmp_path / "moved")
    with rasterio.open(tmp_path / "moved/labels.vrt") as mosaic:
        assert np.array_equal(mosaic.read(1), shown)
    assert run(tiny_weights, tmp_path / "moved", tmp_path / "in", "--mosaic", "--recursive", "--skip-existing") == 0


def test_polygons_and_mosaics_that_cannot_be_are_refused_before_the_work(tmp_path, tiny_weights, capsys):
    nowhere, other = tile(tmp_path / "in/nocrs.tif", crs=None), tile(tmp_path / "in/x.tif", step=20)
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "a.png")
    for words, line in (
        ((nowhere, "--polygons"), f"{nowhere}: has no coordinate system, or no coordinates of its pixels"),
        ((tmp_path / "a.png", "--mosaic"), "--mosaic: no image has coordinates; leave out --mosaic"),
        ((tmp_path / "in", "--mosaic"), f"{other}: has another coordinate system or pixel size than nocrs.tif"),
    ):
        assert run(tiny_weights, tmp_path / "out", *words) == 2
        assert capsys.readouterr().err.startswith(f"error: {line}")
        assert not (tmp_path / "out").exists()


def no_data_tile(path: Path, kind: str) -> np.ndarray:
    """Write a tile whose first rows have no data, and return where."""
    with rasterio.open(tile(path.with_name("whole.tif"))) as source:
        pixels, form = source.read(), source.profile
    missing = np.zeros((24, 32), bool)
    missing[:6, 4:] = True
    pixels[:, missing] = 0
    pixels[0, ~missing] |= 1  # a pixel has data if a band has
    form |= {"nodata": 0} if kind == "value" else {"count": 4} if kind == "alpha" else {}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **form) as file:
        file.write(pixels, (1, 2, 3))
        if kind == "alpha":
            file.colorinterp = (*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha)
            file.write(np.where(missing, 0, 255).astype(np.uint8), 4)
        if kind == "mask":
            file.write_mask(~missing)
    path.with_name("whole.tif").unlink()
    return missing


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["value", "alpha", "mask"])
def test_pixels_without_data_get_no_class(kind, large, tmp_path, tiny_weights, monkeypatch):
    missing = no_data_tile(tmp_path / "a.tif", kind)
    if large:
        monkeypatch.setattr("danet.predict.inputs.MAX_PIXELS", 500)
    assert run(tiny_weights, tmp_path / "out", tmp_path / "a.tif", "--polygons", "--mosaic") == 0
    for name in ("a_labels.tif", "labels.vrt"):
        with rasterio.open(tmp_path / "out" / name) as labels:
            assert np.array_equal(labels.read(1) == 255, missing)
    summary = json.loads((tmp_path / "out/a.json").read_text())
    assert summary["no_data"] == {"pixels": missing.sum(), "share": pytest.approx(missing.mean())}
    assert sum(entry["share"] for entry in summary["classes"]) == pytest.approx(1 - missing.mean())
    features = json.loads((tmp_path / "out/a.geojson").read_text())["features"]
    assert {feature["properties"]["id"] for feature in features} == {entry["id"] for entry in summary["classes"]}


def test_annotations_and_batches_leave_out_pixels_without_data(tmp_path, tiny_weights):
    missing = no_data_tile(tmp_path / "in/a.tif", "value")
    assert run(tiny_weights, tmp_path / "coco", tmp_path / "in", "--format", "coco") == 0
    annotations = json.loads((tmp_path / "coco/predictions_coco.json").read_text())["annotations"]
    assert sum(annotation["area"] for annotation in annotations) <= (~missing).sum()
    assert run(tiny_weights, tmp_path / "polygons", tmp_path / "in", "--format", "coco", "--tolerance", "1") == 0
    pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run(tiny_weights, tmp_path / "out", tmp_path / "in", "--shard", "1/1") == 0
    (row,) = parquet.read_table(tmp_path / "out/statistics.parquet").to_pylist()
    assert row["note"] == f"{missing.mean():.1%} of the pixels have no data"
    (labels,) = (tmp_path / "out").rglob("*_labels.tif")
    with rasterio.open(labels) as file:
        assert np.array_equal(file.read(1) == 255, missing)


def test_labels_in_the_folder_of_the_images_are_not_segmented(tmp_path, tiny_weights, capsys):
    tile(tmp_path / "a.tif")
    for _ in range(2):
        assert run(tiny_weights, tmp_path, tmp_path, "--skip-existing") == 0
    assert "1 .tif, 1 .png (results of danet)" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", "a_overlay.png", "a_labels.tif", "a.json"}


def test_tiles_that_make_no_mosaic_are_named(tmp_path):
    labels, classes = np.zeros((8, 8), np.uint8), Classes.named(("a",))
    first = label_tile(tmp_path / "a.tif", labels, 0, 0)
    with pytest.raises(InputError, match=r"b\.tif: has another coordinate system or pixel size than a\.tif"):
        write_mosaic(tmp_path / "m.vrt", [first, label_tile(tmp_path / "b.tif", labels, 80, 0, "EPSG:32634")], classes)
    with pytest.raises(InputError, match="mosaic: no image has coordinates; leave out `mosaic`"):
        write_mosaic(tmp_path / "m.vrt", [], classes)
    with rasterio.open(first) as file:
        profile = file.profile
    profile["transform"] = affine.Affine(10, 2, 0, 2, -10, 0)
    with rasterio.open(tmp_path / "r.tif", "w", **profile) as file:
        file.write(labels, 1)
    with pytest.raises(InputError, match=r"r\.tif: is rotated, so it cannot be part of a mosaic"):
        write_mosaic(tmp_path / "m.vrt", [tmp_path / "r.tif"], classes)
    tiles = []
    for name, step in (("x", 9e-8), ("y", 1e-7)):  # degrees: about a centimeter
        profile["transform"] = affine.Affine(step, 0, 10, 0, -step, 50)
        tiles.append(tmp_path / f"{name}.tif")
        with rasterio.open(tiles[-1], "w", **profile) as file:
            file.write(labels, 1)
    with pytest.raises(InputError, match=r"y\.tif: has another coordinate system or pixel size than x\.tif"):
        write_mosaic(tmp_path / "m.vrt", tiles, classes)
    assert not (tmp_path / "m.vrt").exists()


def test_a_large_image_has_polygons_too(tmp_path, tiny_weights, monkeypatch):
    monkeypatch.setattr("danet.predict.inputs.MAX_PIXELS", 500)
    source = tile(tmp_path / "a.tif")
    assert kind_of(source) == "large"
    assert run(tiny_weights, tmp_path / "out", source, "--polygons", "--mosaic") == 0
    assert json.loads((tmp_path / "out/a.geojson").read_text())["features"]
    assert read_image(tmp_path / "out/a_overlay.png").shape[2] == 3
    with rasterio.open(tmp_path / "out/labels.vrt") as mosaic:
        assert (mosaic.height, mosaic.width) == (24, 32)
