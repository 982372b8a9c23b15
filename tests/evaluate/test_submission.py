"""Submission files scored by the official rules.

Cityscapes' official code draws the ground truth and scores the files. VOC's rule is restated from its devkit
(VOCevalseg.m).
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danet.data.datasets import cityscapes, pascal_voc
from danet.data.samples import Pair, PairedFiles
from danet.errors import InputError
from danet.evaluate import submission
from danet.evaluate.cityscapes import Instances, instance_files, read_instances
from danet.evaluate.evaluation import Evaluation, measure
from danet.predict.segmentation import Prediction

HEIGHT, WIDTH = 64, 96
TRAIN = cityscapes.CLASSES.names.index("train")
POLYGONS = (  # all evaluated classes but "train", groups, and labels that are not evaluated
    *(name for name in cityscapes.CLASSES.names if name != "train"),
    *("person", "rider", "car", "car", "truck", "bus", "motorcycle", "bicycle"),
    *("persongroup", "cargroup", "bicyclegroup", "caravan", "trailer", "license plate"),
    *("ego vehicle", "out of roi", "static", "ground", "parking", "rail track", "guard rail", "polegroup"),
)


def draw_cityscapes(root: Path, seed: int, split: str = "val") -> PairedFiles:
    """Create four samples whose masks the official code draws from random polygons."""
    annotation = pytest.importorskip("cityscapesscripts.helpers.annotation")
    label_image = pytest.importorskip("cityscapesscripts.preparation.json2labelImg").createLabelImage
    instance_image = pytest.importorskip("cityscapesscripts.preparation.json2instanceImg").createInstanceImage
    rng = np.random.default_rng(seed)
    for name in ("lindau_000000_000019", "lindau_000001_000019", "munster_000000_000019", "munster_000000_000020"):
        city = name.split("_")[0]
        image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
        masks = root / "gtFine" / split / city
        for folder in (image.parent, masks):
            folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(image)
        objects = [
            {"label": label, "polygon": (rng.random((3, 2)) * (WIDTH, HEIGHT)).tolist()}
            for label in rng.permutation(POLYGONS)
        ]
        polygons = masks / f"{name}_gtFine_polygons.json"
        polygons.write_text(json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}))
        scene = annotation.Annotation()
        scene.fromJsonFile(str(polygons))
        label_image(scene, "ids").save(masks / f"{name}_gtFine_labelIds.png")
        instances = np.asarray(instance_image(scene, "ids")).astype(np.uint16)
        Image.fromarray(instances).save(masks / f"{name}_gtFine_instanceIds.png")
    return cityscapes.load(root, split)


def guesses(samples: PairedFiles, seed: int, absent: int) -> list[Prediction]:
    """Return predictions that are about half correct and never of the class `absent`."""
    rng, made = np.random.default_rng(seed), []
    for i in range(len(samples)):
        sample = samples[i]
        noise = rng.integers(0, len(samples.classes), sample.labels.shape).astype(np.uint8)
        wrong = (rng.random(sample.labels.shape) < 0.4) | (sample.labels == 255)
        labels = np.where(wrong, noise, np.roll(sample.labels, 1, axis=1))
        labels[(labels == 255) | (labels == absent)] = 0
        made.append(Prediction(sample, labels, np.full(labels.shape, 0.5, np.float32)))
    return made


def official_scores(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Run the official script, which finds the predictions by name."""
    script = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # removed from numpy 2.4
    settings = {"quiet": True, "JSONOutput": False, "predictionPath": str(folder), "predictionWalk": None}
    for name, value in settings.items():
        monkeypatch.setattr(script.args, name, value)
    truth = sorted(str(file) for file in root.glob("gtFine/val/*/*_gtFine_labelIds.png"))
    return script.evaluateImgLists([script.getPrediction(script.args, file) for file in truth], truth, script.args)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cityscapes_scores_equal_the_official_script(seed, tmp_path, monkeypatch):
    samples = draw_cityscapes(tmp_path, seed)
    with submission.submission(tmp_path / "send", "cityscapes") as files:
        ours = measure(guesses(samples, seed, TRAIN), samples, files)
    theirs = official_scores(tmp_path, tmp_path / "send", monkeypatch)

    evaluated = np.array(cityscapes.TRAIN_TO_LABEL_ID)
    matrix = np.array(theirs["confMatrix"], np.int64)
    assert np.array_equal(ours.confusion.matrix, matrix[np.ix_(evaluated, evaluated)])
    assert matrix.sum() > ours.confusion.matrix.sum() > 0  # only theirs counts ignored pixels

    scores, further = ours.confusion.scores(), ours.cityscapes_scores
    assert further is not None
    expected = [theirs["classScores"][name] for name in cityscapes.CLASSES.names]
    assert np.array_equal(scores.iou, expected, equal_nan=True)
    assert [i for i, iou in enumerate(expected) if math.isnan(iou)] == [TRAIN]
    for mine, official in (
        (further.category_iou, theirs["categoryScores"]),
        (further.iiou, theirs["classInstScores"]),
        (further.category_iiou, theirs["categoryInstScores"]),
    ):
        assert mine == pytest.approx({name: official[name] for name in mine}, rel=1e-12, nan_ok=True)
        assert all(math.isnan(official[name]) for name in official.keys() - mine.keys())
    assert 0 < further.iiou["person"] < 1
    assert math.isnan(further.iiou["train"])

    means = further.as_dict()
    assert scores.miou == pytest.approx(theirs["averageScoreClasses"], rel=1e-12)
    assert means["category_iou"]["mean"] == pytest.approx(theirs["averageScoreCategories"], rel=1e-12)
    assert means["iiou"]["mean"] == pytest.approx(theirs["averageScoreInstClasses"], rel=1e-12)
    assert means["category_iiou"]["mean"] == pytest.approx(theirs["averageScoreInstCategories"], rel=1e-12)


def test_merged_instances_equal_the_whole(tmp_path):
    samples = draw_cityscapes(tmp_path, 3)
    everything = guesses(samples, 3, TRAIN)
    whole, first, second = (measure(part, samples) for part in (everything, everything[:1], everything[1:]))
    second.merge(first)
    assert whole.instances is not None
    assert second.instances is not None
    assert np.array_equal(second.instances.count, whole.instances.count)
    assert second.cityscapes_scores is not None
    assert whole.cityscapes_scores is not None
    assert second.cityscapes_scores.iiou == pytest.approx(whole.cityscapes_scores.iiou, rel=1e-12, nan_ok=True)


def test_cityscapes_files_are_label_ids_at_the_image_size(tmp_path):
    samples = draw_cityscapes(tmp_path, 0, split="test")
    made = guesses(samples, 0, TRAIN)
    with submission.submission(tmp_path / "send", "cityscapes") as files:
        measure(made, samples, files)
    assert sorted(p.name for p in (tmp_path / "send").iterdir()) == [
        f"{sample.name}_pred_labelIds.png" for sample, _, _ in made
    ]
    for sample, labels, _ in made:
        image = Image.open(tmp_path / "send" / f"{sample.name}_pred_labelIds.png")
        assert (image.mode, image.size) == ("L", (WIDTH, HEIGHT))
        assert np.array_equal(np.asarray(image), np.array(cityscapes.TRAIN_TO_LABEL_ID)[labels])


def test_iiou_needs_all_instance_files_or_none(tmp_path):
    samples = draw_cityscapes(tmp_path, 0)
    files = list(instance_files(samples).values())
    assert len(files) == 4
    files[1].unlink()
    with pytest.raises(
        InputError, match=r"lindau_000001_000019_gtFine_instanceIds\.png: 1 of 4 instance files are missing"
    ):
        measure([], samples)
    for file in files:
        file.unlink(missing_ok=True)
    scores = measure(guesses(samples, 0, TRAIN), samples).cityscapes_scores
    assert scores is not None
    assert (scores.iiou, scores.category_iiou) == ({}, {})
    assert scores.category_iou["flat"] > 0
    renamed = [Pair(pair.name, pair.image, pair.image) for pair in samples.pairs]
    assert instance_files(PairedFiles(cityscapes.CLASSES, renamed, samples.label_map)) == {}
    assert instance_files(draw_voc(tmp_path / "voc", "val")) == {}


def test_invalid_instance_files_are_rejected(tmp_path):
    file = tmp_path / "a_gtFine_instanceIds.png"
    Image.fromarray(np.array([[7, 24001], [26, 7001]], np.uint16)).save(file)
    with pytest.raises(InputError, match="value 7001 is not an instance"):
        read_instances(file, (2, 2))
    with pytest.raises(InputError, match="has 2 x 2 pixels, but the image has 3 x 2"):
        read_instances(file, (2, 3))


def test_instance_files_of_8_bits_contain_no_instances(tmp_path):
    file, sums = tmp_path / "a_gtFine_instanceIds.png", Instances()
    Image.fromarray(np.array([[7, 24], [26, 255]], np.uint8)).save(file)
    ids = read_instances(file, (2, 2))
    assert ids.tolist() == [[7, 24], [26, 255]]
    sums.update(ids, np.zeros((2, 2), np.uint8))
    assert not sums.count.any()


def draw_voc(root: Path, split: str) -> PairedFiles:
    """Create three samples whose masks have void pixels and no tvmonitor."""
    devkit, rng = root / "VOCdevkit" / "VOC2012", np.random.default_rng(5)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (devkit / folder).mkdir(parents=True)
    names = [f"2008_00000{i}" for i in (3, 1, 2)]
    (devkit / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names))
    for name in names:
        Image.new("RGB", (17, 11)).save(devkit / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(rng.choice(np.array([*range(20), 255], np.uint8), (11, 17)))
        mask.putpalette(voc_colors())
        mask.save(devkit / "SegmentationClass" / f"{name}.png")
    return pascal_voc.load(root, split)


def voc_colors() -> bytes:
    """VOClabelcolormap.m: bit j of the index's k-th octal digit is bit 7 - k of channel j."""
    return bytes(sum((i >> (3 * k + j) & 1) << (7 - k) for k in range(8)) for i in range(256) for j in range(3))


def test_voc_scores_equal_the_devkit_rule(tmp_path):
    samples = draw_voc(tmp_path, "val")
    with submission.submission(tmp_path / "send", "voc") as files:
        ours = measure(guesses(samples, 1, absent=20), samples, files)
    counts: Counter[tuple[int, int]] = Counter()
    for truth in (tmp_path / "VOCdevkit/VOC2012/SegmentationClass").iterdir():
        result = Image.open(tmp_path / "send/results/VOC2012/Segmentation/comp6_test_cls" / truth.name)
        assert result.mode == "P"
        assert result.size == (17, 11)
        assert max(result.tobytes()) <= 20
        assert bytes(result.getpalette() or ())[: 21 * 3] == voc_colors()[: 21 * 3]
        pairs = zip(Image.open(truth).tobytes(), result.tobytes(), strict=True)
        counts.update((true, predicted) for true, predicted in pairs if true < 255)
    assert ours.confusion.matrix.tolist() == [[counts[i, j] for j in range(21)] for i in range(21)]

    def accuracy(c: int) -> float:
        union = sum(n for pair, n in counts.items() if c in pair)
        return counts[c, c] / union if union else math.nan

    expected = [accuracy(c) for c in range(21)]
    scores = ours.confusion.scores()
    assert np.array_equal(scores.iou, expected, equal_nan=True)
    assert math.isnan(expected[20])
    assert scores.miou == pytest.approx(np.mean(expected[:20]))


def test_unlabeled_test_split_is_written_and_has_no_scores(tmp_path):
    samples = draw_voc(tmp_path, "test")
    with submission.submission(tmp_path / "send", "voc") as files:
        evaluation = measure(guesses(samples, 2, absent=20), samples, files)
    assert len(list((tmp_path / "send").rglob("*.png"))) == 3
    assert evaluation.as_dict()["miou"] is None
    assert [row.worst_class for row in evaluation.images] == ["", "", ""]
    assert Evaluation(pascal_voc.CLASSES).cityscapes_scores is None


def begin(folder: Path, dataset: str = "cityscapes") -> None:
    with submission.submission(folder, dataset):
        pass


def test_submission_never_overwrites_files(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="used: the folder is not empty"):
        begin(tmp_path / "used")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match=r"notes\.txt: cannot use the folder"):
        begin(tmp_path / "used" / "notes.txt", "voc")
    with pytest.raises(InputError, match="submit: camvid has no server; choose cityscapes or voc as `dataset`"):
        begin(tmp_path / "new", "camvid")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    begin(tmp_path / "empty", "voc")
    assert (tmp_path / "empty" / "results").is_dir()


@pytest.mark.parametrize("exists", [True, False])
def test_submission_is_complete_or_absent(exists, tmp_path):
    samples = draw_cityscapes(tmp_path, 0)
    send = tmp_path / "out" / "send"
    if exists:
        send.mkdir(parents=True)
    made = guesses(samples, 0, TRAIN)

    def failing() -> Iterator[Prediction]:
        yield made[0]
        raise InputError("p.png", "broken", "fix it")

    with pytest.raises(InputError, match="broken"), submission.submission(send, "cityscapes") as files:
        measure(failing(), samples, files)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == (["send"] if exists else [])
    with submission.submission(send, "cityscapes") as files:
        measure(made, samples, files)
    assert len(list(send.iterdir())) == len(made)
    assert list((tmp_path / "out").iterdir()) == [send]
