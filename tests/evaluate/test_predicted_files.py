"""Predictions in PNG files get the scores of the network that made them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import danet
from danet import InputError
from danet.cli import main
from danet.evaluate.confusion import Confusion

COLORS = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 250]], np.uint8)
NAMES = "a", "b", "c"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def labels() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 3, (12, 16), np.uint8) for name in NAMES}


@pytest.fixture
def predicted() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 3, (12, 16), np.uint8) for name in NAMES}


@pytest.fixture
def root(tmp_path, labels) -> Path:
    """Return a dataset whose masks have the values 5, 6 and 9."""
    for name, ids in labels.items():
        save(tmp_path / f"data/images/val/{name}.png", np.zeros((12, 16, 3), np.uint8))
        save(tmp_path / f"data/masks/val/{name}.png", np.array([5, 6, 9], np.uint8)[ids])
        for kind in ("images", "masks"):
            save(tmp_path / f"data/{kind}/train/{name}.png", np.full((12, 16), 5, np.uint8))
    (tmp_path / "data/dataset.yaml").write_text("classes: [road, car, sign]\nlabel_map: {5: 0, 6: 1, 9: 2}\n")
    return tmp_path / "data"


def expected(labels: dict[str, np.ndarray], predicted: dict[str, np.ndarray]) -> np.ndarray:
    counts = Confusion(3)
    for name in NAMES:
        counts.update(labels[name], predicted[name])
    return counts.matrix


@pytest.mark.parametrize(
    ("name", "encoding"), [("{}.png", None), ("x/{}_labels.png", "train-ids"), ("{}.PNG", "masks")]
)
def test_files_of_each_name_and_encoding_have_the_same_scores(root, labels, predicted, tmp_path, name, encoding):
    for stem, ids in predicted.items():
        values = np.array([5, 6, 9], np.uint8)[ids] if encoding == "masks" else ids
        save(tmp_path / "p" / name.format(stem), values)
    result = danet.evaluate(root=root, predictions=tmp_path / "p", encoding=encoding)
    assert result.evaluation is not None
    assert np.array_equal(result.evaluation.confusion.matrix, expected(labels, predicted))
    assert result.as_dict()["calibration"]["ece"] is None
    assert [row.name for row in result.images] == list(NAMES)


def test_masks_of_colors_are_predictions_of_colors(root, labels, predicted, tmp_path):
    (root / "dataset.yaml").write_text(
        "classes: [road, car, sign]\ncolors: [[10, 20, 30], [200, 0, 0], [0, 0, 250]]\nmasks: colors/{split}\n"
    )
    for stem in NAMES:
        for split in ("train", "val"):
            save(root / f"colors/{split}/{stem}.png", COLORS[labels[stem]])
        save(tmp_path / f"p/{stem}.png", COLORS[predicted[stem]])
    result = danet.evaluate(root=root, predictions=tmp_path / "p", encoding="masks")
    assert result.evaluation is not None
    assert np.array_equal(result.evaluation.confusion.matrix, expected(labels, predicted))


def test_command_writes_all_results(root, predicted, tmp_path, capsys):
    for stem, ids in predicted.items():
        save(tmp_path / f"p/{stem}.png", ids)
    files = {name: tmp_path / name for name in ("s.json", "i.csv", "c.png", "r.html")}
    outputs = [
        word
        for flag, file in zip(("json", "images", "confusion", "report"), files.values(), strict=True)
        for word in (f"--{flag}", str(file))
    ]
    assert main(["evaluate", "--predictions", str(tmp_path / "p"), "--root", str(root), *outputs]) == 0
    printed = capsys.readouterr().out
    assert "boundary F within" in printed
    assert "calibration" not in printed
    scores = json.loads(files["s.json"].read_text())
    assert scores["predictions"] == str(tmp_path / "p")
    assert scores["images"] == 3
    assert files["i.csv"].read_text().count("\n") == 4
    assert "Worst 1: " in files["r.html"].read_text()


def test_predictions_of_the_network_have_its_scores(tiny_weights, tmp_path, monkeypatch):
    from danet.data.datasets import synthetic

    monkeypatch.setattr(synthetic, "COUNTS", {"train": 2, "val": 3})
    own = danet.evaluate(tiny_weights, dataset="toy")
    for prediction in own.source.predictions(own.samples):
        save(tmp_path / f"{prediction.sample.name}.png", prediction.labels)
    found = danet.evaluate(predictions=tmp_path, dataset="toy").as_dict()
    assert {**found, "calibration": None} == {**own.as_dict(), "calibration": None}


EMPTY, FULL = np.zeros((12, 16), np.uint8), np.full((12, 16), 9, np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "a.png").unlink(), r"p: 1 of 3 predictions are missing: a\.png; add them"),
        (lambda p: [file.unlink() for file in p.glob("*")], r"p: 3 of 3 predictions are missing: a\.png, b\.png, c\."),
        (lambda p: save(p / "a.png", EMPTY[:6, :8]), r"a\.png: has 8 x 6 pixels, but the image has 16 x 12"),
        (lambda p: save(p / "x/b_labels.png", EMPTY), r"b: has two predictions: b\.png and x/b_labels"),
        (lambda p: save(p / "c.png", FULL), r"c\.png: value 9 is not a class id .*`encoding`"),
        (
            lambda p: save(p / "c.png", FULL * 0 + 255),
            r"c\.png: has no class for 192 labeled pixels; .*or set `encoding` to",
        ),
    ],
)
def test_faults_of_the_files_are_named(root, predicted, tmp_path, change, message):
    for stem, ids in predicted.items():
        save(tmp_path / f"p/{stem}.png", ids)
    change(tmp_path / "p")
    with pytest.raises(InputError, match=message):
        danet.evaluate(root=root, predictions=tmp_path / "p")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "default", "predictions": "."}, "^weights: is for weights, not for predictions"),
        ({"attention": True, "predictions": "."}, "^attention: is for weights"),
        ({"device": "cpu", "predictions": "."}, "^device: is for weights"),
        ({"dtype": "bfloat16", "predictions": "."}, "^dtype: is for weights"),
        ({"encoding": "masks"}, "^encoding: is that of the files of `predictions`"),
        ({"encoding": "colors", "predictions": "."}, "^encoding: 'colors' is unknown"),
        ({"predictions": "absent"}, "^absent: no such folder"),
    ],
)
def test_wrong_combinations_are_refused(root, arguments, message):
    with pytest.raises(InputError, match=message):
        danet.evaluate(root=root, **arguments)


def test_synthetic_data_has_no_masks():
    with pytest.raises(InputError, match="encoding: the dataset has no mask files"):
        danet.evaluate(dataset="toy", predictions=".", encoding="masks")
