import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame

import danet
from danet import cli
from danet.errors import InputError
from danet.predict.predictor import Predictor
from danet.weights import export as module
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.export import Report, compare, export, to_onnx, to_openvino, usage
from danet.weights.quantize import spaced

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = Path(__file__).parents[2] / "examples/china.jpg"


@pytest.fixture(scope="module")
def network(tiny_weights) -> danet.DANet:
    """With a stem padded as TensorFlow does, whose padding depends on the image's size, and alpha and beta not 0."""
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
def test_an_exported_file_answers_as_the_network_does_at_every_size_and_batch(files, network, runtime):
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


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_predictor_takes_it_in_place_of_weights(files, network, tiny_weights, runtime):
    predictor, ours = danet.load(files[runtime]), Predictor(network, weights_file.read(tiny_weights)[1], "cpu")
    image = np.random.default_rng(0).integers(0, 256, (75, 101, 3), np.uint8)
    one, other = predictor(image), ours(image)
    assert len(set(other.labels.flat)) > 1
    assert (one.labels == other.labels).mean() > 0.9999
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-4)
    assert predictor.card == ours.card
    assert predictor.network.align_corners == network.align_corners
    with pytest.raises(InputError, match="exported files run on the processor"):
        danet.load(files[runtime], "cuda")


def test_predict_and_evaluate_take_it(files, tmp_path, capsys):
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
def test_the_server_takes_it(files, runtime):
    pytest.importorskip("fastapi")
    from httpx import ASGITransport, AsyncClient

    from danet.serve.app import create_app

    predictor = danet.load(files[runtime])

    async def questions():
        app = create_app(predictor)
        transport, address = ASGITransport(app), "http://127.0.0.1:8000"
        async with app.router.lifespan_context(app), AsyncClient(transport=transport, base_url=address) as client:
            content = EXAMPLE.read_bytes()
            segmented = await client.post("/v1/segment?output=labels", content=content, timeout=60)
            return segmented, await client.get("/v1/model"), await client.post("/v1/attention?x=1&y=1", content=content)

    segmented, model, attention = asyncio.run(questions())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(segmented.content))), predictor(EXAMPLE).labels)
    assert model.json()["attention"] == {"position": False, "channel": False}
    assert attention.status_code == 409


@pytest.fixture
def exported_before(monkeypatch, files):
    """Tracing takes seconds."""
    monkeypatch.setattr(module, "to_onnx", lambda *_: files["onnx"].read_bytes())


@pytest.fixture
def network_of_the_file(monkeypatch, exported_before, network, tiny_weights):
    """What the weights file would hold, were its network made with such a stem."""
    monkeypatch.setattr(weights_file, "load", lambda _: (network, weights_file.read(tiny_weights)[1]))


@pytest.mark.usefixtures("network_of_the_file")
def test_the_command_compares_and_writes_one_file_that_says_how_to_use_it(tiny_weights, tmp_path, capsys):
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
    assert "longer side brought to 128 pixels" in usage(card)
    assert danet.load(out).card == card
    content = out.read_bytes()
    assert str(Path(danet.__file__).parent).encode() not in content  # the exporter's stack traces
    assert b"site-packages" not in content
    assert cli.main(["export", str(tiny_weights), "--to", "onnx", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == content


@pytest.mark.usefixtures("exported_before")
def test_a_file_of_another_network_is_not_left(tiny_weights, tmp_path, capsys):
    for runtime, name in (("onnx", "o.onnx"), ("openvino", "o.xml")):
        args = ["export", str(tiny_weights), "--to", runtime, "--out", str(tmp_path / name)]
        assert cli.main(args) == 1
        assert "would not answer as the network does; nothing was written" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    assert cli.main([*args, "--no-verify"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.bin", "o.xml"]


def test_the_comparison_is_as_strict_as_it_says(files, network):
    file, _ = runtimes.load(files["onnx"])
    images = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    (same,) = compare(network, file, {"noise": images})
    assert Report((), (same,), quantized=False).good
    limit = 1e-4 * same.largest
    assert Report((), (same._replace(difference=0.99 * limit),), quantized=False).good
    assert not Report((), (same._replace(difference=1.01 * limit),), quantized=False).good
    assert not Report((), (same._replace(difference=float("nan")),), quantized=False).good
    assert not Report((), (same._replace(equal=same.pixels - 1),), quantized=False).good  # 1 of 1600
    assert Report((), (same._replace(difference=1, equal=1520),), quantized=True).good
    assert not Report((), (same._replace(equal=1519),), quantized=True).good


@pytest.mark.usefixtures("network_of_the_file")
def test_int8_is_calibrated_on_images(tiny_weights, files, network, tmp_path, capsys):
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
    assert printed.out.count("\n") == 2  # the two files, and nothing of NNCF's
    assert out.with_suffix(".bin").stat().st_size < 0.5 * files["openvino"].with_suffix(".bin").stat().st_size
    results = torch.cat(
        [module.normalized(path, weights_file.read(tiny_weights)[1]) for path in sorted(images.iterdir())]
    )
    file, card = runtimes.load(out)
    (compared,) = compare(network, file, {"images": results})
    assert 1e-3 < compared.difference < 0.25 * compared.largest
    assert compared.equal > 0.9 * compared.pixels
    assert card.metrics == {}


def test_images_for_calibration_are_spread_over_the_folder(tmp_path, tiny_weights):
    card = weights_file.read(tiny_weights)[1]
    for i in range(10):
        (tmp_path / f"{i}.png").touch()
    assert [path.stem for path in spaced(tmp_path, 4, card)] == ["0", "2", "5", "7"]
    assert len(spaced(tmp_path, 99, card)) == 10
    with pytest.raises(InputError, match="--calibration-count: 0 is less than 1"):
        spaced(tmp_path, 0, card)


def test_damaged_and_foreign_files_are_refused_in_one_line(files, tmp_path):
    whole = files["onnx"].read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path = tmp_path / "x.onnx"
    for content, message in (
        (b"", "was not exported by danet"),
        (whole[: len(whole) // 2], "not a whole ONNX file"),
        (whole[:-10], "not a whole ONNX file"),
        (bytes(flipped), "SHA-256 differs"),
        (b"<html>", "not a whole ONNX file"),
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
    with pytest.raises(InputError, match=r"x\.bin: no such file; .*needs its \.bin beside it"):
        danet.load(path)
    flipped = bytearray(binary)
    flipped[100] ^= 1
    for graph, stored, message in (
        (xml, bytes(flipped), "SHA-256 differs"),
        (xml, binary[:-50], "cannot be run|SHA-256 differs"),
        (xml[:-200], binary, "cannot be run"),
        (b"<net/>", binary, "cannot be run|not exported"),
    ):
        path.write_bytes(graph)
        path.with_suffix(".bin").write_bytes(stored)
        with pytest.raises(InputError, match=message) as caught:
            danet.load(path)
        assert "\n" not in str(caught.value)


def test_a_file_that_reaches_for_other_files_is_refused(files, tmp_path, monkeypatch):
    model = onnx.load(str(files["onnx"]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    path = tmp_path / "external.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="keeps weights in other files"):
        danet.load(path)
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])  # inside an If
    node = onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([node], "outer", [], [])).SerializeToString())
    with pytest.raises(InputError, match="keeps weights in other files"):
        danet.load(path)
    monkeypatch.setattr(runtimes, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="more than the limit of 1,000"):
        danet.load(files["onnx"])


def test_wrong_arguments_are_told(tiny_weights, files, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"a file for openvino ends in \.xml"):
        export(tiny_weights, tmp_path / "x.onnx", "openvino")
    with pytest.raises(InputError, match="--int8: is for OpenVINO"):
        export(tiny_weights, tmp_path / "x.onnx", "onnx", calibration=tmp_path)
    file, _ = runtimes.load(files["onnx"])
    with pytest.raises(InputError, match="have 4 channels, the network takes 3"):
        file.logits(torch.zeros(1, 4, 32, 32))
    for name, extra, path in (("onnxruntime", "export", files["onnx"]), ("openvino", "openvino", files["openvino"])):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"needs the package {name}; pip install 'danet\[{extra}\]'"):
            danet.load(path)


def test_int8_and_its_images_belong_together(capsys):
    assert cli.main(["export", "--to", "openvino", "--int8"]) == 2
    assert "--int8: needs images to calibrate by; add --calibration FOLDER" in capsys.readouterr().err
    assert cli.main(["export", "--to", "openvino", "--calibration", "x"]) == 2
    assert "--calibration: is for int8; add --int8" in capsys.readouterr().err


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


def test_a_signal_after_two_openvino_models_were_freed_ends_nothing(files):
    """With a core each, the first one freed took the stack for signals from the second."""
    command = [sys.executable, "-X", "faulthandler", "-c", _SIGNALS, str(files["openvino"])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.strip()) == (0, "alive"), ended.stderr[-500:]


def test_openvino_is_imported_without_its_telemetry():
    ov = runtimes.openvino("a test")
    assert ov.tools.ovc.telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


_QUIET = """
import sys
seen = []
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        seen.append(event)
        raise OSError("no connections here")
sys.addaudithook(hook)
import time
from danet.weights import runtimes
ov = runtimes.openvino("a test")
import nncf
ov.convert_model(sys.argv[1])
time.sleep(3)
print(len(seen), "openvino_telemetry.main" in sys.modules)
"""


@pytest.mark.slow
def test_nothing_is_sent_to_anyone(files, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", _QUIET, str(files["onnx"])]
    environment = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(danet.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    assert not (tmp_path / "intel").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "name"), [("onnx", "d.onnx"), ("openvino", "d.xml")])
def test_the_package_s_own_network_on_the_example_image(tmp_path, runtime, name):
    report = export(None, tmp_path / name, runtime, images=[EXAMPLE])
    assert report.good
    assert max(compared.difference for compared in report.compared) <= 1e-4
    ours, theirs = danet.load(device="cpu")(EXAMPLE), danet.load(tmp_path / name)(EXAMPLE)
    assert (ours.labels == theirs.labels).mean() > 0.9999
