import asyncio
import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame

import danet
from danet import cli
from danet.data.images.channels import resize_long_side
from danet.errors import InputError
from danet.model.baselines import build_network
from danet.model.preprocess import normalize
from danet.predict.predictor import Predictor
from danet.weights import export as module
from danet.weights import export_preprocessing, runtimes
from danet.weights import file as weights_file
from danet.weights.export import Graph, Report, export, to_onnx, to_openvino, usage
from danet.weights.export_check import compare, float_inputs, open_whole
from danet.weights.export_preprocessing import with_preprocessing
from danet.weights.export_variants import quantize_onnx, to_float16, triton_repository
from danet.weights.quantize import calibration_images

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs onnxscript")  # imported by an export

EXAMPLE = Path(__file__).parents[2] / "examples/china.jpg"


@pytest.fixture(scope="module")
def network(tiny_weights) -> danet.DANet:
    """A network with TensorFlow's "same" padding, which depends on the image's size, and with alpha and beta not 0."""
    network, _ = weights_file.load(tiny_weights)
    stem = network.backbone.conv1
    same = Conv2dSame(3, stem[0].out_channels, 3, stride=2, bias=False)
    same.load_state_dict(stem[0].state_dict())
    stem[0] = same
    torch.nn.init.constant_(network.position.attention.scale, 2)
    torch.nn.init.constant_(network.channel.attention.scale, 1)
    torch.nn.init.normal_(network.classifier[1].weight, std=3)
    return network.eval()


@pytest.fixture(scope="module")
def files(network, tiny_weights, tmp_path_factory) -> dict[str, Path]:
    folder, card = tmp_path_factory.mktemp("exported"), weights_file.read(tiny_weights)[1]
    graph = to_onnx(network, card)
    (folder / "net.onnx").write_bytes(graph)
    binary, xml = to_openvino(graph, card)
    (folder / "net.bin").write_bytes(binary)
    (folder / "net.xml").write_bytes(xml)
    return {"onnx": folder / "net.onnx", "openvino": folder / "net.xml"}


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_exported_outputs_equal_the_network_at_any_size(files, network, runtime):
    file, _ = runtimes.load(files[runtime])
    generator = torch.Generator().manual_seed(1)
    for shape in ((1, 3, 61, 87), (3, 3, 61, 87), (3, 3, 40, 128), (1, 3, 8, 9)):
        images = torch.randn(shape, generator=generator)
        with torch.inference_mode():
            ours, labels = network.logits(images).fused, network(images).fused.argmax(1)
        theirs = file.logits(images).fused
        assert theirs.shape == ours.shape
        assert ours.abs().max() > 1
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
        assert file.labels(images).dtype == torch.uint8
        assert (file.labels(images) == labels).float().mean() > 0.9999


def test_bfloat16_is_that_of_openvino_and_of_the_cpu(files, monkeypatch):
    images = np.random.default_rng(1).standard_normal((1, 3, 61, 87), np.float32)
    if runtimes.supports_bfloat16():
        exact, rounded = danet.load(files["openvino"]), danet.load(files["openvino"], dtype="bfloat16")
        assert rounded.dtype == "bfloat16"
        expected, found = exact.logits(images), rounded.logits(images)
        assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    with pytest.raises(InputError, match=r"dtype: bfloat16 is not supported: \.onnx files have a fixed precision"):
        danet.load(files["onnx"], dtype="bfloat16")
    with pytest.raises(InputError, match="dtype: is bfloat16, but the model was loaded in float32"):
        Predictor(*runtimes.load(files["openvino"]), dtype="bfloat16")
    monkeypatch.setattr(runtimes, "supports_bfloat16", lambda: False)
    with pytest.raises(InputError, match="dtype: bfloat16 is not supported by this CPU; use float32"):
        danet.load(files["openvino"], dtype="bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [danet.DRANet, partial(danet.DANet, output_stride=16, decoder=True, align_corners=False)],
    ids=["DRANet", "decoder"],
)
def test_exported_networks_with_a_decoder_equal_them_at_any_size(build, tiny_weights, tmp_path):
    network = build(6, "resnet18", width=16, initial_scale=1.0).eval()
    torch.nn.init.normal_(network.position.attention.key.weight, std=2)
    torch.nn.init.normal_(network.classifier[1].weight, std=5)
    card = weights_file.read(tiny_weights)[1]
    graph = to_onnx(network, card)
    binary, xml = to_openvino(graph, card)
    for name, content in (("net.onnx", graph), ("net.bin", binary), ("net.xml", xml)):
        (tmp_path / name).write_bytes(content)
    for file in (runtimes.load(tmp_path / "net.onnx")[0], runtimes.load(tmp_path / "net.xml")[0]):
        for shape in ((1, 3, 61, 87), (3, 3, 40, 128), (1, 3, 8, 9)):
            images = torch.randn(shape)
            with torch.inference_mode():
                ours = network.logits(images).fused
            torch.testing.assert_close(file.logits(images).fused, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_predictor_accepts_an_exported_file(files, network, tiny_weights, runtime):
    predictor, ours = danet.load(files[runtime]), Predictor(network, weights_file.read(tiny_weights)[1], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)
    exported, original = predictor(image), ours(image)
    assert len(set(original.labels.flat)) > 1
    assert (exported.labels == original.labels).mean() > 0.9999
    np.testing.assert_allclose(exported.confidence, original.confidence, atol=1e-4)
    np.testing.assert_allclose(exported.probabilities, original.probabilities, atol=1e-4)
    assert predictor.card == ours.card
    assert predictor.network.align_corners == network.align_corners
    with pytest.raises(InputError, match="device: 'cuda' is not supported: exported models run on the CPU"):
        danet.load(files[runtime], "cuda")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_exported_files_of_version_0_1_0_load(files, tmp_path, runtime):
    """Their cards have the British spelling of the key `license`."""
    path, card = tmp_path / files[runtime].name, runtimes.load(files[runtime])[1]
    content = files[runtime].read_bytes()
    assert b"license" in content
    path.write_bytes(content.replace(b"license", b"licence"))  # vocabulary: old name
    if runtime == "openvino":
        path.with_suffix(".bin").write_bytes(files[runtime].with_suffix(".bin").read_bytes())
    assert runtimes.load(path)[1] == card


def test_predict_and_evaluate_accept_exported_files(files, tmp_path, capsys):
    assert cli.main(["predict", str(EXAMPLE), "--weights", str(files["onnx"]), "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "china.json").read_text())["width"] == 640
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    classes = danet.load(files["onnx"]).classes
    (root / "dataset.yaml").write_text(f"classes: [{', '.join(classes.names)}]\nval: 0.5\n")
    for i in range(4):
        Image.new("RGB", (40, 30), (i, 60 * i, 9)).save(root / f"images/{i}.png")
        Image.new("L", (40, 30), i).save(root / f"masks/{i}.png")
    scores = tmp_path / "scores.json"
    assert cli.main(["evaluate", str(files["openvino"]), "--root", str(root), "--json", str(scores)]) == 0
    assert json.loads(scores.read_text())["images"] > 0
    capsys.readouterr()


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_server_accepts_an_exported_file(files, runtime):
    pytest.importorskip("fastapi")
    from httpx import ASGITransport, AsyncClient

    from danet.serve.app import create_app

    predictor = danet.load(files[runtime])

    async def requests():
        app = create_app(predictor)
        transport, address = ASGITransport(app), "http://127.0.0.1:8000"
        async with app.router.lifespan_context(app), AsyncClient(transport=transport, base_url=address) as client:
            content = EXAMPLE.read_bytes()
            segmented = await client.post("/v1/segment?output=labels", content=content, timeout=60)
            return segmented, await client.get("/v1/model"), await client.post("/v1/attention?x=1&y=1", content=content)

    segmented, model, attention = asyncio.run(requests())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(segmented.content))), predictor(EXAMPLE).labels)
    assert model.json()["attention"] == {"position": False, "channel": False}
    assert attention.status_code == 409


@pytest.fixture
def traced_once(monkeypatch, files):
    """Reuse the exported graph, since tracing takes seconds."""
    monkeypatch.setattr(module, "to_onnx", lambda *_: files["onnx"].read_bytes())


@pytest.fixture
def network_of_the_file(monkeypatch, traced_once, network, tiny_weights):
    """Make the weights file load as the network that was exported."""
    monkeypatch.setattr(weights_file, "load", lambda _: (network, weights_file.read(tiny_weights)[1]))


@pytest.mark.usefixtures("network_of_the_file")
def test_export_compares_and_writes_a_self_describing_file(tiny_weights, tmp_path, capsys):
    out = tmp_path / "tiny.onnx"
    assert cli.main(["export", str(tiny_weights), "--to", "onnx", "--out", str(out), "--images", str(EXAMPLE)]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("labels equal") == 5
    assert printed.err == ""
    assert list(tmp_path.iterdir()) == [out]
    model = onnx.load(str(out), load_external_data=False)
    card = weights_file.read(tiny_weights)[1]
    assert model.doc_string == usage(card)
    assert "(value / 255 - mean) / std with mean [0.5, 0.5, 0.5]" in usage(card)
    assert "longer side of the image to 128 pixels" in usage(card)
    assert danet.load(out).card == card
    content = out.read_bytes()
    assert str(Path(danet.__file__).parent).encode() not in content  # the exporter's stack traces
    assert b"site-packages" not in content
    assert cli.main(["export", str(tiny_weights), "--to", "onnx", "--out", str(out)]) == 2
    assert "already exists; choose another --out, or add --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == content


def test_a_baseline_that_pads_images_is_exported_at_a_fixed_size(tiny_weights, tmp_path, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    arguments = {"num_classes": 6, "architecture": "smp:PSPNet", "backbone": "test_resnet", "output_stride": 16}
    card = replace(weights_file.read(tiny_weights)[1], network=arguments)
    weights, out = tmp_path / "baseline.safetensors", tmp_path / "net.onnx"
    weights_file.save(weights, build_network(**arguments), card)
    command = ["export", str(weights), "--to", "onnx", "--out", str(out)]
    assert cli.main(command) == 2
    assert "--size: cannot export smp:PSPNet with test_resnet for all image sizes" in capsys.readouterr().err
    assert cli.main([*command, "--size", "144x192"]) == 0
    assert danet.load(out).card == weights_file.read(weights)[1]


@pytest.mark.usefixtures("traced_once")
def test_nothing_is_written_if_the_comparison_fails(tiny_weights, tmp_path, capsys):
    for runtime, name in (("onnx", "o.onnx"), ("openvino", "o.xml")):
        args = ["export", str(tiny_weights), "--to", runtime, "--out", str(tmp_path / name)]
        assert cli.main(args) == 1
        assert "the exported network differs from the original; nothing was written" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    assert cli.main([*args, "--no-verify"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.bin", "o.xml"]


def test_comparison_limits(files, network):
    file, _ = runtimes.load(files["onnx"])
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    (same,) = compare(network, file, {"noise": images})
    assert Report((), (same,), precision="float32").good
    limit = 1e-4 * same.largest
    assert Report((), (same._replace(difference=0.99 * limit),), precision="float32").good
    assert not Report((), (same._replace(difference=1.01 * limit),), precision="float32").good
    assert not Report((), (same._replace(difference=float("nan")),), precision="float32").good
    assert not Report((), (same._replace(equal=same.pixels - 1),), precision="float32").good  # 1 of 1600
    assert Report((), (same._replace(difference=1, equal=1520),), precision="int8").good
    assert not Report((), (same._replace(equal=1519),), precision="int8").good


@pytest.mark.usefixtures("network_of_the_file")
def test_int8_export_is_small_and_close(tiny_weights, files, network, tmp_path, capsys):
    pytest.importorskip("nncf")
    images = tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 7, 3), np.uint8))
        coarse.resize((112, 80), Image.Resampling.BICUBIC).save(images / f"{i}.png")
    args = ["export", str(tiny_weights), "--to", "openvino", "--int8", "--calibration", str(images)]
    out = tmp_path / "i.xml"
    status = cli.main([*args, "--calibration-count", "4", "--out", str(out), "--no-verify"])
    assert status == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 2  # the two files, nothing from NNCF
    assert out.with_suffix(".bin").stat().st_size < 0.5 * files["openvino"].with_suffix(".bin").stat().st_size
    results = torch.cat(
        list(float_inputs(weights_file.read(tiny_weights)[1], sorted(images.iterdir()), False, None).values())
    )
    file, card = runtimes.load(out)
    (compared,) = compare(network, file, {"images": results})
    assert 1e-3 < compared.difference < 0.25 * compared.largest
    assert compared.equal > 0.9 * compared.pixels
    assert card.metrics == {}


@pytest.mark.parametrize("size", [None, 160])
def test_graph_with_preprocessing_equals_predict_at_any_size(files, network, tiny_weights, size):
    card = replace(weights_file.read(tiny_weights)[1], size=size)
    run, predictor = open_whole(with_preprocessing(files["onnx"].read_bytes(), card)), Predictor(network, card, "cpu")
    generator = np.random.default_rng(0)
    for shape in ((75, 101), (160, 120), (60, 240), (9, 33)):
        image = generator.integers(0, 256, (*shape, 3), np.uint8)
        labels, confidence = run(image)
        ours = predictor(image)
        assert labels.dtype == np.uint8
        assert (labels == ours.labels).mean() >= 0.9999
        np.testing.assert_allclose(confidence, ours.confidence, atol=1e-4)


def test_preprocessing_in_the_graph_is_pillows_to_the_bit():
    from onnx import parser
    from onnxruntime import InferenceSession

    card = replace(weights_file.read(weights_file.DEFAULT)[1], size=96)
    model = parser.parse_model('<ir_version: 10, opset_import: ["" : 18]>\n' + export_preprocessing._before(card))
    session, generator = InferenceSession(model.SerializeToString()), np.random.default_rng(0)
    for shape in ((64, 43), (43, 64), (150, 100), (97, 13), (96, 70), (5, 7), (1, 40), (33, 300)):  # 64 -> 96 has ties
        images = generator.integers(0, 256, (2, *shape, 3), np.uint8)
        (found,) = session.run(["normalized"], {"images": images})
        for image, values in zip(images, found, strict=True):
            resized = torch.tensor(resize_long_side(image, 96))[None]
            assert np.array_equal(values, normalize(resized, card.mean, card.std)[0].numpy())


def test_half_precision_file_is_half_the_size_and_close(files, network, tmp_path):
    path = tmp_path / "half.onnx"
    path.write_bytes(to_float16(files["onnx"].read_bytes()))
    assert path.stat().st_size < 0.7 * files["onnx"].stat().st_size
    (compared,) = compare(network, runtimes.load(path)[0], {"noise": torch.randn(1, 3, 64, 96)})
    assert 0 < compared.difference < 0.02 * compared.largest
    assert compared.equal > 0.98 * compared.pixels


def test_half_precision_graph_with_preprocessing_is_close_to_predict(files, network, tiny_weights):
    card = replace(weights_file.read(tiny_weights)[1], size=96)
    run = open_whole(with_preprocessing(to_float16(files["onnx"].read_bytes()), card))
    image = np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)
    (labels, confidence), ours = run(image), Predictor(network, card, "cpu")(image)
    assert (labels == ours.labels).mean() >= 0.98
    np.testing.assert_allclose(confidence, ours.confidence, atol=0.01)


def test_int8_for_onnx_runtime_is_small_and_keeps_its_card(files, network, tiny_weights, tmp_path):
    generator, card = np.random.default_rng(0), weights_file.read(tiny_weights)[1]
    images = [tmp_path / f"{i}.png" for i in range(4)]
    for file in images:
        coarse = Image.fromarray(generator.integers(0, 256, (5, 7, 3), np.uint8))
        coarse.resize((112, 80), Image.Resampling.BICUBIC).save(file)
    path = tmp_path / "int8.onnx"
    path.write_bytes(quantize_onnx(files["onnx"].read_bytes(), card, images))
    assert path.stat().st_size < 0.7 * files["onnx"].stat().st_size
    graph = onnx.load(str(path)).graph
    sources = {name: node.op_type for node in graph.node for name in node.output}
    activations = [node for node in graph.node if node.op_type in ("Relu", "Clip")]
    assert "DequantizeLinear" not in {sources[node.input[0]] for node in activations}  # they are in the convolutions
    exported, stored = runtimes.load(path)
    assert stored == card
    results = compare(network, exported, float_inputs(card, images, False, None))
    assert all(1e-3 < c.difference < c.largest for c in results)  # labels are compared by `export`, on real images


def test_triton_repository_describes_its_graph(files, tiny_weights):
    graph = with_preprocessing(files["onnx"].read_bytes(), weights_file.read(tiny_weights)[1])
    repository = triton_repository(graph, "danet")
    assert repository["danet/1/model.onnx"] == graph
    lines = repository["danet/config.pbtxt"].decode().splitlines()
    assert 'input [ { name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] } ]' in lines
    assert 'output [ { name: "labels" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] } ]' in lines
    assert 'output [ { name: "confidence" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] } ]' in lines


@pytest.mark.usefixtures("network_of_the_file")
def test_triton_export_is_compared_and_measured_on_labels(tiny_weights, tmp_path, capsys):
    root, card = tmp_path / "data", weights_file.read(tiny_weights)[1]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "dataset.yaml").write_text(f"classes: [{', '.join(card.classes.names)}]\nval: 0.5\n")
    for i in range(4):
        Image.new("RGB", (40, 30), (i, 60 * i, 9)).save(root / f"images/{i}.png")
        Image.new("L", (40, 30), i).save(root / f"masks/{i}.png")
    args = ["export", str(tiny_weights), "--to", "triton", "--out", str(tmp_path / "models"), "--verify-on", str(root)]
    assert cli.main(args) == 0
    printed = capsys.readouterr().out
    assert printed.count("labels equal") == 2
    measured = [line.rsplit(": ", 1)[1] for line in printed.splitlines() if "mIoU" in line]
    assert len(measured) == 2
    assert measured[0] == measured[1]
    assert (tmp_path / "models/danet/config.pbtxt").exists()


@pytest.mark.usefixtures("network_of_the_file")
@pytest.mark.parametrize("option", ["--images", "--verify-on"])
def test_graphs_with_preprocessing_refuse_images_of_16_bits(option, tiny_weights, tmp_path, capsys):
    root, card = tmp_path / "data", weights_file.read(tiny_weights)[1]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "dataset.yaml").write_text(f"classes: [{', '.join(card.classes.names)}]\nval: 0.5\n")
    for i in range(2):
        Image.fromarray(np.full((30, 40), 300 * i, np.uint16)).save(root / f"images/{i}.png")
        Image.new("L", (40, 30), i).save(root / f"masks/{i}.png")
    given = root / "images/1.png" if option == "--images" else root
    args = ["export", tiny_weights, "--to", "onnx", "--preprocessing", "--out", tmp_path / "a.onnx", option, given]
    assert cli.main([str(arg) for arg in args]) == 2
    expected = "has more than 8 bits per value, which a graph with preprocessing does not take; convert it to 8 bits"
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_fixed_size_file_runs_in_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    size = (96, 160)
    report = export(None, tmp_path / "fixed.onnx", "onnx", graph=Graph(size=size))
    assert report.good
    images = torch.randn(1, 3, *size)
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "fixed.onnx"))
    net.setInput(images.numpy(), "images")
    _, labels = net.forward(["logits", "labels"])
    ours = weights_file.load(None)[0](images).fused.argmax(1).numpy()
    assert (labels.reshape(ours.shape) == ours).mean() > 0.9999


def test_calibration_images_are_evenly_spaced(tmp_path, tiny_weights):
    card = weights_file.read(tiny_weights)[1]
    for i in range(10):
        (tmp_path / f"{i}.png").touch()
    assert [path.stem for path in calibration_images(tmp_path, 4, card)] == ["0", "2", "5", "7"]
    assert len(calibration_images(tmp_path, 99, card)) == 10
    with pytest.raises(InputError, match="calibration_count: must be at least 1, got 0"):
        calibration_images(tmp_path, 0, card)


def test_damaged_and_foreign_files_are_errors(files, tmp_path):
    whole = files["onnx"].read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path = tmp_path / "x.onnx"
    for content, message in (
        (b"", "has no danet metadata"),
        (whole[: len(whole) // 2], "not a valid ONNX file"),
        (whole[:-10], "not a valid ONNX file"),
        (bytes(flipped), "SHA-256 mismatch"),
        (b"<html>", "not a valid ONNX file"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            danet.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        danet.load(tmp_path / "none.onnx")
    xml, binary = files["openvino"].read_bytes(), files["openvino"].with_suffix(".bin").read_bytes()
    path = tmp_path / "x.xml"
    path.write_bytes(xml)
    with pytest.raises(InputError, match=r"x\.bin: no such file; .*needs its \.bin in the same folder"):
        danet.load(path)
    flipped = bytearray(binary)
    flipped[100] ^= 1
    for graph, stored, message in (
        (xml, bytes(flipped), "SHA-256 mismatch"),
        (xml, binary[:-50], "cannot run it|SHA-256 mismatch"),
        (xml[:-200], binary, "cannot run it"),
        (b"<net/>", binary, "cannot run it|has no danet metadata"),
    ):
        path.write_bytes(graph)
        path.with_suffix(".bin").write_bytes(stored)
        with pytest.raises(InputError, match=message) as caught:
            danet.load(path)
        assert "\n" not in str(caught.value)


def test_a_graph_with_preprocessing_is_refused_as_weights(files, tiny_weights, tmp_path):
    card = weights_file.read(tiny_weights)[1]
    (tmp_path / "whole.onnx").write_bytes(with_preprocessing(files["onnx"].read_bytes(), card))
    with pytest.raises(InputError, match=r"whole\.onnx: has preprocessing inside, .*; export it without preproc"):
        danet.load(tmp_path / "whole.onnx")


def test_onnx_files_with_external_data_are_errors(files, tmp_path, monkeypatch):
    model = onnx.load(str(files["onnx"]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    path = tmp_path / "external.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="stores weights in other files"):
        danet.load(path)
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])  # inside an If
    node = onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([node], "outer", [], [])).SerializeToString())
    with pytest.raises(InputError, match="stores weights in other files"):
        danet.load(path)
    monkeypatch.setattr(runtimes, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="the limit is 1,000"):
        danet.load(files["onnx"])


def test_invalid_arguments_are_errors(tiny_weights, files, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"OpenVINO files must end in \.xml; change `out`"):
        export(tiny_weights, tmp_path / "x.onnx", "openvino")
    for graph, to, message in (
        (Graph(opset=17), "onnx", "opset: must be from 18 to 23, got 17"),
        (Graph(size=(16, 64)), "onnx", "size: must be at least 32 x 32, got 16 x 64"),
        (Graph(size=(999_999, 999_999)), "onnx", "size: must have at most 64,000,000 pixels, got 999999 x 999999"),
        (Graph(size=(64, 64), preprocessing=True), "onnx", "size: conflicts with preprocessing"),
        (Graph(float16=True), "openvino", "float16: is only supported by onnx and triton; use `to` onnx"),
        (Graph(preprocessing=True), "openvino", "preprocessing: is only supported by onnx and triton"),
    ):
        with pytest.raises(InputError, match=message):
            export(tiny_weights, tmp_path / ("x.xml" if to == "openvino" else "x.onnx"), to, graph=graph)
    with pytest.raises(InputError, match="float16: conflicts with int8"):
        export(tiny_weights, tmp_path / "x.onnx", "onnx", tmp_path, graph=Graph(float16=True))
    file, _ = runtimes.load(files["onnx"])
    with pytest.raises(InputError, match="have 4 channels, but the network takes 3"):
        file.logits(torch.zeros(1, 4, 32, 32))
    for name, extra, path in (("onnxruntime", "export", files["onnx"]), ("openvino", "openvino", files["openvino"])):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"needs the package {name}; .* uv sync --extra {extra}"):
            danet.load(path)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--no-verify", "--images", "nope.jpg"), "--images: are images to compare on, but nothing is compared with"),
        (("--verify-on", "nope"), "nope: no such folder"),
    ],
)
def test_wrong_inputs_are_found_before_the_export(options, line, tmp_path, monkeypatch, capsys, tiny_weights):
    monkeypatch.chdir(tmp_path)
    words = ["export", str(tiny_weights), "--to", "onnx", "--out", "x.onnx", *options]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_file_for_one_size_says_which_images_it_takes(runtime, network, tiny_weights, tmp_path, capsys):
    card = weights_file.read(tiny_weights)[1]
    content = to_onnx(network, card, (64, 96))
    file, photo = tmp_path / "fixed.onnx", tmp_path / "photo.png"
    file.write_bytes(content)
    if runtime == "openvino":
        file = tmp_path / "fixed.xml"
        for path, part in zip((tmp_path / "fixed.bin", file), to_openvino(content, card), strict=True):
            path.write_bytes(part)
    Image.new("RGB", (960, 674)).save(photo)
    words = ["predict", str(photo), "--weights", str(file), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    takes = f"error: {file}: takes only images of 96 x 64 pixels, as it was exported for one size"
    remedy = "; use --size 96 for images of this shape, or export it again, for any size\n"
    assert capsys.readouterr().err == f"{takes}, got 128 x 90{remedy}"
    assert cli.main(["serve", "--weights", str(file), "--port", "0"]) == 2
    line = f"{takes}, but images are resized to a long side of 128; export it again, for any size\n"
    assert capsys.readouterr().err == line
    Image.new("RGB", (960, 640)).save(photo)
    assert cli.main([*words, "--size", "96"]) == 0
    exported, images = runtimes.load(file)[0], torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(exported.logits(images).fused, network.logits(images).fused, rtol=0, atol=1e-4)


def test_int8_and_calibration_need_each_other(capsys):
    assert cli.main(["export", "--to", "openvino", "--int8"]) == 2
    assert "--int8: needs calibration images; add --calibration FOLDER" in capsys.readouterr().err
    assert cli.main(["export", "--to", "openvino", "--calibration", "x"]) == 2
    assert "--calibration: needs --int8; add --int8" in capsys.readouterr().err


_SIGNALS = """
import signal, sys
from pathlib import Path
import danet

signal.signal(signal.SIGUSR1, lambda *_: print("alive"))
first, second = danet.load(Path(sys.argv[1])), danet.load(Path(sys.argv[1]))
del first
del second
signal.raise_signal(signal.SIGUSR1)
"""


def test_signal_after_freeing_two_openvino_models_is_harmless(files):
    """With one core per model, freeing the first one would free the signal stack of the second."""
    command = [sys.executable, "-X", "faulthandler", "-c", _SIGNALS, str(files["openvino"])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.strip()) == (0, "alive"), ended.stderr[-500:]


def test_openvino_is_imported_without_telemetry():
    ov = runtimes.import_openvino("a test")
    assert ov.tools.ovc.telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


_QUIET = """
import sys
connections = []
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        connections.append(event)
        raise OSError("no connections here")
sys.addaudithook(hook)
import time
from danet.weights import runtimes
ov = runtimes.import_openvino("a test")
import nncf
ov.convert_model(sys.argv[1])
time.sleep(3)
print(len(connections), "openvino_telemetry.main" in sys.modules)
"""


@pytest.mark.slow
def test_openvino_and_nncf_make_no_connections(files, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", _QUIET, str(files["onnx"])]
    environment = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(danet.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert not (tmp_path / "intel").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "name"), [("onnx", "d.onnx"), ("openvino", "d.xml")])
def test_bundled_weights_export_on_the_example_image(tmp_path, runtime, name):
    report = export(None, tmp_path / name, runtime, images=[EXAMPLE])
    assert report.good
    assert max(compared.difference for compared in report.compared) <= 1e-4
    ours, theirs = danet.load(device="cpu")(EXAMPLE), danet.load(tmp_path / name)(EXAMPLE)
    assert (ours.labels == theirs.labels).mean() > 0.9999
