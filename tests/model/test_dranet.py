"""DRANet: sizes, gradients, its pooled centers, backbones, and invalid arguments. Golden outputs: test_golden.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from danet import DANet, DRANet, InputError
from danet.model.baselines import build_network
from danet.model.danet import Outputs, TrainingOutputs
from danet.model.dranet import CENTERS, POOLS, CompactChannelAttention, CompactPositionAttention, center_regions
from danet.model.fold_batchnorm import fold_batchnorm
from danet.model.loss import multi_loss


def tiny(**changes) -> DRANet:
    torch.manual_seed(0)
    return DRANet(**{"num_classes": 5, "backbone": "test_resnet", "width": 32, **changes})


@pytest.mark.parametrize("size", [(7, 7), (33, 65), (64, 48)])
def test_logits_have_the_size_of_the_input_and_stride_4_before(size):
    network, images = tiny().eval(), torch.randn(1, 3, *size)
    outputs, small = network(images), network.logits(images)
    assert isinstance(outputs, Outputs)
    assert outputs.position is outputs.channel is None
    assert small.fused.shape == (1, 5, -(-size[0] // 4), -(-size[1] // 4))
    up = F.interpolate(small.fused, size, mode="bilinear", align_corners=True)
    torch.testing.assert_close(outputs.fused, up)


def test_every_parameter_gets_a_gradient_from_the_two_losses():
    network = tiny(dropout=0.0, initial_scale=0.5)
    for parameter in network.parameters():
        if not parameter.any():  # timm's last normalization of each block starts at 0
            nn.init.constant_(parameter, 0.5)
    outputs, labels = network(torch.randn(2, 3, 64, 64)), torch.randint(0, 5, (2, 64, 64))
    assert isinstance(outputs, TrainingOutputs)
    loss, parts = multi_loss(outputs, labels)
    assert list(parts) == ["fused", "auxiliary"]
    loss.backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a constant added to every key shifts a whole row of energies, which does not change the softmax
    assert [name for name in unused if name != "position.attention.key.bias"] == []


def test_default_network_has_the_released_number_of_parameters():
    with torch.device("meta"):
        network = DRANet(19)
    assert sum(p.numel() for p in network.parameters()) == 73_741_962
    assert network.position.attention.scale.shape == network.channel.attention.scale.shape == ()


def test_attention_modules_start_as_the_identity():
    x = torch.randn(2, 32, 9, 7)
    assert torch.equal(CompactPositionAttention(32)(x), x)
    assert torch.equal(CompactChannelAttention(32)(x), x)


@pytest.mark.parametrize("grid", [(1, 1), (4, 7), (6, 6), (13, 9)])
def test_center_regions_are_the_cells_of_the_adaptive_pools(grid):
    x = torch.randn(2, 3, *grid, dtype=torch.float64)
    regions = center_regions(*grid, x)
    assert regions.shape == (CENTERS, grid[0] * grid[1])
    torch.testing.assert_close(regions.sum(1), torch.ones(CENTERS, dtype=torch.float64))
    pooled = torch.cat([F.adaptive_avg_pool2d(x, side).flatten(2) for side in POOLS], 2)
    torch.testing.assert_close(x.flatten(2) @ regions.T, pooled)


def test_compact_position_attention_is_softmax_over_the_centers():
    module = CompactPositionAttention(16).double().eval()
    nn.init.constant_(module.scale, 0.5)
    x = torch.randn(2, 16, 8, 9, dtype=torch.float64)
    centers = torch.cat(
        [mix(F.adaptive_avg_pool2d(x, side)).flatten(2) for mix, side in zip(module.mix, POOLS, strict=True)], 2
    ).transpose(1, 2)
    weights = torch.softmax(module.query(x).flatten(2).transpose(1, 2) @ module.key(centers).transpose(1, 2), 2)
    expected = 0.5 * (weights @ module.value(centers)).transpose(1, 2).reshape(x.shape) + x
    torch.testing.assert_close(module(x), expected)


def test_compact_channel_attention_prefers_the_least_similar_centers():
    module = CompactChannelAttention(32).eval()
    x = torch.randn(2, 32, 8, 9)
    weights = module.weights(x)
    energies = x.flatten(2) @ module.mix(x).flatten(2).transpose(1, 2)
    assert weights.shape == (2, 32, 2)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 32))
    assert torch.equal(weights.argmax(2), energies.argmin(2))


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_closed_gate_leaves_out_the_first_stage(align_corners):
    decoder = tiny(align_corners=align_corners).eval().decoder
    coarse, (fine, other) = torch.randn(1, 16, 4, 5), torch.randn(2, 1, 32, 8, 10)
    fine, other = (x[:, : decoder.project[0].in_channels] for x in (fine, other))
    assert not torch.allclose(decoder(fine, coarse), decoder(other, coarse))
    nn.init.zeros_(decoder.scale)
    torch.testing.assert_close(decoder(fine, coarse), decoder(other, coarse))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2_100", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("stride", [8, 16])
def test_other_backbones_and_strides_work(backbone, stride):
    network = tiny(backbone=backbone, output_stride=stride, width=None, in_channels=4).eval()
    images = torch.randn(1, 4, 64, 96)
    assert network.logits(images).fused.shape == (1, 5, 16, 24)
    features, (fine,) = network.split(network.backbone(images))
    assert features.shape[2:] == (64 // stride, 96 // stride)
    assert fine.shape[2:] == (16, 24)


def test_bfloat16_and_folded_batchnorm_are_close():
    network, images = tiny(initial_scale=0.1).eval(), torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        expected = network(images).fused
        torch.testing.assert_close(fold_batchnorm(network, images)(images).fused, expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(images).fused
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_attention_can_be_traced_for_any_size():
    module = nn.Sequential(CompactPositionAttention(16), CompactChannelAttention(16)).eval()
    for attention in module:
        nn.init.ones_(attention.scale)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    traced = torch.export.export(module, (torch.randn(2, 16, 9, 13),), dynamic_shapes=[sizes]).module()
    for shape in ((1, 16, 5, 8), (3, 16, 12, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(traced(x), module(x))


def test_one_image_in_training_mode_is_an_error():
    with pytest.raises(InputError, match=r"images: a single image cannot be trained on: .*; use at least two images"):
        tiny()(torch.randn(1, 3, 64, 64))
    assert tiny(auxiliary=False)(torch.randn(2, 3, 64, 64)).fused.shape == (2, 5, 64, 64)


def test_build_network_takes_the_arguments_of_danet():
    arguments = {"num_classes": 5, "backbone": "test_resnet", "width": 32, "auxiliary": False, "initial_scale": 0.1}
    network = build_network("dranet", position=True, channel=True, channel_form="released", decoder=False, **arguments)
    assert isinstance(network, DRANet)
    assert network.auxiliary_head is None
    assert network.position.attention.scale == network.channel.attention.scale == torch.tensor(0.1)
    assert isinstance(build_network("danet", **arguments), DANet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position": False}, "position: False is not supported by dranet, only by danet; leave `position` out"),
        ({"channel_form": "paper"}, "channel_form: 'paper' is not supported by dranet"),
        ({"num_classes": 0}, "num_classes: must be at least 1, got 0"),
        ({"width": 0}, "width: must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: must be from 0 to below 1, got 1.0"),
        ({"backbone": "vit_tiny_patch16_224"}, "backbone: 'vit_tiny_patch16_224' does not support dilation"),
    ],
)
def test_invalid_arguments_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        build_network("dranet", **{"num_classes": 5, "backbone": "test_resnet", **arguments})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision_weights_run(dtype):
    network = DRANet(3, "test_resnet", width=16).to(dtype).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64, dtype=dtype)).fused.dtype == dtype
