"""The attention kernels against `plain`, `plain` against float64 sums; and the memory estimate."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import product

import pytest
import torch

from danet import ChannelAttention, InputError, PositionAttention
from danet.model import attention_kernels, tiled_attention


def inputs(batch=2, queries=37, keys=29, width=4, channels=8, dtype=torch.float64, spread=1.0):
    torch.manual_seed(0)
    shapes = ((queries, width), (keys, width), (keys, channels))
    return [(spread * torch.randn(batch, *shape)).to(dtype).requires_grad_() for shape in shapes]


def out_and_gradients(kernel, tensors):
    out = kernel(*tensors)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, grad)]


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """The same rows, as B,C,H,W features hold them."""
    return x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()


@pytest.fixture
def tiny_tiles(monkeypatch):
    monkeypatch.setattr(tiled_attention, "TILE", {"cpu": (8, 5)})


def test_plain_equals_the_sum_of_the_paper():
    query, key, value = (x.detach() for x in inputs(queries=5, keys=4))
    expected = torch.zeros(2, 5, 8, dtype=torch.float64)
    for b, j in product(range(2), range(5)):
        e = [torch.dot(query[b, j], key[b, i]).exp() for i in range(4)]
        expected[b, j] = sum(e[i] / sum(e) * value[b, i] for i in range(4))
    torch.testing.assert_close(attention_kernels.plain(query, key, value), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("tile", [(1, 64), (64, 1), (8, 5), (64, 64)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layout", [lambda x: x, channels_first])
def test_tiled_equals_plain_forward_and_backward(monkeypatch, tile, dtype, layout):
    monkeypatch.setattr(tiled_attention, "TILE", {"cpu": tile})
    tensors = [layout(x) for x in inputs(dtype=dtype)]
    for plain, tiled in zip(
        out_and_gradients(attention_kernels.plain, tensors),
        out_and_gradients(attention_kernels.tiled, tensors),
        strict=True,
    ):
        torch.testing.assert_close(tiled, plain)


def test_tiled_returns_the_memory_format_of_its_value(tiny_tiles):
    rows = inputs()
    assert attention_kernels.tiled(*rows).stride(2) == 1
    assert attention_kernels.tiled(*(channels_first(x) for x in rows)).stride(1) == 1


def test_tiled_gradients_equal_finite_differences(tiny_tiles):
    assert torch.autograd.gradcheck(attention_kernels.tiled, inputs(1, 9, 11, 2, 3))


def test_tiled_accepts_an_expanded_gradient(tiny_tiles):
    tensors = inputs()
    found = torch.autograd.grad(attention_kernels.tiled(*tensors).sum(), tensors)  # sum()'s gradient has strides of 0
    for plain, tiled in zip(torch.autograd.grad(attention_kernels.plain(*tensors).sum(), tensors), found, strict=True):
        torch.testing.assert_close(tiled, plain)


@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0])
def test_tiled_is_as_accurate_as_plain(monkeypatch, spread):
    """Up to energies above a thousand, where subtracting a constant instead of the row's maximum would give 0 / 0."""
    monkeypatch.setattr(tiled_attention, "TILE", {"cpu": (64, 48)})
    tensors = inputs(1, 200, 300, 16, 24, torch.float32, spread)
    exact = out_and_gradients(attention_kernels.plain, [x.double().detach().requires_grad_() for x in tensors])
    plain, tiled = (
        out_and_gradients(attention_kernels.plain, tensors),
        out_and_gradients(attention_kernels.tiled, tensors),
    )
    for truth, one, other in zip(exact, plain, tiled, strict=True):
        assert (other - truth).norm() <= 1.3 * (one - truth).norm() + 1e-7 * truth.norm()


def test_tiled_rescales_when_energies_rise_along_a_row(tiny_tiles):
    """Each tile has a maximum larger by 100 or more: the earlier sums must shrink to nothing."""
    ones = torch.ones(1, 3, 1)
    key = torch.arange(23.0)[None, :, None] * 30
    value = torch.eye(23)[None]
    torch.testing.assert_close(attention_kernels.tiled(ones, key, value), attention_kernels.plain(ones, key, value))
    torch.testing.assert_close(attention_kernels.tiled(ones, -key, value), attention_kernels.plain(ones, -key, value))


def test_tiled_sums_half_precision_in_float32(tiny_tiles):
    tensors = inputs(dtype=torch.bfloat16)
    found = out_and_gradients(attention_kernels.tiled, tensors)
    exact = out_and_gradients(attention_kernels.plain, [x.float().detach().requires_grad_() for x in tensors])
    assert all(x.dtype == torch.bfloat16 for x in found)
    for truth, rounded in zip(exact, found, strict=True):
        torch.testing.assert_close(rounded.float(), truth, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["half", "autocast"])
def test_weights_of_half_precision_are_computed_in_float32(dtype, mode):
    """Energies are about 60, where bfloat16 rounds by up to 0.125."""
    query, key, _ = (x.detach().float() for x in inputs(1, 40, 40, 64, 8, torch.float32))
    query, key = (3 * query).to(dtype), key.to(dtype)
    exact = torch.softmax(query.double() @ key.double().transpose(1, 2), dim=-1)
    if mode == "half":
        found = attention_kernels.attention_weights(query, key)
    else:
        with torch.autocast("cpu", dtype):
            found = attention_kernels.attention_weights(query.float(), key.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-7)


def test_fused_equals_plain_forward_and_backward():
    tensors = inputs(queries=70, keys=90, width=8, channels=32, dtype=torch.float32)
    assert attention_kernels.supports_fused(tensors[0], tensors[2])
    for plain, fused in zip(
        out_and_gradients(attention_kernels.plain, tensors),
        out_and_gradients(attention_kernels.fused, tensors),
        strict=True,
    ):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "channels", "supported"),
    [(8, 8, True), (256, 512, True), (264, 528, False), (12, 96, False), (64, 500, False), (64, 32, False)],
)
def test_fused_supports_these_widths(width, channels, supported):
    assert attention_kernels.supports_fused(torch.empty(1, 1, width), torch.empty(1, 1, channels)) == supported


class OnAGpu(torch.Tensor):
    """A CPU tensor that claims to be on a GPU."""

    is_cuda = True


@pytest.mark.parametrize(
    ("dtype", "width", "channels", "triton", "chosen"),
    [
        (torch.float32, 64, 512, True, "tiled"),
        (torch.bfloat16, 64, 512, True, "fused"),
        (torch.float16, 64, 512, False, "fused"),
        (torch.bfloat16, 64, 500, True, "triton_tiled"),
        (torch.bfloat16, 128, 500, True, "triton_tiled"),
        (torch.bfloat16, 129, 500, True, "tiled"),
        (torch.bfloat16, 64, 500, False, "tiled"),
    ],
)
def test_attend_chooses_the_kernel_for_gpu_precision_and_widths(monkeypatch, dtype, width, channels, triton, chosen):
    called = []
    for name in ("plain", "tiled", "fused", "triton_tiled"):
        monkeypatch.setattr(
            attention_kernels, name, lambda query, key, value, name=name: called.append(name) or value[:, :2]
        )
    monkeypatch.setattr(attention_kernels, "SMALL_MAP", 4)
    monkeypatch.setattr(attention_kernels, "find_spec", lambda name: object() if triton and name == "triton" else None)
    query, key, value = (torch.zeros(1, 2, c, dtype=dtype).as_subclass(OnAGpu) for c in (width, width, channels))
    attention_kernels.attend(query, key[:, [0, 1, 1]], value[:, [0, 1, 1]])
    attention_kernels.attend(query, key, value)
    assert called == [chosen, "plain"]  # 1 x 2 x 3 weights are more than 4, 1 x 2 x 2 are not


def test_tiles_fit_a_cpu_cache_and_parts_are_few_and_even():
    assert tiled_attention.TILE["cpu"][0] * tiled_attention.TILE["cpu"][1] * 4 == 8 << 20
    assert attention_kernels.SMALL_MAP == 1024 * 1024
    for size, longest in product(range(1, 40), range(1, 12)):
        parts = tiled_attention._parts(size, longest)
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(size))
        lengths = [part.stop - part.start for part in parts]
        assert max(lengths) <= longest
        assert len(parts) <= -(-size // longest)
        assert len(set(lengths[:-1])) <= 1


TRITON = """
import torch
from danet.model.attention_kernels import plain, triton_tiled
torch.manual_seed(0)
for n, m, d, c in ((70, 90, 5, 20), (1, 3, 1, 1), (30, 70, 32, 70)):
    tensors = [torch.randn(2, *shape, requires_grad=True) for shape in ((n, d), (m, d), (m, c))]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    grad = torch.randn(2, n, c)
    out, truth = triton_tiled(*tensors), plain(*exact)
    found = [out, *torch.autograd.grad(out, tensors, grad)]
    for x, y in zip(found, [truth, *torch.autograd.grad(truth, exact, grad.double())], strict=True):
        assert (x - y).norm() <= 3e-6 * y.norm() + 1e-7, (n, m, d, c, (x - y).norm(), y.norm())
print("same")
"""

COMPILED = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from danet.model import triton_attention as t

for kernel in (t.forward_kernel, t.value_kernel, t.slope_kernel):
    constants = t.blocks(64, 512, 2)
    if kernel is t.slope_kernel:
        constants |= {"CHANNELS": 64, "QUERIES": True}
    kinds = {"N": "i32", "M": "i32", "D": "i32", "C": "i32", "level": "*fp32", "along": "*fp32"}
    signature = {n: "constexpr" if n in constants else kinds.get(n, "*bf16") for n in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 8})
    print(compiled.metadata.shared)
"""


def in_a_child(code: str, **environment: str) -> str:
    if find_spec("triton") is None:  # not imported here: only the child needs it
        pytest.skip("triton is not installed")
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.mark.slow
def test_triton_kernels_equal_plain_in_the_interpreter():
    assert in_a_child(TRITON, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.slow
def test_triton_kernels_compile_for_compute_capability_8(tmp_path):
    shared = in_a_child(COMPILED, TRITON_CACHE_DIR=str(tmp_path)).split()
    assert len(shared) == 3
    assert all(int(size) <= 99 * 1024 for size in shared)  # the shared memory of small GPUs


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_kernels_are_accurate_on_a_gpu(dtype):
    tensors = [x.detach().cuda().requires_grad_() for x in inputs(2, 700, 900, 64, 512, dtype, 0.4)]
    exact = out_and_gradients(attention_kernels.plain, [x.double().detach().requires_grad_() for x in tensors])
    for kernel in (
        attention_kernels.attend,
        attention_kernels.tiled,
        attention_kernels.fused,
        attention_kernels.triton_tiled,
    ):
        for truth, found in zip(exact, out_and_gradients(kernel, tensors), strict=True):
            assert (found - truth).norm() <= (1e-5 if dtype == torch.float32 else 0.03) * truth.norm()


def test_attend_never_holds_a_large_map(monkeypatch):
    """At N = 2,048 one map has 4M weights; no exponential may be larger than a tile of 256 x 256."""
    monkeypatch.setattr(tiled_attention, "TILE", {"cpu": (256, 256)})
    largest, real = 0, torch.Tensor.exp2_

    def watched(x):
        nonlocal largest
        largest = max(largest, x.numel())
        return real(x)

    monkeypatch.setattr(torch.Tensor, "exp2_", watched)
    attention_kernels.attend(*inputs(1, 20, 20))
    assert largest == 0
    attention_kernels.attend(*inputs(1, 2048, 2048, 2, 2))
    assert largest == 256**2


@pytest.mark.parametrize("queries", [1025, 3])
def test_attend_equals_plain_at_any_size(queries):
    tensors = inputs(1, queries, 1025)
    torch.testing.assert_close(attention_kernels.attend(*tensors), attention_kernels.plain(*tensors))


class Attend(torch.nn.Module):
    def forward(self, query, key, value):
        return attention_kernels.attend(query, key, value)


def test_exported_graph_is_two_products_and_a_softmax():
    tensors = [x.detach() for x in inputs(1, 1100, 1100, 2, 2, torch.float32)]
    exported = torch.export.export(Attend(), tuple(tensors))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert len([name for name in names if "matmul" in name or "bmm" in name]) == 2
    assert len([name for name in names if "softmax" in name]) == 1
    torch.testing.assert_close(exported.module()(*tensors), attention_kernels.attend(*tensors))


PEAKS = """
import json, torch
from benchmarks import attention
from benchmarks.measure import _peak
from danet.model.attention import ChannelAttention

def channels(memory_format):
    x = torch.randn(1, 64, 512, 512).to(memory_format=memory_format)  # 67 MB
    module = ChannelAttention()
    module(x[..., :8, :8])
    return torch.inference_mode()(lambda: module(x))

found = {case: _peak(1, attention.prepare, *case.split()[:1], 3072, 512, "backward" in case, "cpu")
         for case in ("plain", "tiled", "tiled backward")}
found |= {str(f): _peak(1, channels, f) for f in (torch.contiguous_format, torch.channels_last)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def peaks():
    """Peak memory above the start in bytes, measured in one fresh process."""
    child = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("case", ["plain", "tiled", "tiled backward"])
def test_peak_memory_matches_the_estimate(peaks, case):
    kernel, backward = case.split()[0], "backward" in case
    predicted = attention_kernels.attention_bytes(1, 3072, 3072, 64, 512, backward=backward, kernel=kernel)
    assert 0.85 * predicted - 2e6 <= peaks[case] <= 1.15 * predicted + 6e6


@pytest.mark.parametrize("memory_format", ["torch.contiguous_format", "torch.channels_last"])
def test_channel_attention_copies_no_features(peaks, memory_format):
    """Two tensors of 67 MB are needed: the attended features and the result. A copy would be a third."""
    assert peaks[memory_format] < 2.2 * 67.1e6


def test_memory_estimate_is_the_sum_of_the_tensors():
    """B, N, M, D, C = 2, 3000, 5000, 64, 512; the tile is counted at its largest."""
    sizes, tile = (2, 3000, 5000, 64, 512), 2048 * 1024
    query, key, value, out = 2 * 3000 * 64, 2 * 5000 * 64, 2 * 5000 * 512, 2 * 3000 * 512
    weights, rows = 2 * 3000 * 5000, 2 * 2 * 3000  # rows: the largest energy and the sum of each
    gradients = query + key + value
    estimate = attention_kernels.attention_bytes
    assert estimate(*sizes, kernel="plain") == 4 * (2 * weights + out)
    assert estimate(*sizes, kernel="plain", backward=True) == 4 * (3 * weights + out + gradients)
    assert estimate(*sizes, torch.bfloat16, kernel="plain", backward=True) == (
        4 * (3 * weights + query + key) + 2 * (out + gradients)
    )
    assert estimate(*sizes) == 4 * (tile + out + rows)
    slopes = 2 * 2048 * 512  # for a tile's rows: the gradient over the sum, and its product with the result
    assert estimate(*sizes, backward=True) == 4 * (2 * tile + slopes + out + gradients + rows)
    assert estimate(*sizes, torch.bfloat16) == 4 * (tile + query + 2 * 3000 * 512 + key + value + out + rows)
    assert estimate(1, 10, 20, 4, 8) == 4 * (10 * 20 + 10 * 8 + 2 * 10)
    assert estimate(1, 5000, 9000, 4, 8, device="cuda") == 4 * (4096 * 8192 + 5000 * 8 + 2 * 5000)


def test_memory_estimate_is_linear_for_tiled_quadratic_for_plain():
    def bytes_of(n, kernel):
        return attention_kernels.attention_bytes(1, n, n, 64, 512, kernel=kernel)

    assert bytes_of(32768, "plain") == 2 * 32768**2 * 4 + 32768 * 512 * 4
    assert bytes_of(32768, "tiled") < 100e6
    assert bytes_of(65536, "tiled") < 2 * bytes_of(32768, "tiled")
    backward = attention_kernels.attention_bytes(2, 9216, 9216, 64, 512, backward=True)
    assert backward > attention_kernels.attention_bytes(2, 9216, 9216, 64, 512)


def test_out_of_memory_is_reported_with_the_bytes_needed(monkeypatch):
    def refuse(*_):
        return torch.empty(1 << 50)

    monkeypatch.setattr(attention_kernels, "tiled", refuse)
    with pytest.raises(InputError, match=r"1,100 positions: out of memory: .* 1 x 1,100 x 8 float64.* MB; use smaller"):
        attention_kernels.attend(*inputs(1, 1100, 1100))
    monkeypatch.setattr(attention_kernels, "tiled", lambda *_: torch.empty(2) @ torch.empty(3))
    with pytest.raises(RuntimeError, match="size"):  # other errors are not replaced
        attention_kernels.attend(*inputs(1, 1100, 1100))


def test_cuda_out_of_memory_is_reported_too():
    shape = (1, 4096, 64)
    with (
        pytest.raises(InputError, match="MB"),
        attention_kernels._report_out_of_memory(shape, 4096, 512, torch.float32),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("module", [PositionAttention(16), ChannelAttention()])
def test_both_modules_keep_the_memory_format_and_results(module):
    torch.manual_seed(0)
    torch.nn.init.constant_(module.scale, 0.5)
    x = torch.randn(2, 16, 40, 40)
    first, last = module(x), module(x.to(memory_format=torch.channels_last))
    assert first.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, first, rtol=1e-4, atol=1e-5)


def test_large_maps_can_be_trained_under_autocast(tiny_tiles, monkeypatch):
    monkeypatch.setattr(attention_kernels, "SMALL_MAP", 1)
    torch.manual_seed(0)
    module, x = PositionAttention(16), torch.randn(1, 16, 6, 6)
    torch.nn.init.constant_(module.scale, 0.7)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
    rounded.sum().backward()
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
