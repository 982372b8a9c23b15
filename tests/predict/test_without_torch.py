"""predict, evaluate and serve run exported networks where torch, torchvision and timm are not installed."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import TOY, onnx_content
from miniature import build, stripes
from PIL import Image

import danet
from danet.arrays import largest
from danet.data.images.read import read_image, read_mask
from danet.errors import InputError
from danet.predict.inference import Inference
from danet.predict.predictor import Predictor
from danet.predict.protocols import PROTOCOLS, WHOLE
from danet.weights import onnx_file, runtimes

ROOT = Path(__file__).parents[2]
CHINA = ROOT / "examples/china.jpg"
PROGRAM = ROOT / "tests/without_torch.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    path.write_bytes(onnx_content(stride=8))
    return path


def run(*args: object, check: bool = True) -> subprocess.CompletedProcess:
    """Run danet in a process where torch is not installed."""
    command = [sys.executable, PROGRAM, *args]
    return subprocess.run(command, env=environment(), check=check, timeout=200, capture_output=True, text=True)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def with_torch(predictor: Predictor, pixels: np.ndarray, protocol=WHOLE) -> tuple[np.ndarray, np.ndarray]:
    """Segment by the code for networks in torch, which gets the same logits."""
    protocol, card = predictor.resolve_protocol(protocol), predictor.card
    return Inference(predictor.logits, card.mean, card.std, torch.device("cpu"), card.size, protocol).segment(pixels)


def test_predict_writes_the_labels_that_torch_computes(exported, tmp_path):
    run("predict", CHINA, "--weights", exported, "--out", tmp_path / "out")
    labels, _ = with_torch(danet.load(exported), read_image(CHINA))
    assert len(np.unique(labels)) > 2
    np.testing.assert_array_equal(read_mask(tmp_path / "out/china_labels.png"), labels)


@pytest.mark.parametrize("name", ["paper-multi", "released-single-cityscapes", "mmseg-slide-769-multi"])
def test_protocols_give_the_labels_that_torch_computes(exported, name):
    predictor, pixels = danet.load(exported), read_image(CHINA)[:150, :200]
    found = predictor.segment("china", pixels, PROTOCOLS[name])
    labels, confidence = with_torch(predictor, pixels, PROTOCOLS[name])
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.confidence, confidence, atol=1e-5)


def test_evaluate_gives_scores(exported, tmp_path):
    folder = build(tmp_path / "data", [stripes(*range(6)), stripes(3, 4)])
    (folder / "dataset.yaml").write_text(f"classes: [{', '.join(TOY.names)}]\nval: 0.5\n")
    options = ("--root", folder, "--json", tmp_path / "scores.json", "--report", tmp_path / "report.html")
    out = run("evaluate", exported, *options).stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert f"mIoU {100 * scores['miou']:.2f}" in out
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_serve_answers(exported):
    command = [sys.executable, PROGRAM, "serve", "--weights", exported, "--port", "0"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        request = urllib.request.Request(f"{url}/v1/segment", CHINA.read_bytes(), {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=100) as response:
            classes = json.load(response)["classes"]
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    expected = danet.load(exported)(CHINA).summary()["classes"]
    assert [entry["name"] for entry in classes] == [entry["name"] for entry in expected]


@pytest.mark.parametrize("command", ["predict", "train"])
def test_what_needs_torch_is_refused_on_one_line(command, tmp_path):
    weights = ("--weights", ROOT / "danet/default.safetensors", "--out", tmp_path / "out")
    done = run(command, *((CHINA, *weights) if command == "predict" else ("toy",)), check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "needs PyTorch" in line
    assert ".onnx" in line


def test_the_bundled_export_is_loaded_where_torch_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("danet.predict.predictor.DEFAULT_EXPORT", tmp_path / "default.onnx")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "danet.weights.file", raising=False)
    monkeypatch.delattr("danet.weights.file", raising=False)
    with pytest.raises(InputError, match="needs PyTorch"):
        danet.load()
    (tmp_path / "default.onnx").write_bytes(onnx_content(stride=8))
    assert danet.load().classes == danet.load(Path("default")).classes == TOY


def test_an_exported_file_is_loaded_without_torch_where_it_is_installed(exported):
    code = f"import sys, danet; danet.load({str(exported)!r})({str(CHINA)!r}).overlay(); "
    code += "print(*({'torch', 'torchvision', 'timm', 'onnx', 'safetensors'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=200)
    assert done.stdout == "\n", done.stderr


def test_metadata_and_hash_of_a_file_are_those_that_onnx_reads():
    import onnx

    content = onnx_content(stride=8)
    model, file = onnx.load_model_from_string(content), onnx_file.read(content)
    assert file.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert file.sha256 == runtimes.onnx_sha256(model) == file.metadata[runtimes.SHA256]
    assert file.self_contained


@pytest.mark.parametrize("nested", ["initializer", "attribute", "graph", "function"])
def test_tensors_in_other_files_and_functions_are_found_wherever_they_are(nested):
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_model_from_string(onnx_content())
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    if nested == "initializer":
        model.graph.initializer.append(outside)
    elif nested == "attribute":
        model.graph.node[0].attribute.append(helper.make_attribute("value", outside))
    elif nested == "graph":
        inner = helper.make_graph([], "inner", [], [], [outside])
        model.graph.node[0].attribute.append(helper.make_attribute("then_branch", inner))
    else:
        model.functions.append(helper.make_function("", "f", [], [], [], []))
    assert not onnx_file.read(model.SerializeToString()).self_contained


def test_a_truncated_file_is_refused(exported, tmp_path):
    (tmp_path / "half.onnx").write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a valid ONNX file"):
        danet.load(tmp_path / "half.onnx")


def test_the_first_of_equal_values_is_the_largest_and_nan_is_kept():
    scores = np.array([[[1.0, 5.0, np.nan]], [[1.0, 7.0, 2.0]], [[0.0, 7.0, 3.0]]], np.float32)
    values, index = largest(scores)
    np.testing.assert_array_equal(values, [[1, 7, np.nan]])
    np.testing.assert_array_equal(index[:, :2], [[0, 1]])


def test_large_images_give_the_labels_of_the_image(exported, tmp_path):
    pytest.importorskip("rasterio")
    from danet.predict.large_image import segment_file

    Image.fromarray(read_image(CHINA)[:200, :300]).save(tmp_path / "big.tif")
    segment_file(danet.load(exported), tmp_path / "big.tif", tmp_path / "out", size=512)
    labels = danet.load(exported).with_size(300)(tmp_path / "big.tif").labels
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/big_labels.tif")), labels)
