"""DANet written out once more, from the equations of the paper and the layers of the released code, in float64.

It shares nothing with the package: each layer is a line on tensors with the released code's names. `danet_narrow.npz`
holds its outputs for a network with a narrow head, whose weights `fill` makes from their names and shapes. Where the
outputs of the released code itself are at hand, `tests/model/test_golden_narrow.py` compares them with this file too.

    python tests/golden/reference.py     # writes danet_narrow.npz again
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FILE = Path(__file__).with_name("danet_narrow.npz")
CLASSES, WIDTH, SIZE, LAYER4_DILATIONS = 3, 16, (33, 41), (4, 8, 16)
BLOCKS = (3, 4, 6, 3)  # of a ResNet-50
_RELEASED_DILATIONS = ((1, 1, 1), (1, 1, 1, 1), (1, 2, 2, 2, 2, 2))  # layer3 has no stride, and its first block none

State = Mapping[str, Tensor]


def features(state: State, images: Tensor, layer4_dilations: Sequence[int]) -> Tensor:
    """Return the features of the dilated ResNet, B,2048,H/8,W/8."""
    x = F.conv2d(images, state["pretrained.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(_norm(state, "pretrained.bn1", x).relu(), 3, stride=2, padding=1)
    for layer, dilations in enumerate((*_RELEASED_DILATIONS, layer4_dilations), 1):
        for block, dilation in enumerate(dilations):
            stride = 2 if (layer, block) == (2, 0) else 1
            x = _bottleneck(state, f"pretrained.layer{layer}.{block}", x, stride, dilation)
    return x


def _bottleneck(state: State, name: str, x: Tensor, stride: int, dilation: int) -> Tensor:
    y = _norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])).relu()
    y = F.conv2d(y, state[f"{name}.conv2.weight"], None, stride, dilation, dilation)
    y = F.conv2d(_norm(state, f"{name}.bn2", y).relu(), state[f"{name}.conv3.weight"])
    if f"{name}.downsample.0.weight" in state:
        x = _norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], None, stride))
    return (_norm(state, f"{name}.bn3", y) + x).relu()


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    """Batch normalization with its statistics, as in evaluation."""
    mean, var, gain, bias = (
        state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + bias


def position_attention(state: State, name: str, a: Tensor) -> Tensor:
    """Eq. 1: s_ji = exp(B_i C_j) / sum over i of exp(B_i C_j). Eq. 2: E_j = alpha sum over i of (s_ji D_i) + A_j."""
    c, b, d = (
        F.conv2d(a, state[f"{name}.{part}_conv.weight"], state[f"{name}.{part}_conv.bias"]).flatten(2)
        for part in ("query", "key", "value")
    )
    products = torch.einsum("kci,kcj->kji", b, c)
    s = products.exp() / products.exp().sum(dim=2, keepdim=True)
    return state[f"{name}.gamma"] * torch.einsum("kji,kci->kcj", s, d).view_as(a) + a


def channel_attention(state: State, name: str, a: Tensor, form: str = "released") -> Tensor:
    """Eq. 3 and 4. The released code takes the exponential of the largest product of a row minus each product."""
    flat = a.flatten(2)
    products = torch.einsum("kin,kjn->kji", flat, flat)  # of channels i and j
    exponents = -products if form == "released" else products
    exponents = exponents - exponents.amax(dim=2, keepdim=True)  # cancels out; without it, the exponential overflows
    x = exponents.exp() / exponents.exp().sum(dim=2, keepdim=True)
    return state[f"{name}.gamma"] * torch.einsum("kji,kin->kjn", x, flat).view_as(a) + a


def outputs(
    state: State, images: Tensor, layer4_dilations: Sequence[int] = LAYER4_DILATIONS, channel_form: str = "released"
) -> dict[str, Tensor]:
    """Return the logits "fused", "position" and "channel" at the images' size, B,K,H,W."""
    x = features(state, images, layer4_dilations)
    position = position_attention(state, "head.sa", _convolved(state, "head.conv5a", x))
    channel = channel_attention(state, "head.sc", _convolved(state, "head.conv5c", x), channel_form)
    position, channel = _convolved(state, "head.conv51", position), _convolved(state, "head.conv52", channel)
    branches = {"fused": (position + channel, "conv8"), "position": (position, "conv6"), "channel": (channel, "conv7")}
    return {name: _classified(state, f"head.{conv}.1", y, images) for name, (y, conv) in branches.items()}


def _convolved(state: State, name: str, x: Tensor) -> Tensor:
    return _norm(state, f"{name}.1", F.conv2d(x, state[f"{name}.0.weight"], padding=1)).relu()


def _classified(state: State, name: str, x: Tensor, images: Tensor) -> Tensor:
    logits = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])
    return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the weights of a released DANet-50, but with a narrow head."""
    found = {"pretrained.conv1.weight": (64, 3, 7, 7), **_norm_shapes("pretrained.bn1", 64)}
    before = 64
    for layer, blocks in enumerate(BLOCKS, 1):
        inner = 32 * 2**layer  # channels inside a block; at its end four times as many
        for block in range(blocks):
            name = f"pretrained.layer{layer}.{block}"
            for i, shape in enumerate(((inner, before, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)), 1):
                found |= {f"{name}.conv{i}.weight": shape, **_norm_shapes(f"{name}.bn{i}", shape[0])}
            if block == 0:
                found[f"{name}.downsample.0.weight"] = (4 * inner, before, 1, 1)
                found |= _norm_shapes(f"{name}.downsample.1", 4 * inner)
            before = 4 * inner
    for name, inputs in (("conv5a", before), ("conv5c", before), ("conv51", WIDTH), ("conv52", WIDTH)):
        found |= {f"head.{name}.0.weight": (WIDTH, inputs, 3, 3), **_norm_shapes(f"head.{name}.1", WIDTH)}
    for name, channels in (("query", WIDTH // 8), ("key", WIDTH // 8), ("value", WIDTH)):
        found |= {f"head.sa.{name}_conv.weight": (channels, WIDTH, 1, 1), f"head.sa.{name}_conv.bias": (channels,)}
    found |= {"head.sa.gamma": (1,), "head.sc.gamma": (1,)}
    for name in ("conv6", "conv7", "conv8"):
        found |= {f"head.{name}.1.weight": (CLASSES, WIDTH, 1, 1), f"head.{name}.1.bias": (CLASSES,)}
    return found


def _norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers in [-1, 1) that depend on the name alone, by the integers of splitmix64: equal everywhere."""
    x = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(zlib.crc32(name.encode()))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64).reshape(shape) / 2**52 - 1


def fill() -> dict[str, Tensor]:
    """Return the weights, rounded to float32, so that networks of either precision can have them exactly."""
    state = {}
    for name, shape in shapes().items():
        value, last = uniform(name, shape), name.rpartition(".")[2]
        if last == "num_batches_tracked":
            state[name] = torch.zeros((), dtype=torch.int64)
            continue
        if last == "weight" and len(shape) > 1:
            value = value * np.sqrt(3 / np.prod(shape[1:]))  # variance 1 / inputs
        elif last in ("gamma", "weight", "running_var"):
            value = (0.6 if last == "gamma" else 1) + 0.2 * value
        else:
            value = 0.2 * value
        state[name] = torch.from_numpy(value.astype(np.float32))
    return state


def images() -> Tensor:
    """Return the normalized image, 1,3,H,W."""
    return torch.from_numpy((1.7 * uniform("image", (1, 3, *SIZE))).astype(np.float32))


def labels() -> Tensor:
    """Return the labels, 1,H,W; about one pixel in ten is ignored."""
    values = np.floor((uniform("label", (1, *SIZE)) + 1) / 2 * CLASSES).astype(np.int64)
    return torch.from_numpy(np.where(uniform("ignored", (1, *SIZE)) < -0.8, 255, values))


def results() -> dict[str, np.ndarray]:
    """Return what the file holds: logits of both forms of channel attention, the loss, and norms of its gradients."""
    state = {name: value.double() if value.is_floating_point() else value for name, value in fill().items()}
    parameters = [name for name, value in state.items() if value.is_floating_point() and "running" not in name]
    for name in parameters:
        state[name].requires_grad_()
    logits = outputs(state, images().double())
    loss = sum((F.cross_entropy(one, labels(), ignore_index=255) for one in logits.values()), torch.zeros(()))
    gradients = torch.autograd.grad(loss, [state[name] for name in parameters])
    with torch.no_grad():
        paper = outputs(state, images().double(), channel_form="paper")
    found = {name: one.detach() for name, one in logits.items()} | {"loss": loss.detach()}
    found |= {f"paper_{name}": one for name, one in paper.items() if name != "position"}
    found |= {f"gradient/{name}": one.norm() for name, one in zip(parameters, gradients, strict=True)}
    return {name: np.asarray(value.numpy()) for name, value in found.items()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **results())
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
