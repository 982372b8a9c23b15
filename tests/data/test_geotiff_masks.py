"""Masks that GIS programs write: any number type, compression and layout, with pixels without data."""

import io
import tempfile

import numpy as np
import pytest
from miniature import build, colored, image, labels, save, stripes
from PIL import Image

from danet import InputError
from danet.cli import main
from danet.data.classes import NO_DATA
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose
from danet.data.images.color_masks import read_colored_mask
from danet.data.images.read import read_mask

rasterio = pytest.importorskip("rasterio")
affine = pytest.importorskip("affine")

IDS = np.kron(np.array([[0, 1], [2, 254]]), np.ones((16, 16), int))


def geotiff(path, values: np.ndarray, nodata=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values[None] if values.ndim == 2 else values
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    place = {"crs": "EPSG:32633", "transform": affine.Affine(10, 0, 500_000, 0, -10, 5_300_000)}
    with rasterio.open(path, "w", driver="GTiff", nodata=nodata, **place, **shape, **options) as file:
        file.write(bands)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("compress", [None, "lzw", "deflate", "zstd", "lerc"])
def test_every_number_type_and_compression_is_read(tmp_path, dtype, compress):
    if dtype == "int64" and compress == "lerc":
        pytest.skip("GDAL does not write it")
    options = {"compress": compress} if compress else {}
    mask = read_mask(geotiff(tmp_path / "m.tif", IDS.astype(dtype), **options))
    assert mask.dtype in (np.uint8, np.int32, np.int64)
    assert np.array_equal(mask, IDS)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float64", -9999), ("float32", -9999), ("float32", np.nan), ("int16", -9999), ("int64", -1)]
)
def test_pixels_without_data_are_ignored(tmp_path, dtype, nodata):
    values = np.where(IDS == 254, nodata, IDS).astype(dtype)
    mask = read_mask(geotiff(tmp_path / "m.tif", values, nodata))
    assert np.array_equal(mask, np.where(IDS == 254, NO_DATA, IDS))
    for i in range(5):
        image(tmp_path / f"images/p{i}.jpg", 32, 32)
        geotiff(tmp_path / f"masks/p{i}.tif", values, nodata)
    proposal = propose(tmp_path)
    assert "25.0% of the pixels have no data (nodata or NaN) and are ignored" in proposal.notes
    assert (proposal.kind, len(proposal.classes), proposal.label_map) == ("class ids", 3, None)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2, 255}
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert "25.0% of the pixels are ignored (mask values no data: 25.0%)" in str(report.warnings[-1])
    assert report.as_dict()["splits"]["all"]["values"]["no data"] == 5 * 256


def test_a_nodata_value_that_may_be_a_class_is_read_and_noted(tmp_path):
    for i in range(5):
        image(tmp_path / f"images/p{i}.jpg", 32, 32)
        geotiff(tmp_path / f"masks/p{i}.tif", np.where(IDS == 254, 0, IDS).astype(np.uint8), 0)
    proposal = propose(tmp_path)
    note = (
        "the masks declare 0 as nodata, but 0 may be a class and is read like any other value; if it means unlabeled,"
    )
    assert any(text.startswith(note) for text in proposal.notes)
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1, 2}


def test_negative_values_without_a_declaration_must_be_named(tmp_path, capsys):
    for i in range(5):
        image(tmp_path / f"images/p{i}.jpg", 32, 32)
        geotiff(tmp_path / f"masks/p{i}.tif", np.where(IDS == 254, -9999, IDS).astype(np.int16))
    assert main(["init", str(tmp_path)]) == 2
    assert (
        "the masks have negative values (-9999), which cannot be class ids; set --ignore to -9999 if it means no"
        in (capsys.readouterr().err)
    )
    assert main(["init", str(tmp_path), "--ignore", "-9999"]) == 0
    assert labels(tmp_path) == {0, 1, 2, 255}
    (tmp_path / "dataset.yaml").write_text("classes: [a, b, c]\n")
    with pytest.raises(InputError, match=r"value -9999 is not one of the 3 classes: 256 pixels"):
        _ = dataset_yaml.load(tmp_path, "train")[0]


@pytest.mark.parametrize("options", [{"interleave": "pixel"}, {"interleave": "band"}, {"compress": "lerc"}])
def test_color_masks_of_any_layout_are_read(tmp_path, options):
    bands = np.stack([np.where(IDS == 0, 9, 0), IDS * 0, IDS * 0]).astype(np.uint8)
    file = geotiff(tmp_path / "m.tif", bands, photometric="RGB", **options)
    assert np.array_equal(read_colored_mask(file, {(9, 0, 0): 0, (0, 0, 0): 1}), (IDS != 0).astype(int))


def test_a_damaged_tiff_is_still_called_damaged(tmp_path):
    file = geotiff(tmp_path / "m.tif", IDS.astype(np.float64))
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"m\.tif: truncated or damaged"):
        read_mask(file)


def test_numbers_that_are_no_class_ids_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"mask has value 0\.5 at x=0, y=0, which is not a class id"):
        read_mask(geotiff(tmp_path / "half.tif", IDS + 0.5))
    with pytest.raises(InputError, match="holds complex numbers; save real numbers"):
        read_mask(geotiff(tmp_path / "complex.tif", IDS.astype(np.complex64)))
    with pytest.raises(InputError, match="a mask of 2 bands: colors, not class ids"):
        read_mask(geotiff(tmp_path / "two.tif", np.stack([IDS, IDS + 1]).astype(np.int64)))


def test_a_stack_of_masks_is_refused(tmp_path):
    pages = [Image.fromarray(stripes(i)) for i in range(12)]
    for name in ("m.tif", "m.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        for read in (read_mask, lambda file: read_colored_mask(file, {(0, 0, 0): 0})):
            with pytest.raises(InputError, match="a stack or animation of 12 pages; save the pages as images of their"):
                read(tmp_path / name)


def test_overviews_and_masks_in_a_tiff_are_no_pages(tmp_path):
    file = geotiff(tmp_path / "m.tif", np.kron(IDS, np.ones((16, 16))).astype(np.uint8), tiled=True)
    with rasterio.open(file, "r+") as opened:
        opened.build_overviews([2, 4])
    assert read_mask(file).shape == (512, 512)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_of_a_tiff_mask_is_ignored_like_that_of_others(tmp_path, orientation):
    values, exif = np.arange(24, dtype=np.uint8).reshape(4, 6), Image.Exif()
    exif[274] = orientation
    for name in ("m.tif", "m.png"):
        Image.fromarray(values).save(tmp_path / name, exif=exif)
        assert np.array_equal(read_mask(tmp_path / name), values)


def test_lossy_formats_are_refused_whatever_their_suffix(tmp_path):
    for form in ("AVIF", "JPEG2000", "WEBP"):
        content = io.BytesIO()
        Image.fromarray(colored((1, 2, 3))).save(content, form)
        with tempfile.NamedTemporaryFile(suffix=".png", dir=tmp_path) as file:
            file.write(content.getvalue())
            file.flush()
            with pytest.raises(InputError, match=rf"a mask in a lossy format \({form}\)"):
                read_mask(file.name)


@pytest.mark.parametrize("options", [{"nbits": 1}, {"nbits": 2}, {"nbits": 4}, {"photometric": "MINISWHITE"}])
def test_few_bits_and_inverted_colors_do_not_change_the_values(tmp_path, options):
    ids = (IDS % (1 << options.get("nbits", 8))).astype(np.uint8)
    assert np.array_equal(read_mask(geotiff(tmp_path / "m.tif", ids, **options)), ids)


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"tiled": True, "photometric": "MINISWHITE"}])
@pytest.mark.parametrize("compress", ["jpeg", "webp"])
def test_lossy_compression_in_a_tiff_is_refused(tmp_path, compress, options):
    ids = IDS.astype(np.uint8) if compress == "jpeg" else np.stack([IDS] * 3).astype(np.uint8)
    file = geotiff(tmp_path / "m.tif", ids, compress=compress, **(options if compress == "jpeg" else {}))
    for read in (read_mask, lambda file: read_colored_mask(file, {(0, 0, 0): 0})):
        with pytest.raises(
            InputError, match=r"m\.tif: a mask in a lossy format \(a TIFF with (JPEG|WebP) compression\)"
        ):
            read(file)


def test_masks_in_further_lossless_formats_are_found(tmp_path):
    for i, end in enumerate((".pgm", ".tga", ".bmp", ".ppm")):
        build(tmp_path / end[1:], [stripes(0, 1)] * 4, end=end)
        if end == ".ppm":
            for file in (tmp_path / "ppm/masks").iterdir():
                save(file, np.repeat(stripes(0, 1)[..., None], 3, 2))
        write(tmp_path / end[1:], propose(tmp_path / end[1:]))
        assert labels(tmp_path / end[1:]) == {0, 1}, i
