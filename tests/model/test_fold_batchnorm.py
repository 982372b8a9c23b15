"""Folding batch normalization: same results, shared tensors where nothing is folded, no norm layer left."""

import numpy as np
import pytest
import torch
from torch import nn

import danet
from danet import DANet
from danet.model.fold_batchnorm import fold_batchnorm


def randomized(network: nn.Module) -> nn.Module:
    """Give a network random statistics, weights and scales, in float64."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    for name, parameter in network.named_parameters():
        if name.endswith("attention.scale"):
            nn.init.constant_(parameter, 0.3)
    return network.eval().double()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def small_images(network: nn.Module) -> torch.Tensor:
    return torch.zeros(1, 3, 32, 32, dtype=next(network.parameters()).dtype)


MULTI_GRID = {"layer4_dilations": (4, 8, 16)}


@pytest.mark.parametrize(
    ("backbone", "arguments"),
    [
        ("resnet50", MULTI_GRID),
        pytest.param("resnet101", MULTI_GRID, marks=pytest.mark.slow),
        ("resnet50c", {}),
        ("mobilenetv2_100", {}),
        ("tf_efficientnet_lite0", {"output_stride": 16}),
        ("test_resnet", {}),
        ("mobilenetv2_100", {"output_stride": 16, "decoder": True}),
    ],
)
@torch.no_grad()
def test_folded_outputs_are_equal_and_no_norm_is_left(backbone, arguments):
    network = randomized(DANet(4, backbone, width=16, **arguments))
    copy = fold_batchnorm(network, small_images(network))
    assert norms(network) > 15
    assert norms(copy) == 0
    images = torch.randn(2, 3, 40, 56, dtype=torch.float64)
    for ours, expected in zip(copy(images), network(images), strict=True):
        if expected is not None:
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())


def test_network_is_unchanged_and_shares_other_tensors():
    network = randomized(DANet(4, "test_resnet", width=16))
    before = {key: (id(tensor), tensor.clone()) for key, tensor in network.state_dict(keep_vars=True).items()}
    copy = fold_batchnorm(network, small_images(network))
    for key, tensor in network.state_dict(keep_vars=True).items():
        assert id(tensor) == before[key][0]
        assert torch.equal(tensor, before[key][1])
    assert copy.classifier[1].weight is network.classifier[1].weight
    assert copy.position.attention.value.weight is network.position.attention.value.weight
    assert copy.position.reduce[0].weight is not network.position.reduce[0].weight
    own = {id(tensor) for tensor in network.parameters()}
    new = [tensor for tensor in copy.parameters() if id(tensor) not in own]
    convolutions = sum(isinstance(m, nn.Conv2d) and m.bias is None for m in network.modules())
    assert len(new) == 2 * convolutions == 2 * norms(network)


class Tangled(nn.Module):
    """One foldable pair, and pairs that are not foldable.

    These are an output that another layer reads, a convolution used twice, a norm used twice, and a norm without
    statistics.
    """

    def __init__(self):
        super().__init__()
        self.branching, self.twice, self.first, self.second, self.good, self.bare = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))
        self.no_statistics = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.branching(x)
        x = self.norms[0](branch) + branch
        x = self.norms[1](self.twice(x)) + self.twice(2 * x)
        x = self.norms[2](self.first(x)) + self.norms[2](self.second(x))
        return self.norms[3](self.good(x)) + self.no_statistics(self.bare(x))


@torch.no_grad()
def test_only_foldable_pairs_are_folded():
    network = randomized(Tangled())
    copy = fold_batchnorm(network, small_images(network))
    assert [type(norm) for norm in copy.norms] == [nn.BatchNorm2d] * 3 + [nn.Identity]
    images = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(copy(images), network(images), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_folding_keeps_channels_last():
    network = randomized(DANet(4, "test_resnet", width=16)).to(memory_format=torch.channels_last)
    weight = fold_batchnorm(network, small_images(network)).position.reduce[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@torch.inference_mode()
def test_predictor_runs_the_folded_network(tiny_weights):
    predictor = danet.load(tiny_weights, "cpu")
    assert norms(predictor.network) > 15
    assert norms(predictor.folded) == 0
    images = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predictor.logits(images), predictor.network.logits(images).fused, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_predictor_in_bfloat16_is_nearly_equal(tiny_weights):
    exact = danet.load(tiny_weights, device="cpu")
    bfloat16 = danet.load(tiny_weights, device="cpu", dtype=torch.bfloat16)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    expected, logits = exact.logits(images), bfloat16.logits(images)
    assert (expected.dtype, logits.dtype) == (torch.float32, torch.bfloat16)
    assert 0 < (logits - expected).abs().max() < 0.1 * expected.abs().max()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert np.abs(exact(pixels).confidence - bfloat16(pixels).confidence).max() < 0.2
