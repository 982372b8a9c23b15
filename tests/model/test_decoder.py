"""The gated decoder: sizes with every kind of backbone, what it reads, and invalid arguments."""

import pytest
import torch

from danet import DANet, InputError
from danet.model.backbone import build_pyramid
from danet.model.decoder import GatedFusion, Widths, concat_gated


def tiny(**changes) -> DANet:
    torch.manual_seed(0)
    arguments = {"num_classes": 5, "backbone": "test_resnet", "width": 16, "output_stride": 16, "decoder": True}
    return DANet(**arguments | changes)


@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet",
        "test_convnext",
        "mobilenetv2_100",
        "mobilenetv4_conv_small_035",
        "fastvit_t8",
        pytest.param("davit_tiny", marks=pytest.mark.slow),
        pytest.param("convnextv2_atto", marks=pytest.mark.slow),
    ],
)
def test_fused_logits_have_stride_4_and_branches_that_of_the_grid(backbone):
    network = tiny(backbone=backbone).eval()
    images = torch.randn(1, 3, 96, 128)
    small, full = network.logits(images), network(images)
    assert [logits.shape[2:] for logits in small] == [(24, 32), (6, 8), (6, 8)]
    assert all(logits.shape == (1, 5, 96, 128) for logits in full)
    assert network(torch.randn(1, 3, 75, 101)).fused.shape == (1, 5, 75, 101)


def test_a_decoder_of_stride_2_reads_one_map_more():
    network = tiny(decoder_stride=2).eval()
    images = torch.randn(1, 3, 75, 101)
    assert network.logits(images).fused.shape == (1, 5, 38, 51)
    assert network(images).fused.shape == (1, 5, 75, 101)
    assert len(network.decoder.fusions) == 1 + len(tiny().decoder.fusions)


@pytest.mark.parametrize(("stride", "width", "channels"), [(4, 64, 64), (2, 64, 32), (4, 128, 128), (2, 128, 64)])
def test_the_decoder_is_as_wide_as_it_is_told(stride, width, channels):
    network = tiny(decoder_stride=stride, decoder_width=width)
    assert network.classifier[-1].weight.shape[1] == channels
    assert network(torch.randn(2, 3, 64, 64)).fused.shape == (2, 5, 64, 64)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_gate_is_the_convolution_of_all_channels(align_corners):
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 3, 9, 13).double(), torch.randn(2, 5, 4, 6).double()
    gate = torch.nn.Conv2d(8, 1, 1).double()
    large = torch.nn.functional.interpolate(coarse, (9, 13), mode="bilinear", align_corners=align_corners)
    expected = torch.cat([fine * torch.sigmoid(gate(torch.cat([fine, large], 1))), large], 1)
    torch.testing.assert_close(concat_gated(fine, coarse, gate, align_corners), expected)


@pytest.mark.parametrize(("stride", "grid", "finer"), [(8, (12, 16), 1), (16, (6, 8), 2), (32, (3, 4), 3)])
def test_output_stride_is_that_of_the_attention_grid(stride, grid, finer):
    network = tiny(output_stride=stride)
    outputs = network(torch.randn(2, 3, 96, 128), attention=True)
    assert outputs.attention.grid == grid
    assert outputs.attention.query.shape == outputs.attention.key.shape == (2, grid[0] * grid[1], 2)
    assert len(network.decoder.fusions) == finer


def test_detached_attention_trains_query_and_key_only():
    torch.manual_seed(0)
    network, images = tiny(dropout=0.0), torch.randn(2, 3, 64, 64)
    plain, detached = (network(images, attention=True, detach=detach) for detach in (False, True))
    torch.testing.assert_close(detached, plain, rtol=0, atol=0)
    sum((rows**2).sum() for rows in detached.attention[:2]).backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {
        f"position.attention.{layer}.{kind}" for layer in ("query", "key") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("modules", [{"position": False}, {"channel": False}, {"position": False, "channel": False}])
def test_decoder_refines_every_ablation(modules):
    outputs = tiny(**modules).eval()(torch.randn(1, 3, 64, 64))
    assert outputs.fused.shape == (1, 5, 64, 64)
    assert outputs.position is None


def test_every_parameter_and_every_finer_map_is_used():
    network = tiny(auxiliary=True, initial_scale=0.1)
    sum(logits.sum() for logits in network(torch.randn(2, 3, 64, 64))[:4]).backward()
    assert all(p.grad is not None for p in network.parameters())
    stages = network.backbone(torch.randn(2, 3, 64, 64))
    features, finer = network.split(stages)
    assert features.shape[1] == stages[-1].shape[1] + stages[-2].shape[1]
    assert [tuple(x.shape[2:]) for x in finer] == [(8, 8), (16, 16)]


def test_a_closed_gate_leaves_out_the_fine_map():
    fusion = GatedFusion(6, 8, Widths(4, None, 16), align_corners=False).eval()
    coarse, (fine, other) = torch.randn(1, 8, 4, 5), torch.randn(2, 1, 6, 8, 10)
    assert not torch.allclose(fusion(fine, coarse), fusion(other, coarse))
    torch.nn.init.constant_(fusion.gate.bias, -1000)
    torch.testing.assert_close(fusion(fine, coarse), fusion(other, coarse))


def test_scales_start_as_asked_and_at_zero_by_default():
    for initial in (0.0, 0.1):
        network = tiny(initial_scale=initial)
        assert network.position.attention.scale == network.channel.attention.scale == torch.tensor(initial)
    assert tiny().position.attention.scale == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer4_dilations": (4, 8, 16)}, "layer4_dilations: multi-grid needs a dilated backbone"),
        ({"output_stride": 4}, "output_stride: must be 8, 16 or 32, got 4"),
        (
            {"backbone": "vit_tiny_patch16_224"},
            "backbone: features of .* have strides 16, .*; a decoder needs 4 and 16",
        ),
        ({"decoder_stride": 8}, "decoder_stride: must be 4 or 2, got 8"),
        ({"decoder_width": 7}, "decoder_width: must be from 8 to 1024, got 7"),
        ({"backbone": "test_convnext", "decoder_stride": 2}, "backbone: features of .*; a decoder needs 2 and 16"),
    ],
)
def test_invalid_arguments_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        tiny(**arguments)


def test_attention_of_a_network_without_position_attention_is_an_error():
    with pytest.raises(InputError, match="attention: the network has no position attention"):
        tiny(position=False)(torch.randn(2, 3, 64, 64), attention=True)


def test_pyramid_takes_other_numbers_of_bands():
    net, channels, strides = build_pyramid("test_resnet", 16, in_channels=5)
    assert [tuple(x.shape[1:]) for x in net(torch.randn(1, 5, 64, 64))] == [
        (c, 64 // s, 64 // s) for c, s in zip(channels, strides, strict=True)
    ]
