"""The comparisons on CamVid with a few small images, and the plots of the committed results."""

import importlib
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import danet
from danet import InputError, recipes
from danet.files import write_json
from danet.model.baselines import ARCHITECTURES
from danet.train import loop
from danet.weights import file as weights_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load():
    """Return a function that imports a module of benchmarks/."""
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def campaign(load, monkeypatch):
    """Return the module with a recipe of two steps, and without a page at the end, which takes longer than these."""
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    module = load("campaign")
    small = replace(
        module.BASE,
        network=replace(module.BASE.network, backbone="test_resnet", width=16, pretrained=False),
        data=replace(module.BASE.data, batch=2, crop=(32, 32), size=64),
        optim=replace(module.BASE.optim, epochs=1, warmup=0),
    )
    monkeypatch.setattr(module, "BASE", small)
    monkeypatch.setattr(module, "RunOptions", partial(module.RunOptions, workers=0))
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


def options(campaign, camvid, **more):
    return campaign.Options(camvid, out=camvid.parent / "runs", backbone="test_resnet", device="cpu", **more)


def test_interval_over_seeds_equals_students_t(load):
    intervals = load("intervals")
    from scipy.special import stdtrit

    assert intervals.by_seeds([0.3]) is None
    for count in range(2, 11):
        gains = np.random.default_rng(count).normal(1, 2, count)
        half = stdtrit(count - 1, 0.975) * gains.std(ddof=1) / count**0.5
        assert intervals.by_seeds(gains.tolist()) == pytest.approx((gains.mean() - half, gains.mean() + half), rel=1e-3)


def test_a_killed_campaign_resumes_with_the_same_result(campaign, load, camvid, monkeypatch):
    only, file = ("fcn", "multi-grid", "multi-scale"), camvid.parent / "ablation.json"
    chosen = options(campaign, camvid, only=only, seeds=2, json=file)
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
    assert [run["name"] for run in json.loads(file.read_text())["runs"]] == ["fcn"]
    result = campaign.run(rows, chosen)
    assert len(steps) == 4 + 2 * 3  # only the killed run was repeated
    assert [(run["name"], run["seed"]) for run in result["runs"]] == [
        (name, seed) for seed in (1, 2) for name in ("fcn", "multi-grid", "multi-scale")
    ]
    assert {path.name for path in chosen.out.iterdir()} == {"fcn-1", "fcn-2", "multi-grid-1", "multi-grid-2"}
    assert json.loads(file.read_text())["runs"] == result["runs"]
    monkeypatch.setattr(campaign, "train", None)
    (killed / "whole.npz").unlink()
    again = campaign.run(rows, chosen)
    assert again["runs"] == result["runs"]
    assert len(steps) == 10
    check_rows(load("summary"), result)
    chosen = replace(chosen, epochs=2, json=None)
    with pytest.raises(InputError, match="fcn-1: contains a run of another recipe; choose another `out`"):
        campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)


def check_rows(summary, result: dict) -> None:
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["position"]["miou"] is None
    assert rows["fcn"]["published"] == {"ResNet-50": 70.03, "ResNet-101": 72.54}
    assert rows["multi-scale"]["published"] == {"ResNet-101": 81.5}
    assert rows["fcn"]["differences"] == []
    assert rows["fcn"]["scales"] == {}
    assert rows["multi-grid"]["scales"].keys() == {"position", "channel"}
    gain, tested = (rows[name]["differences"][0] for name in ("multi-grid", "multi-scale"))
    assert gain["against"] == tested["against"] == "fcn"
    assert gain["mean"] == pytest.approx(rows["multi-grid"]["miou"] - rows["fcn"]["miou"])
    assert gain["by_seeds_95"][0] <= gain["mean"] <= gain["by_seeds_95"][1]
    assert gain["by_images_95"][0] <= gain["by_images_95"][1]
    assert [entry["against"] for entry in rows["multi-scale"]["differences"]] == ["fcn", "multi-grid"]
    text = summary.table(result)
    assert "70.03 / 72.54" in text
    assert "alpha +0.00 beta +0.00" in text.replace("-0.00", "+0.00")
    assert "not run yet" in text


def test_attention_is_switched_off_only_at_test_time(campaign, load, camvid, monkeypatch):
    chosen = options(campaign, camvid, only=("both", "both-off"))

    original_load = danet.load

    def load_with_attention(*args):
        predictor = original_load(*args)
        for module in ("position", "channel"):
            predictor.folded.get_parameter(f"{module}.attention.scale").data.fill_(3)
        return predictor

    monkeypatch.setattr(danet, "load", load_with_attention)
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
    with pytest.raises(InputError, match="b and a: evaluated on different images; choose another `out`"):
        campaign.result([summary.Row("b", "", campaign.BASE, ("a",))], measured, chosen)
    without_attention = load("without")
    whole_images = without_attention.Options(camvid, chosen.out / "both-1/best.safetensors", device="cpu")
    result = json.loads(json.dumps(without_attention.run(whole_images)))
    assert result["miou"] == pytest.approx(on["miou"])
    assert result["rows"][-1]["miou"] == pytest.approx(off["miou"])
    assert [row["off"] for row in result["rows"]] == [["position"], ["channel"], ["position", "channel"]]
    assert "without position and channel" in without_attention.table(result)
    windows = without_attention.run(replace(whole_images, window=32))
    assert windows["window"] == 32
    assert windows["miou"] != result["miou"]
    twin = without_attention.run(replace(whole_images, twin=chosen.out / "both-1/best.safetensors"))
    assert twin["rows"][-1]["difference"] == 0
    assert "twin, trained without" in without_attention.table(twin)


def test_twins_differ_from_their_rows_only_in_the_rate_of_attention(campaign, load, camvid):
    rows = {row.name: row.recipe for row in load("twins").rows(campaign.base(options(campaign, camvid)))}
    for name, twin in (("paper", "twin"), ("decoder", "decoder-twin"), ("frozen", "frozen-twin")):
        optim = replace(rows[name].optim, attention_lr_factor=0.0)
        assert rows[twin] == replace(rows[name], optim=optim)
    assert rows["all"] == rows["all-off"] == replace(rows["started"], loss=recipes.Loss(attention=0.4))
    assert rows["decoder-supervised"].network == replace(rows["all"].network, decoder=True)
    for name, slow in (("decoder-twin", "slow-twin"), ("decoder-supervised", "slow-supervised")):
        fast, other = rows[name].optim, rows[slow].optim
        assert other.lr == pytest.approx(fast.lr / 10)
        assert other.lr * other.head_lr_factor == pytest.approx(fast.lr * fast.head_lr_factor)
        same = replace(other, lr=fast.lr, head_lr_factor=fast.head_lr_factor)
        assert rows[name] == replace(rows[slow], optim=same)
    for name in ("decoder", "decoder-twin", "decoder-supervised"):
        optim = replace(rows[name].optim, freeze="backbone")
        assert rows[name.replace("decoder", "frozen")] == replace(rows[name], optim=optim)
    assert {recipe.optim.epochs for recipe in rows.values()} == {rows["twin"].optim.epochs}


def test_ablation_rows_differ_only_as_in_the_paper(campaign, load, camvid):
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
    halves = campaign.base(options(campaign, camvid, precision="bfloat16"))
    assert {row.recipe.optim.precision for row in load("ablation").rows(halves)} == {"bfloat16"}
    lite = replace(options(campaign, camvid), backbone="tf_efficientnet_lite0")
    rows = {row.name: row for row in load("ablation").rows(campaign.base(lite))}
    assert "multi-grid needs the layer4 of a ResNet" in rows["multi-grid"].left_out
    assert rows["multi-scale"].run == "scaling"


def test_any_folder_can_be_compared_on_at_its_own_size(campaign, load, camvid):
    (camvid / "labels").rename(camvid / "masks")
    (camvid / "dataset.yaml").write_text(f"classes: [{', '.join(f'c{i}' for i in range(12))}]")
    chosen = options(campaign, camvid, dataset="folder", only=("decoder-supervised",))
    result = campaign.run(load("twins").rows(campaign.base(chosen)), chosen)
    assert result["images"] == {"train": 4, "val": 3}
    assert (result["recipe"]["data"]["scale"], result["recipe"]["data"]["size"]) == ([1.0, 1.0], None)
    assert [run["name"] for run in result["runs"]] == ["decoder-supervised"]
    assert result["runs"][0]["scales"].keys() == {"position", "channel"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"only": ("psp",)}, "only: psp is unknown; use fcn, position"),
        ({"seeds": 0}, "seeds: must be from 1 to 10, got 0"),
    ],
)
def test_invalid_options_are_rejected(campaign, load, camvid, more, message):
    chosen = options(campaign, camvid, **more)
    with pytest.raises(InputError, match=message):
        campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)


def test_baselines_are_trained_timed_and_plotted(campaign, load, camvid, monkeypatch, tmp_path, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    baselines, plots = load("baselines"), load("plots")
    monkeypatch.setattr(baselines, "BASELINES", {"smp:PSPNet": "PSPNet"})
    monkeypatch.setattr(baselines, "REPEATS", 2)
    monkeypatch.setattr(baselines, "peak_memory", lambda prepare, *args: prepare(*args)() and 5_000_000)
    args = ["--root", str(camvid), "--out", str(tmp_path / "runs"), "--json", str(tmp_path / "baselines.json")]
    args += ["--backbone", "test_resnet", "--device", "cpu"]
    command = load("command").main
    assert command("baselines", campaign.Options, baselines.run, baselines.table, args=args, overwrite=True) == 0
    assert "peak 5 MB" in capsys.readouterr().out
    result = json.loads((tmp_path / "baselines.json").read_text())
    assert [row["name"] for row in result["rows"]] == [
        "pspnet",
        "both-8",
        "decoder",
        "decoder-128",
        "decoder-2",
        "dranet",
        "robust",
        "robust-decoder",
        "fcn",
        "both",
    ]
    assert all(row["speed"]["images_per_s"] > 0 for row in result["rows"])
    assert [entry["against"] for entry in result["rows"][0]["differences"]] == ["both"]
    drawings = plots.draw_all(tmp_path)
    assert list(drawings) == ["baselines.svg"]
    assert plots.draw_all(tmp_path) == drawings
    assert b"PSPNet" in drawings["baselines.svg"]
    assert b"64 x 48" in drawings["baselines.svg"]


def test_rows_without_runs_keep_what_the_file_has_of_them(campaign, load, camvid, tmp_path):
    rows, file = load("ablation").rows, tmp_path / "result.json"
    first, second = (
        options(campaign, camvid, only=(name,), json=file, epochs=1, threads=1) for name in ("fcn", "position")
    )
    write_json(file, campaign.run(rows(campaign.base(first)), first))
    (first.out / "fcn-1").rename(tmp_path / "elsewhere")
    result = campaign.run(rows(campaign.base(second)), second)
    assert [row["name"] for row in result["rows"] if row["miou"] is not None] == ["fcn", "position"]
    assert [run["name"] for run in result["runs"]] == ["fcn", "position"]
    longer = replace(second, epochs=2)
    with pytest.raises(InputError, match="contains results of another recipe"):
        campaign.run(rows(campaign.base(longer)), longer)
    for content in ("{", "[]", "{}"):
        file.write_text(content)
        with pytest.raises(InputError, match="is not the result of a campaign"):
            campaign.run(rows(campaign.base(second)), second)


def test_every_baseline_has_a_row(campaign, load):
    rows = load("baselines").rows(campaign.BASE)
    named = {row.recipe.network.architecture for row in rows if row.recipe is not None}
    assert named == set(ARCHITECTURES)
    assert len({row.name for row in rows}) == len(rows)


def test_networks_are_compared_on_the_same_corrupted_images(campaign, load, camvid, monkeypatch, tmp_path, capsys):
    chosen = options(campaign, camvid, only=("fcn", "both", "both-off"))
    campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)
    robustness, command = load("robustness"), load("command").main
    monkeypatch.setattr(robustness, "CONDITIONS", robustness.list_conditions(tuple(robustness.CORRUPTIONS), (5,)))
    file = tmp_path / "robustness.json"
    args = ["--camvid", str(camvid), "--runs", str(chosen.out), "--json", str(file), "--device", "cpu"]
    benchmark = "robustness", robustness.Options, robustness.run, robustness.table
    assert command(*benchmark, args=args, overwrite=True) == 0
    expected = "fcn-1 is evaluated\nboth-1 is evaluated\nboth-off-1 is evaluated\nmIoU, %"
    assert expected in capsys.readouterr().out
    fcn, both, off = json.loads(file.read_text())["networks"]
    assert (fcn["name"], both["name"], both["seeds"]) == ("fcn", "both", [1])
    runs = {run["name"]: run for run in campaign.run(load("ablation").rows(campaign.base(chosen)), chosen)["runs"]}
    clean = {network["name"]: network["clean"] for network in (fcn, both, off)}
    assert clean == pytest.approx({name: runs[name]["miou"] for name in ("fcn", "both", "both-off")})
    corrupted = [value for values in both["corruptions"].values() for value in values]
    assert len(corrupted) == len(robustness.CORRUPTIONS)
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
    monkeypatch.setattr(robustness, "evaluate_corrupted", None)  # stored counts are read
    assert command(*benchmark, args=args, overwrite=True) == 0
    assert list(load("plots").draw_all(tmp_path)) == ["robustness.svg"]
    with pytest.raises(InputError, match="contains no finished fcn-1"):
        robustness.run(robustness.Options(camvid, tmp_path))


def test_ablation_plot_shows_gains_intervals_and_seeds(load):
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
    plots = load("plots")
    axes = plots.ablation({"rows": [*rows, row("later", 0, 0) | {"miou": None}]}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0, 2, -1])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["fcn", "a < b", "worse"]
    paper = {line.get_gid(): list(line.get_xdata()) for line in axes.lines}
    assert paper["ResNet-50"] == pytest.approx([4])
    assert "over the images. One seed." in axes.get_xlabel()
    assert "seed" not in paper
    of_two = {"against": "fcn", "mean": 0.02, "of_each": [0.01, 0.03]}
    of_two |= {"by_seeds_95": [-0.1, 0.14], "by_images_95": [0.018, 0.022]}
    rows = [fcn | {"seeds": [1, 2]}, row("two", 0.52, 0, seeds=[1, 2], differences=[of_two])]
    axes = plots.ablation({"rows": rows}).axes[0]
    dots = [list(line.get_xdata()) for line in axes.lines if line.get_gid() == "seed"]
    assert dots == [pytest.approx([1, 3])]
    (interval,) = (bars.get_segments()[0][:, 0] for bars in axes.collections)
    assert interval.tolist() == pytest.approx([1.8, 2.2])  # over the images: with two seeds, t is 12.7
    assert "over the images. Dots: each seed." in axes.get_xlabel()


def test_twins_plot_compares_each_form_with_its_own_twin(load):
    def row(name: str, *gains: float, against: str = "twin") -> dict:
        mean = sum(gains) / max(1, len(gains))
        difference = {"against": against, "mean": mean, "of_each": list(gains)}
        difference |= {"by_seeds_95": [mean - 0.01, mean + 0.01], "by_images_95": [mean, mean]}
        entries = {"name": name, "about": f"form {name}", "miou": 0.5, "seeds": [1, 2, 3]}
        return entries | {"differences": [difference] if gains else []}

    rows = [row("twin"), row("paper", 0.01, 0.02, 0.03), row("all-off", -0.1, -0.1, -0.1, against="all")]
    rows += [row("decoder-twin", 0.07, 0.07, 0.07), row("decoder", 0.04, 0.05, 0.06, against="decoder-twin")]
    axes = load("plots").twins({"rows": rows}, "CamVid").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "form twin", "form paper", "form decoder-twin", "form decoder"
    ]  # fmt: skip
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0, 2, 0, 5])
    assert "on CamVid, points of mIoU" in axes.get_xlabel()
    assert "Lines: 95% interval over 3 seeds. Dots: each seed." in axes.get_xlabel()


def test_plots_in_docs_show_the_committed_results(load):
    plots = load("plots")
    drawings = plots.draw_all(plots.RESULTS)
    assert set(drawings) == {
        "ablation.svg",
        "baselines.svg",
        "cost.svg",
        "robustness.svg",
        "twins.svg",
        "twins_msrc21.svg",
    }
    for name, content in drawings.items():
        committed = (plots.DOCS / name).read_bytes()
        data = re.search(rb"SHA-256 \w{64}", committed)
        assert data is not None
        assert data[0] in content, f"run python -m benchmarks.plots: {name} is out of date"
        if f"Matplotlib v{mpl.__version__},".encode() in committed:
            assert committed == content, f"run python -m benchmarks.plots: {name} is out of date"


def test_model_card_rejects_an_evaluation_of_other_weights(load, monkeypatch):
    card = load("model_card")
    assert f"**mIoU {weights_file.read(weights_file.DEFAULT)[1].metrics['miou']:.1%}**" in card.scores()
    monkeypatch.setattr(card, "read", lambda name: load("markdown").read(name) | {"sha256": "0"})
    with pytest.raises(InputError, match=r"measures other weights than default\.safetensors"):
        card.scores()
