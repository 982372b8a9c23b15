"""Predictions as annotations: written, read again by the importer, and the same labels as predicted."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from miniature import image, save
from PIL import Image
from pycocotools.coco import COCO

from danet import InputError
from danet.cli import main
from danet.data.annotations import coco, cvat, label_studio
from danet.data.annotations.brush import decode_brush
from danet.data.annotations.rasterize import bitmap_of
from danet.data.annotations.records import Record
from danet.data.classes import Classes
from danet.data.custom.import_annotations import ImportOptions, import_annotations
from danet.data.images.read import read_mask
from danet.predict.inputs import find_jobs
from danet.predict.preannotations import AnnotationFile, annotate, check_target, segment_as_annotations
from danet.predict.predictor import load
from danet.predict.segmentation import Segmentation

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

FORMATS = {"coco": coco.encode, "label-studio": label_studio.encode, "cvat": cvat.encode}
STREETS = Classes(("road", "car & <van>", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))
OBJECTS = Classes(("Background", "car", "tree"), ((0, 0, 0), (0, 0, 142), (0, 128, 0)))


def blobs(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:height, :width]
    waves = [np.cos(x * rng.uniform(0.05, 0.3) + y * rng.uniform(-0.3, 0.3) + rng.uniform(0, 6)) for _ in range(3)]
    return np.argmax(waves, axis=0).astype(np.uint8)


def segmentation(file: Path, labels: np.ndarray, classes: Classes) -> Segmentation:
    confidence = np.random.default_rng(0).uniform(0.4, 1, labels.shape).astype(np.float32)
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    save(file, pixels)
    return Segmentation(file.stem, pixels, labels, confidence, classes)


def round_trip(root: Path, name: str, labels: list[np.ndarray], classes: Classes, tolerance: float | None):
    """Write predictions, import them, and return the imported labels by the predicted classes' names."""
    files = [root / f"photos/{i} ä.png" for i in range(len(labels))]
    found = [
        annotate(file, file.name, segmentation(file, each, classes), tolerance)
        for file, each in zip(files, labels, strict=True)
    ]
    export = root / "export" / ("annotations.xml" if name == "cvat" else "annotations.json")
    export.parent.mkdir()
    export.write_text("".join(FORMATS[name](found, classes)), encoding="utf-8")
    result = import_annotations(export, root / "new", ImportOptions(images=root / "photos"))
    names = np.array(result.classes.names)
    return [names[read_mask(root / "new/masks" / file.name)] for file in files], result, export


def named(labels: np.ndarray, classes: Classes) -> np.ndarray:
    return np.array(classes.names)[labels]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("classes", [STREETS, OBJECTS])
@pytest.mark.parametrize("tolerance", [None, 0])
def test_labels_survive_the_round_trip_exactly(name, classes, tolerance, tmp_path):
    labels = [blobs(0), np.random.default_rng(2).integers(0, 3, (9, 11), np.uint8)]
    read, result, _ = round_trip(tmp_path, name, labels, classes, tolerance)
    for ours, each in zip(read, labels, strict=True):
        expected = named(each, classes)
        if name == "label-studio" and classes is OBJECTS:
            ours, expected = (
                np.char.lower(ours),
                np.char.lower(expected),
            )  # its files do not name classes without shapes
        assert (ours == expected).all()
    assert not any("beyond" in note or "without a pixel" in note for note in result.notes)


@pytest.mark.parametrize("name", FORMATS)
def test_polygons_differ_within_the_tolerance_of_boundaries_only(name, tmp_path):
    labels = [blobs(seed, 90, 120) for seed in range(3)]
    read, _, _ = round_trip(tmp_path, name, labels, STREETS, 2)
    for ours, each in zip(read, labels, strict=True):
        wrong = ours != named(each, STREETS)
        assert 0 < wrong.mean() < 0.1
        padded = np.pad(each, 4, mode="edge")
        for y, x in np.argwhere(wrong):
            window = padded[y : y + 9, x : x + 9]
            assert len(np.unique(window)) > 1 or min(y, x, 89 - y, 119 - x) < 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_background_inside_another_class_is_kept(name, tmp_path):
    ring = np.zeros((30, 30), np.uint8)
    ring[5:25, 5:25] = 1
    ring[10:20, 10:20] = 0
    (read,), _, _ = round_trip(tmp_path, name, [ring], OBJECTS, 1)
    assert ((read == "car") == (ring == 1)).all()


def test_pycocotools_loads_the_file_with_the_same_masks(tmp_path):
    labels = [blobs(3), blobs(4)]
    _, _, export = round_trip(tmp_path, "coco", labels, OBJECTS, None)
    api = COCO(str(export))
    assert [category["name"] for category in api.loadCats(api.getCatIds())] == list(OBJECTS.names)
    for key, each in enumerate(labels, 1):
        record = api.imgs[key]
        assert (record["file_name"], record["width"], record["height"]) == (f"{key - 1} ä.png", 64, 48)
        annotations = api.loadAnns(api.getAnnIds(imgIds=[key]))
        assert [a["category_id"] for a in annotations] == [2, 3]  # the background is what is left
        for annotation in annotations:
            mask = each == annotation["category_id"] - 1
            assert (api.annToMask(annotation).astype(bool) == mask).all()
            y, x = np.nonzero(mask)
            assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert annotation["area"] == mask.sum()
            assert 0.4 < annotation["score"] < 1


def test_label_studio_tasks_have_the_names_of_the_labeling_configuration(tmp_path):
    labels = blobs(5)
    _, _, export = round_trip(tmp_path, "label-studio", [labels], STREETS, None)
    (task,) = json.loads(export.read_text())
    assert task["data"] == {"image": "/data/local-files/?d=0%20%C3%A4.png"}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "danet"
    assert 0.4 < prediction["score"] < 1
    for result in prediction["result"]:
        assert (result["type"], result["from_name"], result["to_name"]) == ("brushlabels", "label", "image")
        (name,) = result["value"]["brushlabels"]
        record = Record(export, "rle", result["value"]["rle"])
        mask = bitmap_of(decode_brush(record, result["original_height"], result["original_width"])).pixels
        assert (mask == (labels == STREETS.names.index(name))).all()
    config = label_studio.labeling_config(STREETS, polygons=False)
    assert '<Image name="image" value="$image" zoom="true"/>' in config
    assert '<BrushLabels name="label" toName="image">' in config
    assert '<Label value="car &amp; &lt;van&gt;" background="#00008e"/>' in config
    assert "<PolygonLabels" in label_studio.labeling_config(STREETS, polygons=True)


def test_thin_regions_disappear_only_below_the_tolerance(tmp_path):
    labels = np.zeros((20, 20), np.uint8)
    labels[5, 3:15] = 1
    for tolerance, count in ((0.4, 2), (2, 1)):
        found = annotate(tmp_path / "a.png", "a.png", segmentation(tmp_path / "a.png", labels, STREETS), tolerance)
        assert len(list(found.shapes)) == count


@pytest.fixture
def photos(tmp_path):
    for name in ("a.png", "b.jpg"):
        image(tmp_path / "photos" / name, height=40, width=50)
    exif = Image.Exif()
    exif[0x0112] = 6
    image(tmp_path / "photos/turned.jpg", height=40, width=50, exif=exif)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("coco", ["predictions_coco.json"]),
        ("label-studio", ["label_studio_config.xml", "predictions_label_studio.json"]),
        ("cvat", ["predictions_cvat.xml"]),
    ],
)
@pytest.mark.parametrize("tolerance", [(), ("--tolerance", "1")])
def test_the_command_writes_one_file_that_can_be_imported(
    name, files, tolerance, photos, tiny_weights, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [
        "predict",
        str(photos),
        "--weights",
        str(tiny_weights),
        "--out",
        str(out),
        "--format",
        name,
        *tolerance,
    ]
    assert main(arguments) == 0
    assert sorted(file.name for file in out.iterdir()) == files
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "turned", "wrote"]
    export = next(file for file in out.iterdir() if file.name.startswith("predictions"))
    result = import_annotations(export, tmp_path / "new", ImportOptions(images=photos))
    predictor = load(tiny_weights)
    for stem in ("a", "b", "turned"):
        (file,) = photos.glob(f"{stem}.*")
        expected = named(predictor(file).labels, predictor.classes)
        read = np.array(result.classes.names)[read_mask(tmp_path / f"new/masks/{stem}.png")]
        assert read.shape == expected.shape
        assert (read == expected).mean() > (0.8 if tolerance else 0.9999)


def test_existing_files_are_replaced_only_on_request(photos, tiny_weights, tmp_path, capsys):
    file = tmp_path / "predictions_cvat.xml"
    file.write_text("mine")
    arguments = [*("predict", str(photos / "a.png"), "--weights", str(tiny_weights)), "--out", str(tmp_path)]
    assert main([*arguments, "--format", "cvat"]) == 2
    assert f"{file}: already exists" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main([*arguments, "--format", "cvat", "--overwrite"]) == 0
    assert file.read_text().startswith("<?xml")


def test_a_bad_image_is_reported_and_the_others_are_written(photos, tiny_weights, tmp_path, capsys):
    (photos / "b.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    arguments = [
        "predict",
        str(photos),
        "--weights",
        str(tiny_weights),
        "--out",
        str(tmp_path / "out"),
        "--format",
        "coco",
    ]
    assert main(arguments) == 2
    assert "1 of 3 files could not be segmented" in capsys.readouterr().err
    content = json.loads((tmp_path / "out/predictions_coco.json").read_text())
    assert [record["file_name"] for record in content["images"]] == ["a.png", "turned.jpg"]
    for name in ("a.png", "turned.jpg"):
        (photos / name).write_bytes(b"no image")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "none")
    assert main(arguments) == 2
    assert "no image could be segmented, so nothing is written" in capsys.readouterr().err
    assert list((tmp_path / "none").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["a.png", "--tolerance", "1"],
            "--tolerance: is for polygons in a file of annotations; add --format, or leave it out",
        ),
        (["a.png", "--format", "coco", "--tolerance", "-1"], "--tolerance: must be from 0 to 1000 pixels, got -1; for"),
        (["a.png", "--format", "coc"], "--format: 'coc' is unknown; use one of coco, label-studio, cvat"),
        (
            ["clip.mp4", "--format", "coco"],
            "clip.mp4: is a video, and annotations are for smaller images; leave it out, or",
        ),
    ],
)
def test_mistakes_are_reported_before_the_work_begins(arguments, error, photos, tiny_weights, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    (photos / "clip.mp4").write_bytes(b"")
    assert main(["predict", *arguments, "--weights", str(tiny_weights), "--out", "out"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")
    assert not (photos / "out").exists()


@pytest.mark.parametrize("character", ["\x01", "\udcff", "\uffff"])
def test_names_that_xml_cannot_hold_are_an_error(character, tiny_weights, tmp_path, capsys):
    """They are an error of the file, before the work begins."""
    folder = tmp_path / "photos"
    image(folder / f"a{character}.png", height=40, width=50)
    arguments = ["predict", str(folder), "--weights", str(tiny_weights), "--out", str(tmp_path), "--format", "cvat"]
    assert main(arguments) == 2
    shown = character.encode("unicode_escape", "surrogateescape").decode()
    what = f"its name contains {character!r}, which the XML of CVAT cannot hold; rename it, or use another --format"
    assert capsys.readouterr() == ("", f"error: {folder}/a{shown}.png: {what}\n")


def test_names_with_unusual_spaces_and_line_breaks_survive_the_round_trip(tiny_weights, tmp_path):
    """The names of macOS's screenshots have a narrow no-break space."""
    names = ["3.14.15\u202fPM.png", "b\nc\td\re.png", "c\u3000\U0001f600.png"]
    for name in names:
        image(tmp_path / "photos" / name, height=40, width=50)
    arguments = ["predict", str(tmp_path / "photos"), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--format", "cvat"]) == 0
    import_annotations(tmp_path / "out/predictions_cvat.xml", tmp_path / "new", ImportOptions(tmp_path / "photos"))
    assert {file.name for file in (tmp_path / "new/masks").iterdir()} == set(names)


def test_a_full_disk_leaves_no_file_of_annotations(tiny_weights, photos, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["predict", str(photos), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert main([*arguments, "--format", "coco"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file = tmp_path / "out/predictions_coco.json"
    assert capsys.readouterr().err == f"error: {file}: cannot be written (File too large); free some space\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["coco", "label-studio"])
def test_annotations_of_another_process_are_not_replaced(name, photos, tiny_weights, tmp_path):
    target = AnnotationFile(tmp_path / "out", name)
    jobs = find_jobs([photos], target.out, overwrite=True).jobs
    check_target(target, jobs)
    results = segment_as_annotations(load(tiny_weights), jobs, target)
    next(results)
    last = target.paths[-1]
    last.write_text("of another process")
    with pytest.raises(InputError, match=f"{last}: already exists: another process wrote it meanwhile"):
        list(results)
    assert last.read_text() == "of another process"
