"""Label Studio: every kind of region, brush masks built bit by bit from their description, and the PNG export."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import (
    CAR,
    base64_png,
    label_studio,
    label_studio_png,
    label_studio_result,
    label_studio_task,
    percent,
    png,
    scene,
    write,
)
from hypothesis import given
from hypothesis import strategies as st
from miniature import HEIGHT, WIDTH, image, save

from danet import InputError
from danet.data.annotations import label_studio_png as masks
from danet.data.annotations.brush import decode_brush, encode_brush
from danet.data.annotations.label_studio import labeling_config, read
from danet.data.annotations.rasterize import bitmap_of, draw_shapes
from danet.data.annotations.recognize import recognize
from danet.data.annotations.records import Record
from danet.data.annotations.shapes import Export
from danet.data.annotations.source import Source
from danet.data.classes import Classes


def export(root: Path, *results: dict, **more) -> Export:
    image(root / "a.png")
    write(root / "project.json", [label_studio_task(1, "a.png", *results, **more)])
    return read(Source(root))


def drawn(root: Path, *results: dict) -> np.ndarray:
    found = export(root, *results).images[0]
    return draw_shapes(found.shapes, (HEIGHT, WIDTH), {"car": 0}).labels == 0


def to_bytes(bits: str) -> list[int]:
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def brush(values: list[int], height: int, width: int) -> np.ndarray:
    return bitmap_of(decode_brush(Record(Path("p.json"), "rle", values), height, width)).pixels


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_does_not_hide_an_export(tmp_path, encoding):
    label_studio(tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(file.read_text("utf-8").encode(encoding))
    assert recognize(Source(tmp_path)) == ["label-studio"]
    assert read(Source(tmp_path)).images


HEADER = "00111" + "0010" + "0011" + "0111" + "1111"  # values of 8 bits; lengths of 3, 4, 8 and 16 bits


def test_a_brush_mask_built_from_the_description_of_the_format():
    """2 x 3 pixels, 24 values: 8 zeros, then 4 values of a pixel one by one, then 12 times 255."""
    zeros = "1" + "00" + "111" + "00000000"
    pixel = "0" + "00" + "011" + "11111111" + "00000000" + "00000000" + "00000001"
    rest = "1" + "01" + "1011" + "11111111"
    values = to_bytes(f"{24:032b}" + HEADER + zeros + pixel + rest)
    assert brush(values, 2, 3).tolist() == [[False, False, True], [True, True, True]]


def test_blocks_may_begin_and_end_within_a_pixel():
    """Only the alpha of the second pixel is set, in a block of red, green, blue and alpha of which the first is cut."""
    blocks = ["1" + "00" + "100" + "00000000", "0" + "00" + "001" + "11111111" * 2, "1" + "00" + "000" + "00000001"]
    values = to_bytes(f"{8:032b}" + HEADER + "".join(blocks))
    assert brush(values, 1, 2).tolist() == [[False, True]]
    blocks = ["1" + "00" + "010" + "11111111", "1" + "00" + "100" + "00000000"]  # colors without alpha
    assert not brush(to_bytes(f"{8:032b}" + HEADER + "".join(blocks)), 1, 2).any()


def test_other_sizes_of_values_and_lengths_are_read():
    header = "00000" + "0000" + "0001" + "0010" + "0011"  # values of 1 bit; lengths of 1, 2, 3 and 4 bits
    values = to_bytes(f"{16:032b}" + header + "1" + "11" + "0111" + "0" + "1" + "10" + "111" + "1")
    assert brush(values, 2, 2).tolist() == [[False, False], [True, True]]


def plain_decode(values: list[int], count: int) -> list[int]:
    """Decode value by value, as the description of the format says."""
    text = "".join(f"{value:08b}" for value in values)
    at = 0

    def take(bits: int) -> int:
        nonlocal at
        at += bits
        return int(text[at - bits : at], 2)

    assert take(32) == count
    size, lengths, out = take(5) + 1, [], []
    lengths = [take(4) + 1 for _ in range(4)]
    while len(out) < count:
        repeated = take(1)
        length = take(lengths[take(2)]) + 1
        out += [take(size)] * length if repeated else [take(size) for _ in range(length)]
    return out


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 20), st.floats(0, 1))
def test_brush_masks_are_written_and_read_unchanged(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    values = encode_brush(mask)
    assert (np.reshape(plain_decode(values, 4 * mask.size), (height, width, 4)) == 255 * mask[..., None]).all()
    assert (brush(values, height, width) == mask).all()


def test_long_runs_are_written_in_several_blocks():
    mask = np.ones((300, 400), bool)
    mask[200:] = False
    values = encode_brush(mask)
    assert len(values) < 60
    assert (brush(values, 300, 400) == mask).all()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([1, 2], "must be a list of at least 7 bytes, from 0 to 255"),
        ([256] * 20, "must be a list of at least 7 bytes, from 0 to 255"),
        ([0.5] * 20, "must be a list of at least 7 bytes, from 0 to 255"),
        (to_bytes(f"{2**32 - 4:032b}" + HEADER), "4294967292 values are not 4 channels of 3 x 2 pixels"),
        (to_bytes(f"{24:032b}" + HEADER + "1" + "00" + "111"), "is damaged: it ends after 0 of 24 values"),
        (to_bytes(f"{24:032b}" + HEADER), "is damaged: it ends after"),
        (to_bytes(f"{24:032b}" + HEADER + "1" + "11" + "1" * 16 + "1" * 8), "is damaged: it ends after 0 of 24 values"),
    ],
)
def test_damaged_brush_masks_are_one_line(values, what):
    with pytest.raises(InputError) as raised:
        brush(values, 2, 3)
    assert raised.value.what.startswith(f"rle: {what}")


def test_a_short_brush_mask_cannot_claim_gigabytes(tmp_path):
    side = 30_000
    result = label_studio_result(
        "brushlabels", "car", {"format": "rle", "rle": to_bytes(f"{0:032b}" + HEADER)}, side, side
    )
    with pytest.raises(InputError, match="0 values are not 4 channels of 30000 x 30000 pixels"):
        export(tmp_path, result)


def test_every_kind_of_region_is_drawn(tmp_path):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    box = {"x": 12.5, "y": 25, "width": 50, "height": 25, "rotation": 0}
    rectangle = drawn(tmp_path / "1", label_studio_result("rectanglelabels", "car", box))
    assert np.argwhere(rectangle)[[0, -1]].tolist() == [[3, 2], [5, 9]]
    turned = drawn(tmp_path / "2", label_studio_result("rectanglelabels", "car", {**box, "x": 50, "rotation": 90}))
    assert np.argwhere(turned)[[0, -1]].tolist() == [[3, 5], [10, 7]]  # clockwise around the corner, in pixels
    round_box = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "rotation": 0}
    ellipse = drawn(tmp_path / "3", label_studio_result("ellipselabels", "car", round_box))
    assert (ellipse == (((x - 8) / 4) ** 2 + ((y - 6) / 3) ** 2 <= 1)).all()
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    value = {"format": "rle", "rle": encode_brush(mask)}
    assert (drawn(tmp_path / "4", label_studio_result("brushlabels", "car", value)) == mask).all()
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)  # black pixels on a transparent background
    pixels[mask, 3] = 255
    url = {"imageDataURL": f"data:image/png;base64,{base64_png(pixels)}"}
    assert (drawn(tmp_path / "5", label_studio_result("bitmasklabels", "car", url)) == mask).all()


def test_labels_may_be_a_result_of_their_own(tmp_path):
    region = label_studio_result("polygonlabels", "car", {"points": percent(CAR)})
    region |= {"id": "x1", "type": "polygon"}
    del region["value"]["polygonlabels"]
    label = {"id": "x1", "type": "labels", "value": {"labels": ["car"]}}
    assert drawn(tmp_path, region, label).sum() == 24
    assert export(tmp_path, region).left_out == {
        "results without a label": [f"{tmp_path / 'project.json'}: [0].annotations[0].result[0]"]
    }


def test_other_results_are_left_out_and_named(tmp_path):
    point = label_studio_result("keypointlabels", "car", {"x": 1, "y": 2, "width": 0.3})
    choice = {"id": "c", "type": "choices", "value": {"choices": ["night"]}}
    two = label_studio_result("polygonlabels", "car", {"points": percent(CAR[:2])})
    found = export(tmp_path, point, choice, two)
    assert list(found.left_out) == ["keypointlabels results", "choices results", "polygons of fewer than 3 points"]


@pytest.mark.parametrize(
    "path",
    [
        "/data/upload/3/0a1b2c3d-a.png",
        "/data/local-files/?d=photos%2Fa.png",
        "/data/local-files/?d=photos/a.png",
        "/data/local-files?x=1&d=my+photos/a.png",
        "https://example.org/photos/a.png?signature=x%2Fy",
        "s3://bucket/photos/a.png",
        "C:\\photos\\a.png",
        "a.png",
    ],
)
def test_images_are_found_by_every_kind_of_path(path, tmp_path):
    found = export(tmp_path, data={"text": "a street", "image": path})
    assert found.images[0].file == tmp_path / "a.png"


@pytest.mark.parametrize(
    "path",
    [
        "b+#1.png",
        "s3://bucket/b+#1.png",
        "/data/local-files/?d=photos/b%2B#1.png",
        "/data/upload/3/b%2B%231.png",
        "https://example.org/b+%231.png#top",
    ],
)
def test_names_may_contain_characters_that_mean_something_in_urls(path, tmp_path):
    image(tmp_path / "b+#1.png")
    assert export(tmp_path, data={"image": path}).images[0].file == tmp_path / "b+#1.png"


def test_the_last_annotation_that_was_not_canceled_is_read(tmp_path):
    first = label_studio_result("polygonlabels", "old", {"points": percent(CAR)})
    last = label_studio_result("polygonlabels", "car", {"points": percent(CAR)})
    annotations = [{"result": [first]}, {"result": [last]}, {"result": [first], "was_cancelled": True}]
    found = export(tmp_path, annotations=annotations)
    assert list(found.classes) == ["car"]
    assert "tasks with several annotations: 1 (0a1b2c3d-a.png); the last one of each is read" in found.notes


def test_a_labeling_configuration_gives_the_order_of_the_classes(tmp_path):
    result = label_studio_result("polygonlabels", "car", {"points": percent(CAR)})
    found = export(tmp_path, result)
    assert (list(found.classes), "alphabetical" in found.notes[0]) == (["car"], True)
    (tmp_path / "config.xml").write_text(labeling_config(Classes.named(("tree", "road & rail", "car")), polygons=True))
    found = read(Source(tmp_path))
    assert list(found.classes) == ["tree", "road & rail", "car"]
    assert found.notes[0] == "the order of the classes is that of the labeling configuration"
    (tmp_path / "config.xml").write_text('<View><Labels><Label value="tree"/></Labels></View>')
    assert list(read(Source(tmp_path)).classes) == ["tree", "car"]
    (tmp_path / "config.xml").write_text('<View><Label background="red"/></View>')
    with pytest.raises(InputError, match=r"config\.xml: line 1 <Label>: has no 'value'"):
        read(Source(tmp_path))


def test_predictions_are_read_only_if_nothing_is_annotated(tmp_path):
    result = label_studio_result("polygonlabels", "car", {"points": percent(CAR)})
    found = export(tmp_path, annotations=[], predictions=[{"result": [result]}])
    assert "no task has annotations, so the predictions are read" in found.notes
    assert [shape.name for shape in found.images[0].shapes] == ["car"]
    found = export(tmp_path, predictions=[{"result": [result]}])
    assert list(found.images[0].shapes) == []


@pytest.mark.parametrize(
    ("result", "place", "what"),
    [
        ({"type": "polygonlabels", "value": {"polygonlabels": ["car"]}}, "", "has no 'original_height'"),
        (label_studio_result("polygonlabels", "car", {"points": 3}), ".value.points", "must be a list, got 3"),
        (label_studio_result("brushlabels", "car", {"rle": "x"}), ".value.rle", "must be a list, got 'x'"),
        (
            label_studio_result("rectanglelabels", "car", {"x": 1, "y": None, "width": 1, "height": 1}),
            ".value",
            "has no 'y'",
        ),
        (
            label_studio_result("polygonlabels", "car", {"points": percent(CAR), "labels": ["tree"]}),
            "",
            "has several labels: tree, car",
        ),
        (
            label_studio_result("bitmasklabels", "car", {"imageDataURL": "x;base64,%"}),
            ".value.imageDataURL",
            "is not base64",
        ),
        (
            label_studio_result("polygonlabels", "car", {"points": percent(CAR)}) | {"image_rotation": 90},
            ".image_rotation",
            "the image was rotated by 90 degrees in Label Studio",
        ),
    ],
)
def test_mistakes_name_the_file_the_task_and_the_field(result, place, what, tmp_path):
    with pytest.raises(InputError) as raised:
        export(tmp_path, result)
    assert raised.value.where == tmp_path / "project.json"
    assert raised.value.what == f"[0].annotations[0].result[0]{place}: {what}"


def test_a_task_without_an_image_is_an_error(tmp_path):
    for text in ("a street", "http://[x/a.png"):  # the second is no URL
        with pytest.raises(InputError, match=r"project\.json: \[0\]\.data: names no image"):
            export(tmp_path, data={"text": text})


def test_the_png_export_needs_the_json_that_names_the_images(tmp_path):
    root = label_studio_png(tmp_path)
    (root / "project.json").rename(tmp_path.with_name("elsewhere.json"))
    with pytest.raises(InputError) as raised:
        masks.read(Source(root))
    assert raised.value.what == "Label Studio's PNG export does not name the images"
    assert raised.value.remedy == "export the project as JSON too, and put that file next to the masks"
    write(root / "project.json", [label_studio_task(5, "a.png")])
    with pytest.raises(InputError, match="no task of the JSON export has the id 1"):
        masks.read(Source(root))


def test_the_png_of_the_last_annotation_is_read(tmp_path):
    root = label_studio_png(tmp_path)
    save(root / "task-1-annotation-12-by-2-label-car-0.png", np.uint8(255 * (scene() == 1)))
    save(root / "task-1-annotation-12-by-2-label-car-1.png", np.uint8(255 * (scene() == 2)))
    export = masks.read(Source(root))
    (found, _) = export.images
    what = "tasks with several annotations: 1 (0a1b2c3d-a.png); the last one of each is read"
    assert export.notes == ("the order of the classes is alphabetical", what)
    assert [shape.name for shape in found.shapes] == ["car", "car"]
    assert (draw_shapes(found.shapes, (HEIGHT, WIDTH), {"car": 1}).labels == 1).sum() == 24 + 45


def test_the_size_of_a_bitmask_must_be_that_of_the_image(tmp_path):
    url = {"imageDataURL": f"data:image/png;base64,{base64_png(np.ones((3, 4), np.uint8))}"}
    with pytest.raises(InputError, match="is 4 x 3, but the image has 16 x 12 pixels"):
        export(tmp_path, label_studio_result("bitmasklabels", "car", url))


def test_files_that_are_not_tasks_are_not_read(tmp_path):
    root = label_studio(tmp_path)
    write(root / "notes.json", {"a": [1]})
    assert len(read(Source(root)).images) == 2
    assert len(json.loads((root / "project.json").read_text())) == 2
    assert png(scene())[:4] == b"\x89PNG"
