"""Export to ExecuTorch. What runs a .pte file is slow, and skipped where the extra is not installed."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import danet
from danet import cli
from danet.errors import InputError
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.export import Graph, export

EXAMPLE = Path(__file__).parents[2] / "examples/china.jpg"
SIZE = (64, 96)

_NEEDED = pytest.mark.skipif(find_spec("executorch") is None, reason="needs the extra executorch")


def needs_executorch(test: Callable) -> Callable:
    """Mark a test of a .pte file, which takes half a minute to make."""
    return pytest.mark.slow(_NEEDED(test))


@pytest.fixture(scope="module")
def exported(tiny_weights, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("executorch") / "tiny.pte"
    report = export(tiny_weights, out, "executorch", images=[EXAMPLE], graph=Graph(SIZE))
    assert report.good
    assert [one.input for one in report.compared] == ["noise 1x3x64x96", str(EXAMPLE)]
    assert report.agreement == 1
    return out


@needs_executorch
def test_exported_file_has_its_card_and_segments_as_the_network(exported, tiny_weights, tmp_path, capsys):
    network, card = weights_file.load(tiny_weights)
    predictor = danet.load(exported)
    assert predictor.card == card
    images = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network.eval()(images).fused.argmax(1)
    assert torch.equal(predictor.network.labels(images).long(), expected)
    photo = tmp_path / "photo.png"
    Image.open(EXAMPLE).convert("RGB").resize(SIZE[::-1]).save(photo)
    assert cli.main(["predict", str(photo), "--weights", str(exported), "--out", str(tmp_path / "out")]) == 2
    message = f"error: {exported}: takes only images of 96 x 64 pixels, as it was exported for one size, got 128 x 85"
    assert message in capsys.readouterr().err.splitlines()[-1]
    labels = predictor(photo, size=max(SIZE)).labels
    assert (labels == danet.load(tiny_weights)(photo, size=max(SIZE)).labels).mean() > 0.999


@needs_executorch
def test_damaged_files_are_errors(exported, tmp_path):
    content = exported.read_bytes()
    file = tmp_path / "damaged.pte"
    for damaged, message in (
        (content[: len(content) // 2], "cannot run it|its weights differ"),
        (content[:-1] + bytes([content[-1] ^ 1]), "its weights differ"),
        (b"", "cannot run it"),
        (content.replace(runtimes.CARD.encode(), b"other.card"), "has no danet metadata"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            danet.load(file)


@needs_executorch
def test_other_sizes_than_that_of_the_file_are_errors(exported):
    network, _ = runtimes.load(exported)
    assert network.logits(np.zeros((1, 3, *SIZE), np.float32)).fused.shape[:2] == (1, 6)
    with pytest.raises(InputError, match=r"takes only images of 96 x 64 pixels, .* got 64 x 64"):
        network.logits(np.zeros((1, 3, 64, 64), np.float32))


def test_options_that_executorch_does_not_have_are_errors(tiny_weights, tmp_path):
    out = tmp_path / "x.pte"
    for graph, calibration, message in (
        (Graph(), None, "size: is needed by executorch; specify height and width"),
        (Graph(SIZE), EXAMPLE.parent, "int8: is not supported by executorch; use `to` onnx or openvino"),
        (Graph(SIZE, float16=True), None, "float16: is only supported by onnx and triton"),
    ):
        with pytest.raises(InputError, match=message):
            export(tiny_weights, out, "executorch", calibration, graph=graph)
    with pytest.raises(InputError, match=r"ExecuTorch files must end in \.pte"):
        export(tiny_weights, tmp_path / "x.onnx", "executorch", graph=Graph(SIZE))


def test_missing_package_is_an_error(tiny_weights, tmp_path, monkeypatch):
    for name in ("executorch.exir", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "x.pte"
    with pytest.raises(InputError, match=r"to: needs the package executorch\.exir; .* uv sync --extra executorch"):
        export(tiny_weights, out, "executorch", graph=Graph(SIZE))
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.pte: needs the package executorch\.runtime"):
        danet.load(out)
