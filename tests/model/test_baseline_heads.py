"""The baselines written from their papers: shapes, gradients, parameters, and their attention by plain formulas."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import danet
from danet import recipes
from danet.data.datasets import synthetic
from danet.model.baselines import ARCHITECTURES, Baseline, build_network
from danet.model.baselines.baseline import HeadOptions
from danet.model.baselines.ccnet import CrissCrossAttention
from danet.model.baselines.dnl import DisentangledNonLocal
from danet.model.baselines.emanet import EMAU
from danet.model.baselines.encnet import Encoding
from danet.model.baselines.fcn8s import FCN8s
from danet.model.baselines.gcnet import GlobalContext
from danet.model.danet import TrainingOutputs
from danet.model.loss import multi_loss, presence_loss
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.weights.export import Graph, export

OURS = [name for name in ARCHITECTURES if not name.startswith("smp:") and name not in ("danet", "dranet")]
FURTHER = {"encnet": ["presence"], "ocrnet": ["auxiliary"], "bisenet": ["auxiliary"]}


def tiny(architecture: str, **changes) -> Baseline:
    network = build_network(
        architecture, **{"num_classes": 5, "backbone": "test_resnet", "output_stride": 16, **changes}
    )
    assert isinstance(network, Baseline)
    return network


@pytest.mark.parametrize("architecture", OURS)
def test_heads_keep_the_size_and_train_every_parameter(architecture):
    network = tiny(architecture)
    for parameter in network.parameters():
        if not parameter.any():  # some blocks start as the identity
            nn.init.constant_(parameter, 0.5)
    images, labels = torch.randn(2, 3, 70, 97), torch.randint(0, 5, (2, 70, 97))
    outputs = network(images)
    assert outputs.fused.shape == (2, 5, 70, 97)
    loss, parts = multi_loss(outputs, labels)
    assert list(parts) == ["fused", *FURTHER.get(architecture, [])]
    loss.backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in unused if name != "head.block.weight.bias"] == []  # which GCNet's softmax cancels


@pytest.mark.parametrize("architecture", OURS)
def test_logits_are_those_of_the_images_before_upsampling(architecture):
    network, images = tiny(architecture, align_corners=False).eval(), torch.randn(1, 3, 50, 67)
    up = F.interpolate(network.logits(images).fused, (50, 67), mode="bilinear", align_corners=False)
    assert torch.equal(network(images).fused, up)


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        # the released ResNet-101 network, 21 classes: four convolutions 2048 -> 21
        ("deeplabv2", 4 * (2048 * 9 * 19 + 19)),
        # those of mmsegmentation 1.4.2; with the same weights the outputs are the same
        ("ccnet", 23_934_100),
        ("dnl", 24_132_372),
        ("gcnet", 23_738_260),
        ("encnet", 10_000_006),
        ("ocrnet", 12_996_902),  # with the FCN head on layer3 that predicts the regions
        # the released network.py
        ("emanet", 11_149_075),
        # the released DenseASPP.py from its last transition on, for 2,048 features
        ("denseaspp", 8_379_923),
    ],
)
def test_parameter_counts_equal_the_released_heads(architecture, parameters):
    with torch.device("meta"):
        network = build_network(architecture, num_classes=19, backbone="resnet50")
    assert isinstance(network, Baseline)
    assert sum(p.numel() for p in network.head.parameters()) == parameters
    assert sum(p.numel() for p in network.backbone.parameters()) == 23_508_032


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return softmax(query key^T) value over the allowed pairs N,N; all B,N,C."""
    return (query @ key.transpose(1, 2)).masked_fill(~allowed, -torch.inf).softmax(2) @ value


def test_criss_cross_attention_is_attention_to_row_and_column_twice():
    block, x = CrissCrossAttention(8).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    nn.init.constant_(block.scale, 0.7)
    rows, columns = torch.arange(12) // 4, torch.arange(12) % 4
    cross = (rows[:, None] == rows) | (columns[:, None] == columns)
    expected = x
    for _ in range(2):
        parts = (layer(expected).flatten(2).transpose(1, 2) for layer in (block.query, block.key, block.value))
        expected = expected + 0.7 * attend(*parts, cross).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(block(x), expected)


def test_disentangled_attention_does_not_see_a_common_query_or_key():
    block, x = DisentangledNonLocal(8).double().eval(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    nn.init.constant_(block.out[1].weight, 1)
    before = block(x)
    assert not torch.allclose(before, x)
    for layer in (block.query, block.key):
        nn.init.constant_(layer.bias, 3.0)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(block(x), before)


def test_global_context_is_the_same_for_all_positions():
    block, x = GlobalContext(8).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    assert torch.equal(block(x), x)  # the identity at the start
    nn.init.normal_(block.transform[-1].weight)
    context = block(x) - x
    torch.testing.assert_close(context, context[..., :1, :1].expand_as(x))
    assert context.abs().max() > 0.01


def test_encoding_equals_the_sum_of_weighted_residuals():
    layer, x = Encoding(6).double(), torch.randn(2, 10, 6, dtype=torch.float64)
    residuals = x[:, :, None] - layer.codewords  # B,N,M,c
    weights = (layer.scale * residuals.square().sum(3)).softmax(2)
    torch.testing.assert_close(layer(x), (weights[..., None] * residuals).sum(1))


def test_bases_of_emanet_move_only_in_training():
    unit, x = EMAU(8), torch.randn(2, 8, 5, 6)
    start = unit.bases.clone()
    unit.eval()(x)
    assert torch.equal(unit.bases, start)
    unit.train()(x)
    moved = unit.bases - start
    assert 0 < moved.norm(dim=2).max() <= 0.1 * 2 + 1e-6  # momentum 0.9 towards unit vectors


def test_upsampling_of_fcn8s_starts_as_bilinear():
    head = FCN8s(HeadOptions((3, 4, 4, 4), 2, 4, 0.0, 32, False))
    x = torch.randn(1, 2, 5, 6)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(head.up8(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_presence_loss_is_the_mean_cross_entropy_of_the_classes_present():
    labels = torch.tensor([[[0, 2], [255, 2]], [[255, 255], [255, 255]]])
    presence = torch.tensor([[1.0, -2.0, 0.5], [9.0, 9.0, 9.0]])
    present = torch.tensor([1.0, 0.0, 1.0])
    expected = F.binary_cross_entropy_with_logits(presence[0], present) * 3  # three valid pixels
    torch.testing.assert_close(presence_loss(presence, labels), expected)


@pytest.mark.parametrize("architecture", ["smp:PSPNet", "ccnet"])
def test_auxiliary_head_is_trained_only_if_asked_for(architecture):
    pytest.importorskip("segmentation_models_pytorch")
    images = torch.randn(2, 3, 64, 64)
    outputs = tiny(architecture, auxiliary=True)(images)
    assert isinstance(outputs, TrainingOutputs)
    assert outputs.auxiliary is not None
    assert outputs.auxiliary.shape == outputs.fused.shape
    assert not isinstance(tiny(architecture)(images), TrainingOutputs)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in ("danet", "dranet")])
def test_every_baseline_trains_loads_and_is_exported(architecture, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})
    network = replace(recipes.TOY.network, output_stride=16, architecture=architecture)
    recipe = replace(recipes.TOY, data=replace(recipes.TOY.data, batch=4, crop=(64, 64)), network=network)
    train(recipe, RunOptions(tmp_path / "run", workers=0))
    best = tmp_path / "run/best.safetensors"
    assert danet.load(best, "cpu").card.network["architecture"] == architecture
    fixed = Graph((64, 64) if architecture == "smp:PSPNet" else None)  # its pooling has a grid of the image's size
    assert export(best, tmp_path / "net.onnx", "onnx", graph=fixed).good
