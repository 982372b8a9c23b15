"""Report pages: self-contained, bounded in size, equal to the scores, and without influence on the run."""

import base64
import io
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from danet import InputError, recipes
from danet.cli import main
from danet.data import registry
from danet.data.classes import Classes
from danet.data.datasets import synthetic
from danet.data.samples import Sample
from danet.evaluate.calibration import Bin
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import measure
from danet.evaluate.per_image import ImageScores
from danet.predict.predictor import load
from danet.recipes import Recipe
from danet.train import checkpoint, loop, run_folder, trackers
from danet.train import report as pages
from danet.train.batches import batches
from danet.train.distributed import Process
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.train.skipped import SkippedImages
from danet.visualize import compare_runs, run_page, sections, training_data, worst_images
from danet.visualize import svg as charts
from danet.visualize.svg import Series
from danet.weights import file as weights_file


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 7})


def tiny(epochs: int = 2, **network) -> Recipe:
    network = {"width": 16, **network}
    toy = recipes.TOY
    optim, chosen = replace(toy.optim, epochs=epochs), replace(toy.data, batch=4, crop=(64, 64))
    return replace(toy, optim=optim, data=chosen, network=replace(toy.network, **network))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a run of two epochs with position and channel attention."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "COUNTS", {"train": 8, "val": 7})
        train(tiny(), RunOptions(out, workers=0, device="cpu"))
    return out


@pytest.fixture(scope="module")
def other_run(tmp_path_factory) -> Path:
    """Return a run without position attention, with another seed."""
    out = tmp_path_factory.mktemp("runs") / "second"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "COUNTS", {"train": 8, "val": 7})
        train(replace(tiny(position=False), seed=7), RunOptions(out, workers=0, device="cpu"))
    return out


class Checked(HTMLParser):
    """A parser that fails if a page refers to anything outside itself, or leaves an element open."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        assert not [tag for tag in self.open if tag not in _OPTIONAL_END]

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/", "#")), value[:60]
            assert not name.startswith("on"), name
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in _NO_END:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _NO_END:
            self.open.pop()

    def handle_endtag(self, tag):
        while self.open[-1] != tag:
            assert (skipped := self.open.pop()) in _OPTIONAL_END, f"</{tag}> closes <{skipped}>"
        self.open.pop()


_NO_END = {"meta", "img"}
_OPTIONAL_END = {"tr", "td", "th", "dt", "dd", "html", "body"}


def check_page(page: str) -> None:
    Checked(page)
    text = re.sub(r"base64,[^\"]*", "", page)
    for outside in ("http", "@import", "url(", ">nan", " nan"):
        assert outside not in text
    assert len(page.encode()) < 5_000_000


def images(page: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in re.findall(r"base64,([^\"]+)", page)]


def test_the_page_of_a_run_holds_all_scores_of_its_best_weights(run):
    page = (run / "report.html").read_text()
    check_page(page)
    for title in (
        "Curves",
        "Classes",
        "Confusion",
        "Calibration and boundaries",
        "Worst and best images",
        "Settings",
    ):
        assert f"<h2>{title}</h2>" in page
    samples, predictor = registry.load("toy", None, "val"), load(run / "best.safetensors", "cpu")
    evaluation = measure(predictor.predictions(samples), samples)
    assert f"<dt>mIoU<dd>{100 * evaluation.confusion.scores().miou:.2f}%" in page
    assert f"<dt>calibration error<dd>{100 * evaluation.calibration.error:.2f}%" in page
    worst, best = worst_images.choose(evaluation.images)
    for kind, indices in (("Worst", worst), ("Best", best)):
        for place, index in enumerate(indices, 1):
            row = evaluation.images[index]
            assert f"<h3>{kind} {place}: {row.name}, mIoU {100 * row.miou:.1f}%" in page
    assert len(images(page)) == 1 + 5 * (worst_images.WORST + worst_images.BEST)
    assert all(f"  {name}:" in page for name in ("backbone", "crop", "momentum"))
    total = sum(p.numel() for p in predictor.network.parameters())
    assert f"<dt>parameters<dd>{total / 1e6:.2f} M" in page
    for name in ("alpha (position)", "beta (channel)", "fused", "learning rate"):
        assert name in page


def test_no_attention_image_without_position_attention(other_run):
    page = (other_run / "report.html").read_text()
    check_page(page)
    assert "position attention: of the" not in page
    assert len(images(page)) == 1 + 4 * (worst_images.WORST + worst_images.BEST)


def test_a_run_shows_its_first_batch_as_trained_and_the_shares_of_classes(run):
    page = (run / "report.html").read_text()
    samples, recipe = registry.load("toy", None, "train"), run_folder.read_recipe(run)
    (batch, *_) = batches(samples, recipe, Process(0, 1, torch.device("cpu")), 0, 1, 0, SkippedImages(run, 0))
    preview = images(page)[0]
    assert preview.size == (4 * 64 + 3 * 6, 2 * 64 + 6)
    for i, image in enumerate(batch.images.numpy()):
        drawn = np.asarray(preview)[:64, 70 * i : 70 * i + 64].astype(int)
        assert np.abs(drawn - image).mean() < 10, "up to the errors of JPEG"
    pixels = sum(np.bincount(samples.labels(i)[samples.labels(i) != 255], minlength=6) for i in range(8))
    body = page[page.index("Training data</h2>") :].split("</section>")[0]
    shares = dict(re.findall(r'</i>(\w+)<td><i[^>]*></i><span class="number">([\d.]+)%', body))
    names = samples.classes.names
    assert shares == {names[i]: f"{100 * pixels[i] / pixels.sum():.1f}" for i in range(6) if pixels[i]}
    assert "in the 8 training images and in the validation images" in body


def test_a_preview_marks_ignored_pixels_and_has_at_most_eight_samples():
    grays, labels = [np.full((30, 40, 1), 100, np.uint8)] * 9, np.zeros((30, 40), int)
    labels[:, 20:] = 255
    classes = Classes.named(("a", "b", "c"))
    drawn = np.asarray(Image.open(io.BytesIO(training_data.draw(grays, [labels] * 9, classes))).convert("RGB"), int)
    assert drawn.shape == (4 * 36 - 6, 4 * 46 - 6, 3)
    assert np.abs(drawn[2:28, 2:38] - 100).max() < 8
    color = 0.45 * 100 + 0.55 * np.array(classes.palette[0])
    assert np.abs(drawn[38:64, 2:16].mean((0, 1)) - color).max() < 12
    assert drawn[38:64, 24:38].std(2).max() < 12, "gray"


def test_reports_of_older_runs_have_no_training_data(run, tmp_path):
    older = shutil.copytree(run, tmp_path / "older")
    (older / "batch.jpg").unlink()
    (older / "class_pixels.json").write_text("[]")
    assert main(["report", str(older), "--device", "cpu"]) == 0, "a run's own page is replaced"
    page = (older / "report.html").read_text()
    assert "Training data" not in page
    assert "Worst and best images" in page


def test_pages_name_the_validation_images_in_words(run):
    page = (run / "report.html").read_text()
    assert "on the 7 images of the split val of toy, each at its full size." in page
    assert sections.validation_images(3, "folder", "val", Path("/data/cells")).startswith(
        "the 3 images of the split val of cells,"
    )
    assert "nats" not in page


def test_attention_is_drawn_for_the_most_confident_wrong_pixel(run):
    samples, predictor = registry.load("toy", None, "val"), load(run / "best.safetensors", "cpu")
    (prediction,) = predictor.predictions(samples, indices=[3])
    page = worst_images.drawn(predictor, OneImage(samples, 3), [ImageScores("a", 0.5, 0.5, "road")])
    wrong = (prediction.labels != prediction.sample.labels) & (prediction.sample.labels != 255)
    caption = re.search(r"pixel, x=(\d+), y=(\d+) \(circle\), (\w+) predicted as (\w+) with confidence (0\.\d+)", page)
    assert caption is not None
    x, y, true, predicted = int(caption[1]), int(caption[2]), caption[3], caption[4]
    assert wrong[y, x]
    assert f"{prediction.confidence[wrong].max():.3f}" == caption[5]
    names = samples.classes.names
    assert (names.index(true), names.index(predicted)) == (prediction.sample.labels[y, x], prediction.labels[y, x])


class OneImage:
    """A dataset of one sample of another dataset."""

    def __init__(self, samples, index: int):
        self.samples, self.index = samples, index
        self.classes, self.bands = samples.classes, samples.bands

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _index: int) -> Sample:
        return self.samples[self.index]

    def labels(self, _index: int) -> np.ndarray:
        return self.samples[self.index].labels


def test_worst_and_best_images_are_disjoint_and_chosen_by_miou():
    rows = [ImageScores(str(i), miou, 0.5, "") for i, miou in enumerate([0.3, math.nan, 0.1, 0.9, 0.2, 0.8, 0.7])]
    assert worst_images.choose(rows) == ([2, 4, 0, 6], [3, 5])
    assert worst_images.choose(rows[:5]) == ([2, 4, 0, 3], [])
    assert worst_images.choose([rows[1]]) == ([], [])


def test_wrong_pixels_are_orange_and_ignored_ones_striped():
    image = np.full((90, 90, 3), 100, np.uint8)
    wrong, valid = np.zeros((2, 90, 90), bool)
    wrong[:30], valid[:60] = True, True
    drawn = np.asarray(worst_images._errors(image, wrong, valid))
    assert (drawn[:30] == (213, 94, 0)).all()
    assert (drawn[30:60] == 0.6 * 100 + 0.4 * 255).all()
    assert set(np.unique(drawn[60:])) == {120, 165}


def test_writing_pages_does_not_change_the_weights(tmp_path, monkeypatch):
    train(tiny(), RunOptions(tmp_path / "with", workers=0, device="cpu"))
    monkeypatch.setattr(loop.report, "write", lambda *_: None)
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    train(tiny(), RunOptions(tmp_path / "without", workers=0, device="cpu"))
    assert not (tmp_path / "without/report.html").exists()
    a, b = (checkpoint.load(tmp_path / name / checkpoint.LAST) for name in ("with", "without"))
    for part in ("network", "average"):
        assert all(torch.equal(tensor, b[part][key]) for key, tensor in a[part].items())
    assert a["losses"] == b["losses"]


def test_the_page_of_a_validation_uses_no_random_numbers(tmp_path):
    recipe, history, confusion = tiny(), [row(epoch) for epoch in (1, 2, 3)], Confusion(6)
    confusion.matrix += np.arange(36).reshape(6, 6)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    pages.write(tmp_path, recipe, history, confusion, registry.DATASETS["toy"].classes)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    page = (tmp_path / "report.html").read_text()
    check_page(page)
    assert "added at the end of the run" in page
    assert images(page) == []
    assert page.count('aria-label="confusion matrix"') == 1
    assert page.count("<polyline") == 3 + 3 + 1 + 2


def test_a_single_validation_is_listed_in_numbers(tmp_path):
    confusion = Confusion(6)
    confusion.matrix += 1
    pages.write(tmp_path, tiny(1), [row(1)], confusion, registry.DATASETS["toy"].classes)
    page = (tmp_path / "report.html").read_text()
    assert "The only validation so far" in page
    assert "<polyline" not in page
    assert '<th scope="row">loss fused<td>0.33333' in page
    assert '<th scope="row">mIoU<td>20.00%' in page
    assert '<th scope="row">time spent waiting for images<td>10.00%' in page
    assert '<th scope="row">learning rate<td>0.1' in page


def row(epoch: int) -> dict[str, float]:
    losses = {f"loss_{name}": 1 / (2 + epoch) for name in ("total", "fused", "position", "channel")}
    scales = {"position_scale": 0.1 * epoch, "channel_scale": -0.1}
    accuracy = {"miou": 0.2 * epoch, "pixel_accuracy": 0.5, "mean_accuracy": 0.4}
    speed = {"images_per_second": 12.0, "waiting": 0.1}
    return {"step": 2 * epoch, "epoch": epoch, "lr": 0.1 / epoch, **losses, **scales, **accuracy, **speed}


def test_a_page_without_labeled_pixels_can_be_written(tmp_path):
    nothing = [row(epoch) | {"miou": math.nan, "pixel_accuracy": math.nan} for epoch in (1, 2)]
    pages.write(tmp_path, tiny(), nothing, Confusion(6), registry.DATASETS["toy"].classes)
    page = (tmp_path / "report.html").read_text()
    check_page(page)
    assert "<dt>best mIoU<dd>n/a<" in page


def test_names_with_markup_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>\x1b&'
    classes = Classes.named((evil.replace("\x1b", ""), *"bcdef"))
    confusion = Confusion(6)
    confusion.matrix += 5
    pages.write(tmp_path, replace(tiny(), about=evil), [row(1)], confusion, classes)
    page = (tmp_path / "report.html").read_text()
    check_page(page)
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


class Noise:
    """Large images that cannot be compressed."""

    classes = Classes.named(tuple(f"class {i} of a very long name indeed, longer than any table" for i in range(250)))
    bands = registry.load("toy", None, "val").bands

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        labels = rng.integers(0, 250, (700, 900), np.uint8)
        return Sample(f"p{index}" * 60, rng.integers(0, 256, (700, 900, 3), np.uint8), labels)

    def labels(self, index: int) -> np.ndarray:
        return self[index].labels


def test_page_size_is_bounded_for_any_data():
    drawings = [
        worst_images.bounded_uri(Image.fromarray(image), flat)
        for image, flat in ((Noise()[0].image, False), (Noise()[1].image, True))
    ]
    assert max(len(drawing) for drawing in drawings) < 110_000
    confusion, thousand = Confusion(250), list(range(20_000))
    confusion.matrix += np.random.default_rng(0).integers(0, 100, (250, 250))
    parts = [
        sections.classes(confusion, Noise.classes).body,
        sections.confusion(confusion, Noise.classes).body,
        charts.lines("a", [Series(f"s{i}", thousand, [math.sin(x) for x in thousand]) for i in range(8)], "x", "y"),
    ]
    assert sum(len(part) for part in parts) + 5 * 6 * 110_000 < 4_500_000


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (37.2, 58.1, [35, 40, 45, 50, 55, 60]),
        (-0.21, -0.002, [-0.25, -0.2, -0.15, -0.1, -0.05, 0]),
        (3.0, 3.0, [3.0, 4.0]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low, high, expected):
    found = charts.ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= 7
    if low < high and expected[1] - expected[0] == pytest.approx(found[1] - found[0]):
        assert found == pytest.approx(expected)


def test_lines_are_drawn_at_their_values_with_gaps_for_nan():
    svg = charts.lines("mIoU", [Series("a", [1, 2, 3], [0.0, 50.0, 100.0])], "epoch", "%")
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', svg)[1].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y0 > y2
    assert "<title>a, epoch 2: 50</title>" in svg
    gap = charts.lines("mIoU", [Series("a", [1, 2, 3], [0.0, math.nan, 100.0])], "epoch", "%")
    assert len(re.search(r'points="([^"]+)"', gap)[1].split()) == 2
    assert charts.lines("mIoU", [Series("a", [1], [math.nan])], "epoch", "%") == ""


def test_the_reliability_diagram_labels_each_bin():
    svg = charts.reliability([Bin(0, 0.5, 0, math.nan, math.nan), Bin(0.5, 1, 1000, 0.9, 0.75)], 0.15)
    assert "confidence 0.50 to 1.00: 1,000 pixels (100.0%), mean confidence 0.900, accuracy 0.750" in svg
    assert "(ECE): 15.00%" in svg
    assert svg.count("<rect") == 1


def test_the_largest_confusions_are_listed():
    confusion = Confusion(3)
    confusion.matrix[:] = [[90, 10, 0], [0, 50, 50], [0, 0, 0]]
    body = sections.confusion(confusion, Classes.named(("road", "car", "sign"))).body
    rows = re.findall(r'<th scope="row">([^<]+)<td>([^<]+)<td>([^<]+)<td>([^<]+)', body)
    assert rows == [("car → sign", "50.0", "83.3", "50"), ("road → car", "10.0", "16.7", "10")]


def test_confusion_cells_have_tooltips_numbers_and_theme_colors():
    svg = charts.matrix(np.array([[90, 10, 0], [0, 996, 4], [0, 0, 0]]), ["road", "car", "a <sign>"])
    cells = re.findall(r"<title>([^<]+)</title><rect [^>]*fill=\"([^\"]+)\"[^>]*/>(?:<text [^>]*>([^<]+))?", svg)
    assert cells == [
        ("a &lt;sign&gt;: no pixels", "var(--line)", ""),
        ("car predicted as car: 99.6%, 996 pixels", "var(--c0)", "100"),
        ("road predicted as road: 90.0%, 90 pixels", "var(--c0)", "90"),
        ("road predicted as car: 10.0%, 10 pixels", "var(--c1)", "10"),
    ]
    assert svg.count("a &lt;sign&gt;</text>") == 2
    assert "Shares below 0.5% are empty" in svg


def test_large_confusion_matrices_draw_only_the_largest_shares():
    counts = np.random.default_rng(0).integers(1, 100, (250, 250))
    svg = charts.matrix(counts, [f"class {i}" for i in range(250)])
    shares = counts / counts.sum(1, keepdims=True)
    drawn = int((shares >= max(0.005, np.sort(shares, axis=None)[-4000])).sum())
    assert svg.count("<rect") == min(drawn, 4000)
    assert "<rect" in svg


def test_the_comparison_of_runs_shows_results_and_differences(run, other_run, tmp_path, capsys):
    out = tmp_path / "both.html"
    command = ["report", str(run), str(other_run), "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text()
    check_page(page)
    differ = page[page.index("Settings that differ</h2>") :].split("</section>")[0]
    assert re.findall("<code>([^<]+)</code>", differ) == ["network.position", "seed"]
    assert "<td>True<td>False" in differ
    for text in ("first", "second", "position and channel", "building"):
        assert text in page
    for chosen in (run, other_run):
        network, card = weights_file.load(chosen / "best.safetensors")
        assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}" in page
        assert f"{100 * card.metrics['miou']:.2f}" in page
    assert page.count("<polyline") == 2 + 2 + 2 + 2 + 1 + 2
    assert page.count('class="best"') >= 1 + len(card.classes)  # equal scores are all marked
    assert main(command) == 2
    assert f"error: {out}: already exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_no_score_is_best_across_different_datasets(run, other_run, tmp_path):
    elsewhere = shutil.copytree(other_run, tmp_path / "elsewhere")
    entries = yaml.safe_load((elsewhere / "recipe.yaml").read_text())
    entries["data"]["val_split"] = "train"
    (elsewhere / "recipe.yaml").write_text(yaml.safe_dump(entries))
    page = compare_runs.page([run_folder.read(run), run_folder.read(elsewhere)]).decode()
    assert 'class="best"' not in page
    assert "validated on different data, so their scores cannot be compared" in page
    assert "<td>toy, validated on val<td>toy, validated on train" in page


def test_no_fold_is_best(run, other_run, tmp_path):
    folds = []
    for i, source in enumerate((run, other_run), 1):
        folds.append(shutil.copytree(source, tmp_path / f"fold{i}"))
        entries = yaml.safe_load((folds[-1] / "recipe.yaml").read_text())
        entries["data"]["fold"] = f"{i}/2"
        (folds[-1] / "recipe.yaml").write_text(yaml.safe_dump(entries))
    page = compare_runs.page([run_folder.read(fold) for fold in folds]).decode()
    assert 'class="best"' not in page
    assert "<td>toy, validated on train, fold 1/2<td>toy, validated on train, fold 2/2" in page
    scores = [run_page.best_row(run_folder.read(fold).history)["miou"] for fold in folds]
    text = (
        f"over 2 of 2 folds: mean {100 * np.mean(scores):.2f}%, standard deviation {100 * np.std(scores, ddof=1):.2f}."
    )
    assert text in page
    assert "over 2 of 2 folds" not in compare_runs.page([run_folder.read(folds[0]), run_folder.read(run)]).decode()


@pytest.mark.parametrize("option", ["--root", "--device"])
def test_options_of_one_run_are_refused_for_several(run, other_run, option, capsys):
    assert main(["report", str(run), str(other_run), option, "cpu"]) == 2
    line = f"error: {option}: is for one run, and several are compared by their recorded scores; leave it out\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(("architecture", "text"), [("dranet", "position and channel"), ("ccnet", "none of DANet")])
def test_attention_of_other_architectures(run, architecture, text):
    own = run_folder.read(run)
    network = replace(own.recipe.network, architecture=architecture)
    assert compare_runs._attention(own._replace(recipe=replace(own.recipe, network=network))) == text


def test_runs_measured_in_steps_are_compared_in_steps(run, other_run, tmp_path):
    by_steps = shutil.copytree(run, tmp_path / "by_steps")
    entries = yaml.safe_load((by_steps / "recipe.yaml").read_text())
    entries["optim"]["steps"] = 40
    (by_steps / "recipe.yaml").write_text(yaml.safe_dump(entries))
    page = compare_runs.page([run_folder.read(by_steps), run_folder.read(other_run)]).decode()
    assert "4 of 40 steps" in page
    assert "2 of 2 epochs" in page
    assert "in step" in page


def test_report_writes_the_page_of_a_run_again(run, tmp_path, capsys):
    before = (run / "report.html").read_text()
    (run / "report.html").write_text("an older page")
    assert main(["report", str(run), "--device", "cpu"]) == 0
    assert (run / "report.html").read_text() == before
    assert main(["report", str(run), "--out", str(tmp_path / "copy.html"), "--device", "cpu"]) == 0
    assert (tmp_path / "copy.html").read_text() == before


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("recipe.yaml", ": not a run folder (no recipe.yaml); specify a folder written by danet train"),
        ("metrics.csv", "/metrics.csv: cannot read it (No such file or directory); wait for the run's first"),
        ("best.safetensors", "/best.safetensors: no such file; "),
    ],
)
def test_incomplete_run_folders_are_rejected(run, tmp_path, capsys, missing, line):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("recipe.yaml", "metrics.csv", "best.safetensors"):
        if file != missing:
            (copy / file).write_bytes((run / file).read_bytes())
    for command in (["report", str(copy)], ["report", str(run), str(copy), "--out", str(tmp_path / "o.html")]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"error: {copy}{line}")
    assert not (tmp_path / "o.html").exists()


def test_a_damaged_metrics_file_is_rejected(run, tmp_path):
    cases = [("epoch,miou\n1,abc\n", "is not a table of numbers"), ("epoch,miou\n1,2\n", "has no columns .* lr, ")]
    for text, message in cases:
        copy = tmp_path / "copy"
        copy.mkdir(exist_ok=True)
        (copy / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
        (copy / "metrics.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            run_folder.read(copy)
    assert main(["report"]) == 2


def test_the_page_of_an_evaluation_names_its_protocol(run, tmp_path, capsys):
    out, best = tmp_path / "e.html", str(run / "best.safetensors")
    command = ["evaluate", best, "--dataset", "toy", "--protocol", "mmseg-slide-769", "--report", str(out)]
    assert main([*command, "--device", "cpu"]) == 0
    miou = re.search(r"mIoU ([\d.]+)% over", capsys.readouterr().out)[1]
    page = out.read_text()
    check_page(page)
    assert f"<dt>mIoU<dd>{miou}%" in page
    assert '<th scope="row">protocol<td>mmseg-slide-769' in page
    assert '<th scope="row">crop<td>769' in page
    assert "<h2>Curves" not in page
    assert main(command) == 2
    assert f"error: {out}: already exists" in capsys.readouterr().err


def test_tensorboard_gets_each_row_of_the_csv_once(run, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = run_folder.read(run).history
    for rows in (history[:1], history):  # an interrupted run, and the same run resumed
        with trackers.TrackerLog(["tensorboard"], tmp_path, {}) as track:
            track.add(rows)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    for name in ("miou", "loss_fused", "lr"):
        scalars = [(scalar.step, scalar.value) for scalar in found.Scalars(name)]
        assert scalars == [(int(row["step"]), pytest.approx(row[name])) for row in history]
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^tensorboard: needs .*; in a clone of danet, run: uv sync --extra track"):
        train(tiny(), RunOptions(tmp_path / "run", trackers=("tensorboard",)))
    assert not (tmp_path / "run").exists()


def test_curves_are_drawn_over_steps_if_runs_are_in_steps():
    recipe = tiny()
    assert sections.x_axis([recipe]) == "epoch"
    assert sections.x_axis([recipe, replace(recipe, optim=replace(recipe.optim, steps=9))]) == "step"
    assert run_page.best_row([row(3), row(1)])["epoch"] == 3


def test_wide_characters_of_class_names_have_room():
    lefts = []
    for name in ("a" * 10, "\N{CJK UNIFIED IDEOGRAPH-9053}" * 10):
        svg = charts.matrix(np.eye(3, dtype=int), [name, "b", "c"])
        lefts.append(float(re.search(r'<text [^>]*x="([\d.]+)"', svg)[1]))
    assert lefts[1] >= 10 * 11.5 > lefts[0]


def test_ends_of_paths_are_not_cut_off():
    root = "/" + "a" * 100 + "/v2"
    assert f"root: {root}\n" in sections.settings({"root": root, "seed": 1}).body


def test_runs_with_the_same_name_are_told_apart(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "one/toy")
    shutil.copytree(run, tmp_path / "two/toy")
    out = tmp_path / "comparison.html"
    assert main(["report", str(tmp_path / "one/toy"), str(tmp_path / "two/toy"), "--out", str(out)]) == 0
    assert "one/toy" in out.read_text()
    assert "two/toy" in out.read_text()
    assert main(["report", str(run), str(run), "--out", str(tmp_path / "other.html")]) == 2
    assert capsys.readouterr().err == f"error: RUN: {run} is given twice; leave it out once\n"
