"""Both attention modules against float64 sums written from the equations."""

import random
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

from danet import ChannelAttention, InputError, PositionAttention
from danet.model import attention, attention_kernels, tiled_attention


def position_oracle(module: PositionAttention, x: torch.Tensor) -> torch.Tensor:
    """Eq. 1-2 position by position: s_ji = exp(B_i . C_j) / sum_i exp(B_i . C_j); E_j = alpha sum_i s_ji D_i + A_j."""
    b, c, d = (conv(x).flatten(2) for conv in (module.key, module.query, module.value))  # B,c,N
    out = torch.empty_like(x.flatten(2))
    for j in range(out.shape[2]):
        energy = torch.einsum("bci,bc->bi", b, c[:, :, j])
        s_j = (energy - energy.max(1, keepdim=True).values).exp()
        s_j = s_j / s_j.sum(1, keepdim=True)
        out[:, :, j] = module.scale * torch.einsum("bi,bci->bc", s_j, d) + x.flatten(2)[:, :, j]
    return out.view_as(x)


def channel_oracle(module: ChannelAttention, x: torch.Tensor) -> torch.Tensor:
    """Eq. 3-4, or the released code's max - energy in place of the energy."""
    a = x.flatten(2)
    energy = torch.einsum("bin,bjn->bji", a, a)
    if module.form == "released":
        energy = energy.max(-1, keepdim=True).values - energy
    weights = (energy - energy.max(-1, keepdim=True).values).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return (module.scale * torch.einsum("bji,bin->bjn", weights, a) + a).view_as(x)


def position_attention(channels: int = 16, dtype: torch.dtype = torch.float64) -> PositionAttention:
    module = PositionAttention(channels).to(dtype)
    torch.nn.init.constant_(module.scale, 0.7)
    return module


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (7, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_position_attention_equals_equations_1_and_2(size, dtype, tolerance):
    torch.manual_seed(0)
    module, x = position_attention(), torch.randn(2, 16, *size, dtype=torch.float64)
    expected = position_oracle(module, x)
    assert (module.to(dtype)(x.to(dtype)) - expected).abs().max() <= tolerance * expected.abs().max()


counts = pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.stress)])


def features(count: int) -> Iterator[torch.Tensor]:
    """B,C,H,W float64 in both memory formats: one position, one row, one column, odd sides, then random shapes."""
    draw, generator = random.Random(count), torch.Generator().manual_seed(count)
    shapes = [(1, 1, 1, 1), (2, 9, 1, 17), (1, 3, 23, 1), (3, 16, 7, 9)]
    shapes += [(draw.randint(1, 3), *(draw.randint(1, 24) for _ in range(3))) for _ in range(count - len(shapes))]
    for shape in shapes:
        layout = draw.choice([torch.contiguous_format, torch.channels_last])
        yield torch.randn(shape, dtype=torch.float64, generator=generator).to(memory_format=layout)


def softmax(energy: np.ndarray) -> np.ndarray:
    weights = np.exp(energy - energy.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def assert_equal_to_float64(found: torch.Tensor, expected: np.ndarray) -> None:
    found = found.detach().numpy().reshape(expected.shape)
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() <= 1e-12 * max(1, np.abs(expected).max())


@counts
@pytest.mark.parametrize("kernel", [attention_kernels.plain, attention_kernels.tiled, attention_kernels.attend])
def test_position_attention_equals_float64_sums_for_any_shape(kernel, count, monkeypatch):
    monkeypatch.setattr(attention, "attend", kernel)
    draw = random.Random(count)
    for x in features(count):
        monkeypatch.setattr(tiled_attention, "TILE", {"cpu": (draw.randint(1, 99), draw.randint(1, 99))})
        module = position_attention(x.shape[1])
        a = x.flatten(2).numpy()
        b, c, d = (
            np.einsum("oc,bcn->bon", conv.weight.detach()[..., 0, 0], a) + conv.bias.detach().numpy()[:, None]
            for conv in (module.query, module.key, module.value)
        )
        attended = np.einsum("bij,bcj->bci", softmax(np.einsum("bci,bcj->bij", b, c)), d)
        assert_equal_to_float64(module(x), 0.7 * attended + a)


@counts
@pytest.mark.parametrize("form", ["released", "paper"])
def test_channel_attention_equals_float64_sums_for_any_shape(form, count):
    module = ChannelAttention(form).double()
    torch.nn.init.constant_(module.scale, -0.4)
    for x in features(count):
        a = 0.3 * x.flatten(2).numpy()
        energy = np.einsum("bin,bjn->bij", a, a)
        weights = softmax(energy.max(-1, keepdims=True) - energy if form == "released" else energy)
        assert_equal_to_float64(module(0.3 * x), -0.4 * np.einsum("bij,bjn->bin", weights, a) + a)


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("size", [(1, 1), (4, 5)])
def test_channel_attention_equals_equations_3_and_4(form, size):
    torch.manual_seed(0)
    module, x = ChannelAttention(form).double(), 0.3 * torch.randn(2, 12, *size, dtype=torch.float64)
    torch.nn.init.constant_(module.scale, -0.4)
    torch.testing.assert_close(module(x), channel_oracle(module, x), rtol=1e-12, atol=1e-12)


def test_the_two_forms_attend_to_opposite_channels():
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0], x[0, 1], x[0, 2] = 1.0, 0.9, -1.0  # channels 0 and 1 are similar, 2 is their opposite
    assert ChannelAttention("released").weights(x)[0, 0].argmax() == 2
    assert ChannelAttention("paper").weights(x)[0, 0].argmax() == 0


def test_centered_attention_is_the_pairwise_term_of_disentangled_attention():
    """Yin et al. (2020), Eq. 5: softmax((q_i - mean q) . (k_j - mean k)); the mean key shifts all energies alike."""
    module, x = PositionAttention(16, form="centered").double(), torch.randn(2, 16, 5, 6, dtype=torch.float64)
    query, key = (conv(x).flatten(2).transpose(1, 2) for conv in (module.query, module.key))
    whitened = [rows - rows.mean(1, keepdim=True) for rows in (query, key)]
    expected = softmax((whitened[0] @ whitened[1].transpose(1, 2)).detach().numpy())
    assert_equal_to_float64(module.weights(x), expected)


def test_cosine_attention_ignores_the_length_of_vectors():
    module, x = PositionAttention(16, form="cosine").double(), torch.randn(2, 16, 5, 6, dtype=torch.float64)
    query, key = (conv(x).flatten(2).transpose(1, 2).detach().numpy() for conv in (module.query, module.key))
    query, key = (rows / np.linalg.norm(rows, axis=2, keepdims=True) for rows in (query, key))
    expected = softmax(attention.SHARPNESS * query @ key.transpose(0, 2, 1))
    assert_equal_to_float64(module.weights(x), expected)
    with torch.no_grad():
        for parameter in module.key.parameters():
            parameter *= 5
    assert_equal_to_float64(module.weights(x), expected)


def test_cosine_channel_attention_does_not_depend_on_the_size():
    module, x = ChannelAttention("cosine").double(), torch.randn(2, 6, 4, 5, dtype=torch.float64)
    channels = x.flatten(2).numpy() / np.linalg.norm(x.flatten(2).numpy(), axis=2, keepdims=True)
    assert_equal_to_float64(module.weights(x), softmax(attention.SHARPNESS * channels @ channels.transpose(0, 2, 1)))
    torch.testing.assert_close(module.weights(x.repeat(1, 1, 2, 3)), module.weights(x))


@pytest.mark.parametrize("build", [partial(PositionAttention, 16, form="cosine"), partial(ChannelAttention, "cosine")])
def test_sharpness_is_learned(build):
    module = build()
    torch.nn.init.constant_(module.scale, 0.5)
    module(torch.randn(2, 16, 4, 5)).square().sum().backward()
    assert module.sharpness.grad.abs() > 0


@pytest.mark.parametrize(
    "build", [partial(PositionAttention, 16, form="softmax"), partial(ChannelAttention, "softmax")]
)
def test_unknown_form_is_an_error(build):
    with pytest.raises(InputError, match=r"form: 'softmax' is unknown; use .*paper, .*cosine"):
        build()


@pytest.mark.parametrize(("channels", "reduction", "narrow"), [(64, 8, 8), (512, 8, 64), (7, 8, 1), (20, 3, 6)])
def test_query_and_key_have_channels_over_reduction(channels, reduction, narrow):
    module = PositionAttention(channels, reduction)
    widths = {name: conv.out_channels for name, conv in module.named_children()}
    assert widths == {"query": narrow, "key": narrow, "value": channels}
    assert PositionAttention(channels).query.out_channels == max(1, channels // 8)


def test_both_modules_start_as_the_identity():
    x = torch.randn(1, 16, 4, 4)
    assert torch.equal(PositionAttention(16)(x), x)
    assert torch.equal(ChannelAttention()(x), x)


def test_permuting_positions_permutes_the_result():
    torch.manual_seed(0)
    module, x = position_attention(), torch.randn(1, 16, 3, 8, dtype=torch.float64)
    order = torch.randperm(24)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    torch.testing.assert_close(module(shuffled).flatten(2), module(x).flatten(2)[:, :, order])


def test_weights_of_some_positions_are_rows_of_the_matrix():
    torch.manual_seed(0)
    module, x = position_attention(), torch.randn(1, 16, 4, 5, dtype=torch.float64)
    whole = module.weights(x)
    assert whole.shape == (1, 20, 20)
    torch.testing.assert_close(whole.sum(-1), torch.ones(1, 20, dtype=torch.float64))
    torch.testing.assert_close(module.weights(x, torch.tensor([3, 17])), whole[:, [3, 17]])


def test_channel_attention_keeps_channels_last():
    x = torch.randn(2, 5, 3, 4)
    rows = x.to(memory_format=torch.channels_last)
    assert [attention._is_channels_last(features) for features in (x, rows, x[..., ::2])] == [False, True, False]
    assert ChannelAttention()(rows).is_contiguous(memory_format=torch.channels_last)


def test_channel_energies_stay_float32_under_autocast():
    x = 30 + torch.randn(1, 8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = ChannelAttention().weights(x)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, ChannelAttention().weights(x))
