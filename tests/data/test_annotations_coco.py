"""COCO: polygons and run lengths as pycocotools and labelformat read them, and one line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import coco, write
from hypothesis import given
from hypothesis import strategies as st
from labelformat.formats import COCOInstanceSegmentationInput
from miniature import HEIGHT, WIDTH, image
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from danet import InputError
from danet.data.annotations.coco import decode_counts, encode_counts, read
from danet.data.annotations.frames import draw_frame, find_frame
from danet.data.annotations.rasterize import draw_shapes, runs_of
from danet.data.annotations.records import Record
from danet.data.annotations.shapes import Export
from danet.data.annotations.source import Source

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

SIZE = HEIGHT, WIDTH


def export(root: Path, **changes) -> Export:
    """The export after changes of its first annotation."""
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][0] |= changes
    write(root / "annotations.json", content)
    return read(Source(root))


def first_shape(found: Export) -> np.ndarray:
    """The pixels of the first shape."""
    shapes = list(found.images[0].shapes)
    return draw_shapes(shapes[:1], SIZE, {"car": 0, "tree": 0}).labels == 0


@pytest.fixture
def mask():
    return np.random.default_rng(0).random(SIZE) < 0.4


def test_run_lengths_are_read_compressed_or_not_and_crowds_too(tmp_path, mask):
    compressed = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    plain = {"size": list(SIZE), "counts": runs_of(mask, by_columns=True).counts.tolist()}
    for segmentation in (plain, {"size": list(SIZE), "counts": compressed["counts"].decode()}):
        for crowd in (0, 1):
            found = export(coco(tmp_path), segmentation=segmentation, iscrowd=crowd)
            assert (first_shape(found) == mask).all()


def test_several_polygons_of_an_annotation_are_one_shape(tmp_path):
    polygons = [[1, 1, 4, 1, 4, 4, 1, 4], [3, 3, 6, 3, 6, 6, 3, 6]]
    found = export(coco(tmp_path), segmentation=polygons)
    assert first_shape(found).sum() == 17
    assert first_shape(export(coco(tmp_path / "flat"), segmentation=polygons[0])).sum() == 9


def test_pycocotools_reads_the_same_annotations(tmp_path, mask):
    root = coco(tmp_path)
    segmentation = {"size": list(SIZE), "counts": runs_of(mask, by_columns=True).counts.tolist()}
    found = export(root, segmentation=segmentation, iscrowd=1)
    api = COCO(str(root / "annotations.json"))
    assert [category["name"] for category in api.loadCats(api.getCatIds())] == list(found.classes)
    for annotation, shape in zip(api.loadAnns(api.getAnnIds(imgIds=[1])), found.images[0].shapes, strict=True):
        assert api.cats[annotation["category_id"]]["name"] == shape.name
        ours = draw_shapes([shape], SIZE, {"car": 0, "tree": 0}).labels == 0
        assert (ours == api.annToMask(annotation).astype(bool)).mean() > 0.9  # the same up to the boundary


def test_labelformat_reads_the_same_polygons(tmp_path):
    root = coco(tmp_path)
    content = json.loads((root / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = [0, 0, 1, 1]
    write(root / "annotations.json", content)
    theirs = list(COCOInstanceSegmentationInput(root / "annotations.json").get_labels())
    for image_record, other in zip(read(Source(root)).images, theirs, strict=True):
        assert image_record.name == other.image.filename
        assert image_record.size == (other.image.height, other.image.width)
        for shape, instance in zip(image_record.shapes, other.objects, strict=True):
            assert shape.name == instance.category.name
            (region,) = shape.regions
            assert region.rings[0].tolist() == [list(point) for point in instance.segmentation.polygons[0]]


@given(st.lists(st.integers(0, 2**31 - 1), max_size=60))
def test_compressed_counts_are_written_and_read_unchanged(counts):
    text = encode_counts(np.array(counts, np.int64))
    assert decode_counts(Record(Path("a.json"), "counts", text)).tolist() == counts


@given(st.integers(0, 2**32))
def test_pycocotools_writes_the_same_compressed_counts(seed):
    mask = np.random.default_rng(seed).random((9, 13)) < 0.3
    theirs = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encode_counts(runs_of(mask, by_columns=True).counts) == theirs


def test_annotations_without_an_area_are_left_out_and_named(tmp_path):
    found = export(coco(tmp_path / "box"), segmentation=[])
    place = f"{tmp_path / 'box/annotations.json'}: annotations[0]"
    assert found.left_out == {"boxes without a segmentation": [place]}
    found = export(coco(tmp_path / "line"), segmentation=[[1, 1, 5, 5], [1, 1, 4, 1, 4, 4]])
    assert found.left_out == {
        "polygons of fewer than 3 points": [f"{tmp_path / 'line/annotations.json'}: annotations[0]"]
    }
    assert len(list(found.images[0].shapes)) == 2


def test_categories_of_one_name_are_one_class_and_named(tmp_path):
    root = coco(tmp_path)
    content = json.loads((root / "annotations.json").read_text())
    assert read(Source(root)).notes == ()
    content["categories"][1]["name"] = content["categories"][0]["name"]
    write(root / "annotations.json", content)
    found = read(Source(root))
    assert (list(found.classes), found.notes) == (["car"], ("ids with the same name are one class: car",))


def test_the_folder_of_the_images_decides_between_files_of_one_name(tmp_path):
    root = coco(tmp_path)
    image(root / "images/sub/a.png")
    with pytest.raises(InputError, match=r"'a\.png' names several images: .* or specify their folder as `images`"):
        read(Source(root))
    assert read(Source(root, root / "images")).images[0].file == root / "images/a.png"
    assert read(Source(root, root / "images/sub")).images[0].file == root / "images/sub/a.png"


def test_captions_and_keypoints_beside_instances_are_not_used(tmp_path):
    for split in ("train2017", "val2017"):
        image(tmp_path / split / f"{split}.jpg")
        record = {"id": 1, "file_name": f"{split}.jpg", "height": HEIGHT, "width": WIDTH}
        shape = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}
        categories = [{"id": 1, "name": "person"}]
        content = {"images": [record], "annotations": [shape], "categories": categories}
        write(tmp_path / f"annotations/instances_{split}.json", content)
        write(tmp_path / f"annotations/person_keypoints_{split}.json", content)
        captions = [{"id": 1, "image_id": 1, "caption": "a person"}]
        write(tmp_path / f"annotations/captions_{split}.json", {"images": [record], "annotations": captions})
    found = read(Source(tmp_path))
    assert [(each.split, each.file) for each in found.images] == [
        ("train", tmp_path / "train2017/train2017.jpg"),
        ("val", tmp_path / "val2017/val2017.jpg"),
    ]
    assert [note.split("/")[-1] for note in found.notes] == [
        *("captions_train2017.json", "captions_val2017.json"),
        *("person_keypoints_train2017.json", "person_keypoints_val2017.json"),
    ]


@pytest.mark.parametrize(
    ("changes", "place", "what"),
    [
        (
            {"segmentation": [[1, 2, 3]]},
            "annotations[0].segmentation[0]",
            "must be a list of numbers x, y, x, y, ..., got 3",
        ),
        ({"segmentation": [[1, 2, 3, "x", 5, 6]]}, "annotations[0].segmentation[0]", "must be a list of numbers"),
        (
            {"segmentation": [[1, 2, 3, None, 5, 6]]},
            "annotations[0].segmentation[0]",
            "point 1: y must be within any image",
        ),
        (
            {"segmentation": [[1, 2, 1e30, 4, 5, 6]]},
            "annotations[0].segmentation[0]",
            "point 1: x must be within any image",
        ),
        ({"segmentation": "x"}, "annotations[0].segmentation", "must be a list, got 'x'"),
        ({"category_id": 77}, "annotations[0].category_id", "no category has the id 77"),
        ({"image_id": "77"}, "annotations[0].image_id", "no image has the id '77'"),
        ({"image_id": [1]}, "annotations[0].image_id", "must be an id (a number or a text), got a list of 1"),
        ({"segments_info": []}, "annotations[0]", "a panoptic annotation"),
        ({"segmentation": {"counts": [192]}}, "annotations[0].segmentation", "has no 'size'"),
        ({"segmentation": {"size": [16, 12], "counts": [192]}}, "annotations[0].segmentation.size", "is [16, 12], but"),
        (
            {"segmentation": {"size": [12, 16], "counts": [191]}},
            "annotations[0].segmentation.counts",
            "the counts add up to",
        ),
        (
            {"segmentation": {"size": [12, 16], "counts": [-1, 193]}},
            "annotations[0].segmentation.counts",
            "the counts must be",
        ),
        (
            {"segmentation": {"size": [12, 16], "counts": [0.5]}},
            "annotations[0].segmentation.counts",
            "the counts must be",
        ),
        (
            {"segmentation": {"size": [12, 16], "counts": "~~"}},
            "annotations[0].segmentation.counts",
            "is not a compressed",
        ),
        (
            {"segmentation": {"size": [12, 16], "counts": "o"}},
            "annotations[0].segmentation.counts",
            "is not a compressed",
        ),
        (
            {"segmentation": {"size": [12, 16], "counts": "oooooooooo0"}},
            "annotations[0].segmentation.counts",
            "is not a",
        ),
    ],
)
def test_mistakes_name_the_file_the_record_and_the_field(changes, place, what, tmp_path):
    with pytest.raises(InputError) as raised:
        export(coco(tmp_path), **changes)
    assert raised.value.where == tmp_path / "annotations.json"
    assert raised.value.what.startswith(f"{place}: {what}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"images": [', "invalid JSON at line 1, column 13: expecting value"),
        ('{"images": [], "categories": []}', "has no 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "images[0]: has no 'file_name'"),
        ("[" * 100_000, "invalid JSON: nested too deeply"),
        ('{"images": [1]' + "1" * 5000 + "}", "invalid JSON"),
    ],
)
def test_damaged_files_are_one_line(text, what, tmp_path):
    file = write(tmp_path / "annotations.json", text)
    with pytest.raises(InputError) as raised:
        read(Source(file))
    assert raised.value.where == file
    assert raised.value.what.startswith(what)


def test_a_short_record_cannot_claim_gigabytes(tmp_path):
    root = coco(tmp_path)
    content = json.loads((root / "annotations.json").read_text())
    content["images"][0] |= {"height": 1_000_000, "width": 1_000_000}
    content["annotations"][0]["segmentation"] = {"size": [1_000_000, 1_000_000], "counts": [10**12]}
    write(root / "annotations.json", content)
    with pytest.raises(InputError, match="1000000 x 1000000 are more pixels than the limit"):
        read(Source(root))


def test_the_shapes_of_an_image_are_drawn_in_the_order_of_the_file(tmp_path):
    found = export(coco(tmp_path), segmentation=[[0, 0, 16, 0, 16, 12, 0, 12]])
    labels = draw_frame(find_frame(found.images[0]), {"car": 0, "tree": 1}, None, largest_first=False).labels
    assert (labels == 1).sum() == 45
