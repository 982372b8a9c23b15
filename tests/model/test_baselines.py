"""The baselines, from training to prediction."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.data import registry
from danet.data.datasets import synthetic
from danet.model.backbone import load_backbone
from danet.model.baselines import ARCHITECTURES, Baseline, build_network
from danet.model.danet import DANet
from danet.model.loss import multi_loss
from danet.train.dry_run import describe
from danet.train.estimate import estimate
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.weights import file as weights_file

pytest.importorskip("segmentation_models_pytorch")

EVERY = [name for name in ARCHITECTURES if name.startswith("smp:")]
BASELINES = ["smp:PSPNet", "smp:DeepLabV3", "smp:DeepLabV3Plus", "smp:UPerNet"]
WITHOUT_SIGNAL = {"smp:PAN": "fpa.down3", "smp:MAnet": "SE_"}
"""Parameters without a gradient on small maps: a bias before normalization; few channels, all negative."""


def tiny(architecture: str, **changes) -> Baseline:
    arguments = {"num_classes": 5, "backbone": "test_resnet", "output_stride": 16, **changes}
    network = build_network(architecture, **arguments)
    assert isinstance(network, Baseline)
    return network


def small_recipe(architecture: str, **optim) -> recipes.Recipe:
    """Two steps on synthetic scenes."""
    return replace(
        recipes.TOY,
        data=replace(recipes.TOY.data, batch=4, crop=(64, 64)),
        network=replace(recipes.TOY.network, output_stride=16, architecture=architecture),
        optim=replace(recipes.TOY.optim, ema=0.5, **optim),
    )


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})


@pytest.mark.parametrize("architecture", EVERY)
def test_baseline_keeps_any_size_and_trains_every_parameter(architecture):
    network = tiny(architecture)
    for parameter in network.parameters():
        if not parameter.any():  # timm's last normalization of each block starts at 0
            nn.init.constant_(parameter, 0.5)
    images, labels = torch.randn(2, 3, 70, 97), torch.randint(0, 5, (2, 70, 97))
    outputs = network(images)
    assert outputs.fused.shape == (2, 5, 70, 97)
    assert outputs.position is outputs.channel is None
    loss, parts = multi_loss(outputs, labels)
    assert list(parts) == ["fused"]
    assert loss.item() == pytest.approx(F.cross_entropy(outputs.fused, labels).item(), rel=1e-5)
    loss.backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in unreached if WITHOUT_SIGNAL.get(architecture, "?") not in name] == []


@pytest.mark.parametrize("architecture", BASELINES)
def test_padding_is_cropped_from_the_logits(architecture):
    network, images = tiny(architecture).eval(), torch.randn(1, 3, 60, 96)
    assert network.multiple == (32 if architecture == "smp:UPerNet" else 16)
    padded = F.pad(images, (0, 0, 0, 4))
    assert torch.equal(network(images).fused, network(padded).fused[..., :60, :])
    small = network.head([padded, *network.backbone(padded)])
    corners = F.interpolate(small, (64, 96), mode="bilinear", align_corners=True)
    assert torch.equal(network(padded).fused, corners)


@pytest.mark.parametrize(("architecture", "stride"), [(name, 8) for name in BASELINES] + [("smp:PSPNet", 16)])
def test_baseline_has_the_same_backbone_as_danet(architecture, stride):
    network = tiny(architecture, output_stride=stride, align_corners=False).eval()
    ours = DANet(5, "test_resnet", output_stride=stride)
    state = ours.backbone.state_dict()
    first = next(iter(state))
    assert not torch.equal(network.backbone.state_dict()[first], state[first])
    load_backbone(network.backbone, "test_resnet", state, "file")
    if architecture != "smp:UPerNet":  # its backbone has stride 32
        images = torch.randn(1, 3, 64, 64)
        assert torch.equal(network.backbone(images)[-1], ours.eval().backbone(images)[-1])
    assert network.backbone.state_dict().keys() == state.keys()


def test_deeplab_rates_are_those_of_its_paper():
    for stride, rates in ((8, {12, 24, 36}), (16, {6, 12, 18})):
        for architecture in ("smp:DeepLabV3", "smp:DeepLabV3Plus"):
            convolutions = [
                m for m in tiny(architecture, output_stride=stride).head.modules() if isinstance(m, nn.Conv2d)
            ]
            assert {m.dilation[0] for m in convolutions} == {1, *rates}


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("smp:PSPNt", {}, r"architecture: 'smp:PSPNt' is unknown; did you mean smp:PSPNet\?"),
        ("xyz", {}, "is unknown; use danet, dranet, fcn8s"),
        (
            "smp:DeepLabV3",
            {"output_stride": 32},
            "architecture: cannot build smp:DeepLabV3 .* use `output_stride` 8 or 16",
        ),
        ("smp:PAN", {"output_stride": 8}, "architecture: cannot build smp:PAN .* use `output_stride` 16"),
        ("smp:PSPNet", {"backbone": "resnt50"}, "did you mean .*resnet50"),
        ("smp:UPerNet", {"backbone": "vit_tiny_patch16_224"}, "backbone: .*'vit_tiny_patch16_224'"),
    ],
)
def test_invalid_arguments_are_errors(architecture, changes, message):
    with pytest.raises(InputError, match=message):
        tiny(architecture, **changes)


def test_missing_package_error_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    assert main(["train", "toy", "--dry-run", "--network.architecture", "smp:UPerNet"]) == 2
    assert capsys.readouterr().err == (
        "error: --network.architecture: smp:UPerNet needs the package segmentation-models-pytorch; "
        "in a clone of danet, run: uv sync --extra compare\n"
    )


def test_baseline_works_in_all_commands_but_look(tmp_path, monkeypatch, capsys):
    """test_export.py exports one."""
    monkeypatch.chdir(tmp_path)
    small = ["--data.crop", "64", "64", "--network.output-stride", "16", "--workers", "0"]
    assert main(["train", "toy", "--network.architecture", "smp:PSPNet", "--out", "run", *small]) == 0
    best = "run/best.safetensors"
    _, card = weights_file.read(Path(best))
    assert card.network["architecture"] == "smp:PSPNet"
    assert main(["evaluate", best, "--dataset", "toy", "--json", "scores.json"]) == 0
    assert json.loads(Path("scores.json").read_text())["miou"] == pytest.approx(card.metrics["miou"], abs=0.01)
    scene = Path("scene.png")
    Image.fromarray(registry.load("toy", None, "val")[0].image).save(scene)
    assert main(["predict", str(scene), "--weights", best, "--out", "out"]) == 0
    assert (tmp_path / "out/scene_overlay.png").exists()
    capsys.readouterr()
    assert main(["look", str(scene), "--weights", best]) == 2
    assert "--weights: an exported model or a baseline has no attention to inspect" in capsys.readouterr().err
    shutil.copytree("run", "copy")
    assert main(["report", "run", "copy", "--out", "both.html"]) == 0
    page = Path("both.html").read_text()
    assert "smp:PSPNet" in page
    assert "position and channel" not in page


def test_predictor_of_a_baseline_folds_batchnorm(tmp_path):
    train(small_recipe("smp:DeepLabV3Plus"), RunOptions(tmp_path / "run", workers=0))
    predictor = danet.load(tmp_path / "run/best.safetensors", "cpu")
    images = torch.randn(1, 3, 64, 80)
    with torch.inference_mode():
        expected, found = predictor.network(images).fused, predictor.logits(images)  # pyright: ignore
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (predictor.network, predictor.folded)]  # pyright: ignore
    assert norms[1] < norms[0]


@pytest.mark.parametrize("architecture", BASELINES)
def test_estimate_counts_a_baseline(architecture):
    recipe = small_recipe(architecture)
    cost = estimate(recipe, 6)
    network = tiny(architecture, num_classes=6)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.backbone == sum(p.numel() for p in network.backbone.parameters())
    assert cost.grid == ((2, 2) if architecture == "smp:UPerNet" else (4, 4))
    assert architecture in describe(recipe)


def test_one_image_per_step_is_too_few_for_pooling(tmp_path):
    with pytest.raises(InputError, match=r"data\.batch: one image at a time is too few"):
        train(small_recipe("smp:DeepLabV3", accumulate=4), RunOptions(tmp_path / "run", workers=0))
