"""benchmarks/: the comparisons on CamVid, on a few small images; plots and model card from committed numbers."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import danet
from danet import InputError
from danet.evaluate.confusion import Confusion
from danet.train import loop
from danet.weights import file as weights_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load():
    """A module of benchmarks/ by its name."""
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def campaign(load, monkeypatch):
    """With a recipe of two steps."""
    module = load("campaign")
    small = replace(
        module.BASE,
        network=replace(module.BASE.network, backbone="test_resnet", width=16, pretrained=False),
        data=replace(module.BASE.data, batch=2, crop=(32, 32), size=64),
        optim=replace(module.BASE.optim, epochs=1, warmup=0),
    )
    monkeypatch.setattr(module, "BASE", small)
    return module


@pytest.fixture
def camvid(tmp_path) -> Path:
    root, rng = tmp_path / "camvid", np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 3)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            labels = rng.integers(0, 12, (6, 8), np.uint8).repeat(8, 0).repeat(8, 1)
            image = (20 * labels[..., None] + rng.integers(0, 15, (48, 64, 3))).astype(np.uint8)
            Image.fromarray(image).save(root / f"images/{split}/{i}.png")
            Image.fromarray(labels).save(root / f"labels/{split}/{i}.png")
    return root


def options(campaign, camvid, *more):
    fixed = ["--camvid", str(camvid), "--out", str(camvid.parent / "runs"), "--backbone", "test_resnet"]
    return campaign.parser("").parse_args([*fixed, "--device", "cpu", *more])


def test_mean_iou_is_that_of_the_confusion_matrix(load):
    intervals = load("intervals")
    confusion = Confusion(4)
    confusion.matrix = np.array([[5, 1, 0, 0], [2, 7, 0, 0], [0, 0, 0, 0], [1, 0, 0, 3]])
    assert intervals.mean_iou(confusion.matrix) == pytest.approx(confusion.scores().miou)
    both = np.stack([confusion.matrix, 2 * confusion.matrix])
    assert intervals.mean_iou(both) == pytest.approx([confusion.scores().miou] * 2)


def test_the_interval_over_seeds_is_students(load):
    intervals = load("intervals")
    from scipy.special import stdtrit

    assert intervals.by_seeds([0.3]) is None
    for count in range(2, 11):
        gains = np.random.default_rng(count).normal(1, 2, count)
        half = stdtrit(count - 1, 0.975) * gains.std(ddof=1) / count**0.5
        assert intervals.by_seeds(gains.tolist()) == pytest.approx((gains.mean() - half, gains.mean() + half), rel=1e-3)


def test_the_interval_over_images_is_paired(load):
    intervals = load("intervals")
    rng = np.random.default_rng(0)
    easy = rng.integers(1, 9, (40, 3, 3))
    better = easy + 2 * np.eye(3, dtype=int)
    assert intervals.by_images([easy], [easy]) == (0, 0)
    low, high = intervals.by_images([better, better], [easy, easy])
    gain = intervals.mean_iou(better.sum(0)) - intervals.mean_iou(easy.sum(0))
    assert 0 < low < gain < high < low + 0.05
    assert intervals.by_images([easy], [better]) == pytest.approx((-high, -low))


def test_a_campaign_is_trained_once_goes_on_after_a_kill_and_tells_the_same(campaign, load, camvid, monkeypatch):
    chosen = options(campaign, camvid, "--only", "fcn", "multi-grid", "multi-scale", "--seeds", "2")
    chosen.json = camvid.parent / "ablation.json"
    rows = load("ablation").rows(campaign.base(chosen))
    killed = chosen.out / "fcn-1"  # before its first step
    killed.mkdir(parents=True)
    (killed / "recipe.yaml").write_text("half a ")
    whole, steps = loop.compute_gradients, []

    def kill(*args, **kwargs):
        steps.append(1)
        if len(steps) == 4:  # the second of the second run
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(loop, "compute_gradients", kill)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(rows, chosen)
    assert [run["name"] for run in json.loads(chosen.json.read_text())["runs"]] == ["fcn"]
    result = campaign.run(rows, chosen)
    assert len(steps) == 4 + 2 * 3  # nothing was done twice but the run that was killed
    assert [(run["name"], run["seed"]) for run in result["runs"]] == [
        (name, seed) for seed in (1, 2) for name in ("fcn", "multi-grid", "multi-scale")
    ]
    assert {path.name for path in chosen.out.iterdir()} == {"fcn-1", "fcn-2", "multi-grid-1", "multi-grid-2"}
    assert json.loads(chosen.json.read_text())["runs"] == result["runs"]
    monkeypatch.setattr(campaign, "train", None)
    (killed / "whole.npz").unlink()
    again = campaign.run(rows, chosen)
    assert again["runs"] == result["runs"]
    assert len(steps) == 10
    check_rows(load("summary"), result)
    chosen.epochs = 2
    with pytest.raises(InputError, match="fcn-1: holds a run of another recipe; give --out another folder"):
        campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)


def check_rows(summary, result: dict) -> None:
    found = {row["name"]: row for row in result["rows"]}
    assert found["position"]["miou"] is None
    assert found["fcn"]["published"] == {"ResNet-50": 70.03, "ResNet-101": 72.54}
    assert found["multi-scale"]["published"] == {"ResNet-101": 81.5}
    assert found["fcn"]["differences"] == []
    assert found["fcn"]["scales"] == {}
    assert found["multi-grid"]["scales"].keys() == {"position", "channel"}
    gain, tested = (found[name]["differences"][0] for name in ("multi-grid", "multi-scale"))
    assert gain["against"] == tested["against"] == "fcn"
    assert gain["mean"] == pytest.approx(found["multi-grid"]["miou"] - found["fcn"]["miou"])
    assert gain["by_seeds_95"][0] <= gain["mean"] <= gain["by_seeds_95"][1]
    assert gain["by_images_95"][0] <= gain["by_images_95"][1]
    assert [entry["against"] for entry in found["multi-scale"]["differences"]] == ["fcn", "multi-grid"]
    said = summary.table(result)
    assert "70.03 / 72.54" in said
    assert "alpha +0.00 beta +0.00" in said.replace("-0.00", "+0.00")
    assert "not run yet" in said


def test_attention_is_switched_off_in_testing_alone(campaign, load, camvid, monkeypatch):
    chosen = options(campaign, camvid, "--only", "both", "both-off")

    load_as_it_is = danet.load

    def awake(*args):
        predictor = load_as_it_is(*args)
        for module in ("position", "channel"):
            predictor.folded.get_parameter(f"{module}.attention.scale").data.fill_(3)
        return predictor

    monkeypatch.setattr(danet, "load", awake)
    on, off = campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)["runs"]
    assert {path.name for path in chosen.out.iterdir()} == {"both-1"}
    whole, without = (
        np.load(chosen.out / f"both-1/whole{name}.npz")["matrices"]
        for name in ("", "-without-position-without-channel")
    )
    assert (whole.sum(2) == without.sum(2)).all()
    assert (whole != without).any()
    assert off["scales"] == {"position": 0, "channel": 0}
    assert on["scales"]["position"] != 0
    summary = load("summary")
    measured = {("a", 1): summary.Measured(["p"], whole, on), ("b", 1): summary.Measured(["q"], whole, on)}
    with pytest.raises(InputError, match="b and a: were shown other images; give --out another folder"):
        campaign.result([summary.Row("b", "", campaign.BASE, ("a",))], measured, chosen)
    found = chosen.out / "without.json"
    given = ["--camvid", str(camvid), "--weights", str(chosen.out / "both-1/best.safetensors"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["without.py", *given, "--json", str(found)])
    load("without").main()
    told = json.loads(found.read_text())
    assert told["miou"] == pytest.approx(on["miou"])
    assert told["rows"][-1]["miou"] == pytest.approx(off["miou"])
    assert [row["off"] for row in told["rows"]] == [["position"], ["channel"], ["position", "channel"]]
    monkeypatch.setattr("sys.argv", ["without.py", *given, "--window", "32", "--json", str(found)])
    load("without").main()
    windowed = json.loads(found.read_text())
    assert windowed["window"] == 32
    assert windowed["miou"] != told["miou"]


def test_the_ablation_is_the_papers_on_an_equal_recipe(campaign, load, camvid):
    rows = {row.name: row for row in load("ablation").rows(campaign.base(options(campaign, camvid)))}
    modules = {name: (row.recipe.network.position, row.recipe.network.channel) for name, row in rows.items()}
    assert modules["fcn"] == (False, False)
    assert modules["position"] == (True, False)
    assert modules["channel"] == modules["channel-eq3"] == (False, True)
    assert {name for name, row in rows.items() if row.recipe.network.channel_form == "paper"} == {
        "channel-eq3",
        "both-eq3",
    }
    assert rows["multi-grid"].recipe.network.layer4_dilations == (2, 4, 8)  # 4, 8, 16 at stride 8
    assert rows["multi-scale"].run == "multi-grid"
    assert rows["scaling"].recipe.data.scale == pytest.approx((0.6, 1.6))
    plain = replace(rows["both"].recipe.network, position=False, channel=False)
    assert replace(rows["both"].recipe, network=plain) == rows["fcn"].recipe
    halves = campaign.base(options(campaign, camvid, "--precision", "bf16"))
    assert {row.recipe.optim.precision for row in load("ablation").rows(halves)} == {"bf16"}
    lite = options(campaign, camvid)
    lite.backbone = "tf_efficientnet_lite0"
    rows = {row.name: row for row in load("ablation").rows(campaign.base(lite))}
    assert "multi-grid needs the layer4 of a ResNet" in rows["multi-grid"].left_out
    assert rows["multi-scale"].run == "scaling"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--only", "psp"), "--only: psp is no row; use fcn, position"),
        (("--seeds", "0"), "--seeds: 0 is not from 1 to 10"),
    ],
)
def test_options_that_cannot_be_are_refused(campaign, load, camvid, more, message):
    chosen = options(campaign, camvid, *more)
    with pytest.raises(InputError, match=message):
        campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)


def test_the_baselines_are_trained_and_timed_side_by_side(campaign, load, camvid, monkeypatch, tmp_path, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    baselines, plots = load("baselines"), load("plots")
    monkeypatch.setattr(baselines, "BASELINES", ("PSPNet",))
    monkeypatch.setattr(baselines, "REPEATS", 2)
    monkeypatch.setattr(baselines, "peak_memory", lambda prepare, *args: prepare(*args)() and 5_000_000)
    line = [
        "baselines.py",
        "--camvid",
        str(camvid),
        "--out",
        str(tmp_path / "runs"),
        "--json",
        str(tmp_path / "baselines.json"),
    ]
    monkeypatch.setattr("sys.argv", [*line, "--backbone", "test_resnet", "--device", "cpu"])
    baselines.main()
    said = capsys.readouterr().out
    assert "5 MB above" in said
    result = json.loads((tmp_path / "baselines.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["pspnet", "both-8", "fcn", "both"]
    assert all(row["speed"]["images_per_s"] > 0 for row in result["rows"])
    assert [entry["against"] for entry in result["rows"][0]["differences"]] == ["both"]
    drawing = plots.drawn(tmp_path)
    assert list(drawing) == ["baselines.svg"]
    assert plots.drawn(tmp_path) == drawing
    texts = " ".join(e.text or "" for e in ElementTree.fromstring(drawing["baselines.svg"]).iter())
    assert "PSPNet" in texts
    assert "64 x 48" in texts


def test_networks_are_shown_the_same_corrupted_images(campaign, load, camvid, monkeypatch, tmp_path, capsys):
    chosen = options(campaign, camvid, "--only", "fcn", "both", "both-off")
    campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)
    study = load("robustness")
    monkeypatch.setattr(study, "CONDITIONS", study.conditions_of(tuple(study.CORRUPTIONS), (5,)))
    monkeypatch.setattr(study, "SEVERITIES", (5,))
    file = tmp_path / "robustness.json"
    given = [
        "robustness.py",
        "--camvid",
        str(camvid),
        "--runs",
        str(chosen.out),
        "--json",
        str(file),
        "--device",
        "cpu",
    ]
    monkeypatch.setattr("sys.argv", given)
    study.main()
    assert "fcn-1 is shown\nboth-1 is shown\nboth-off-1 is shown\nmIoU %" in capsys.readouterr().out
    fcn, both, off = json.loads(file.read_text())["networks"]
    assert (fcn["name"], both["name"], both["seeds"]) == ("fcn", "both", [1])
    runs = {run["name"]: run for run in campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)["runs"]}
    shown = {network["name"]: network["clean"] for network in (fcn, both, off)}
    assert shown == pytest.approx({name: runs[name]["miou"] for name in ("fcn", "both", "both-off")})
    corrupted = [value for values in both["corruptions"].values() for value in values]
    assert len(corrupted) == len(study.CORRUPTIONS)
    assert both["mean_miou"] == pytest.approx(np.mean(corrupted))
    assert (fcn["differences"], fcn["mean_degradation"]) == ([], 1)
    differences = [both["differences"][0], off["differences"][1]]
    assert [difference["against"] for difference in differences] == ["fcn", "both"]
    for difference, (own, other) in zip(differences, ((both, fcn), (off, both)), strict=True):
        assert difference["mean"] == pytest.approx(own["mean_miou"] - other["mean_miou"])
        assert difference["mean_clean"] == pytest.approx(own["clean"] - other["clean"])
        assert difference["by_images_95"][0] <= difference["mean"] <= difference["by_images_95"][1]
    lost = [1 - np.array(list(network["corruptions"].values())) for network in (both, fcn)]
    assert both["mean_degradation"] == pytest.approx((lost[0].sum(1) / lost[1].sum(1)).mean())
    monkeypatch.setattr(study, "study", None)  # the counts are kept
    study.main()
    assert list(load("plots").drawn(tmp_path)) == ["robustness.svg"]
    monkeypatch.setattr("sys.argv", [*given[:4], str(tmp_path)])
    with pytest.raises(InputError, match="holds no finished fcn-1"):
        study.main()


def test_the_ablations_bars_are_as_long_as_its_gains(load, tmp_path):
    def row(name: str, miou: float, gain: float, **more) -> dict:
        difference = {"against": "fcn", "mean": gain, "of_each": [gain]}
        difference |= {"by_seeds_95": None, "by_images_95": [gain - 0.01, gain + 0.01]}
        entries = {
            "name": name,
            "about": name,
            "miou": miou,
            "published": {},
            "seeds": [1],
            "differences": [difference],
        }
        return entries | more

    fcn = row("fcn", 0.5, 0.0, differences=[], published={"ResNet-50": 70.0})
    rows = [fcn, row("a < b", 0.52, 0.02, published={"ResNet-50": 74.0}), row("worse", 0.49, -0.01)]
    (tmp_path / "ablation.json").write_text(json.dumps({"rows": [*rows, row("later", 0, 0) | {"miou": None}]}))
    (content,) = load("plots").drawn(tmp_path).values()
    image = ElementTree.fromstring(content)
    _, zero, better, worse = (e for e in image.iter() if e.tag.endswith("rect"))
    widths = [float(e.get("width", "")) for e in (zero, better, worse)]
    assert widths == pytest.approx([0, widths[1], widths[1] / 2], abs=0.2)
    assert float(worse.get("x", "")) < float(better.get("x", "")) == float(zero.get("x", ""))
    circle = next(e for e in image.iter() if e.tag.endswith("circle"))
    start = float(better.get("x", ""))
    assert float(circle.get("cx", "")) - start == pytest.approx(2 * widths[1], abs=0.3)
    assert "later" not in content.decode()
    assert "over the images. One seed." in content.decode()
    of_two = {"against": "fcn", "mean": 0.02, "of_each": [0.01, 0.03]}
    of_two |= {"by_seeds_95": [-0.1, 0.14], "by_images_95": [0.018, 0.022]}
    rows = [fcn | {"seeds": [1, 2]}, row("two", 0.52, 0, seeds=[1, 2], differences=[of_two])]
    (tmp_path / "ablation.json").write_text(json.dumps({"rows": rows}))
    (content,) = load("plots").drawn(tmp_path).values()
    dots = [e for e in ElementTree.fromstring(content).iter() if e.get("r") == "3"]
    assert len(dots) == 2  # and an interval by two seeds, t 12.7, is not drawn
    assert "over the images. Dots: each seed." in content.decode()


def test_the_plots_in_docs_are_those_of_the_committed_numbers(load):
    plots = load("plots")
    for name, content in plots.drawn(plots.RESULTS).items():
        assert (plots.DOCS / name).read_bytes() == content, f"run python -m benchmarks.plots: {name} is older"


def test_the_model_card_is_that_of_the_weights_and_of_their_evaluation(load, tmp_path):
    card = load("model_card")
    measured = json.loads(card.EVALUATION.read_text())
    text = card.page(weights_file.DEFAULT, measured)
    assert card.PAGE.read_text() == text, "evaluate danet/default.safetensors again, see benchmarks/model_card.py"
    assert f"mIoU {100 * measured['miou']:.1f} %" in text
    with pytest.raises(InputError, match=r"measures other weights than default\.safetensors"):
        card.page(weights_file.DEFAULT, measured | {"sha256": "0"})
