"""Weights on the Hugging Face Hub, against a stand-in on this machine: download, cache, upload, and every error."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from hub_server import HubServer, serving
from PIL import Image

import danet
from danet import DANet, DRANet, InputError
from danet.cli import main
from danet.cli.export import Export, _default_out
from danet.weights import file as weights_file
from danet.weights.card import Card, peek
from danet.weights.hub_files import fetch, parse
from danet.weights.model_card import metadata, model_card

CLOSED = "http://127.0.0.1:9"  # the port of `discard`, on which nothing listens


def connect(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch, tmp_path, tiny_weights):
    """Yield a Hub with the tiny weights in user/tiny, and an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as server:
        connect(monkeypatch, server.endpoint)
        content = tiny_weights.read_bytes()
        server.files["user/tiny"] = {"model.safetensors": content, "parts/other.safetensors": content}
        yield server


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf://user/repo", ("user/repo", None, "model.safetensors")),
        ("hf:/user/repo", ("user/repo", None, "model.safetensors")),  # as `Path` joins the slashes
        ("hf://user/repo@v1.2", ("user/repo", "v1.2", "model.safetensors")),
        ("hf://user/repo/a/best.safetensors", ("user/repo", None, "a/best.safetensors")),
        ("hf://us-er/re.po_1@main/best.safetensors", ("us-er/re.po_1", "main", "best.safetensors")),
    ],
)
def test_addresses_are_read(name, parts):
    assert parse(name) == parts
    assert parse(str(parse(name))) == parts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://user", r"^hf://user: not an address of the Hub; write hf://USER/REPO"),
        ("hf://", "not an address"),
        ("hf://user/repo@", "not an address"),
        ("hf://user/repo/pytorch_model.bin", r"only .safetensors files are read from the Hub; other formats can run"),
        ("hf://user/repo/model.onnx", "only .safetensors files"),
    ],
)
def test_other_addresses_and_formats_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        danet.load(name)


@pytest.mark.parametrize("name", ["hf://user/tiny", "hf://user/tiny@v1", "hf://user/tiny/parts/other.safetensors"])
def test_loaded_network_is_that_of_the_file(hub: HubServer, tiny_weights, name):
    own, other = danet.load(name), danet.load(tiny_weights)
    assert own.card == other.card
    stored = other.network.state_dict()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in own.network.state_dict().items())


def test_revision_is_asked_for(hub):
    fetch("hf://user/tiny@v1")
    assert "HEAD /user/tiny/resolve/v1/model.safetensors" in hub.requests


def test_second_load_downloads_nothing_and_works_offline(hub, monkeypatch, tiny_weights):
    first = fetch("hf://user/tiny")
    hub.requests.clear()
    assert fetch("hf://user/tiny") == first
    assert not [request for request in hub.requests if request.startswith("GET")]
    connect(monkeypatch, CLOSED)
    assert fetch("hf://user/tiny").read_bytes() == tiny_weights.read_bytes()


def test_new_version_is_downloaded(hub, tiny_weights):
    fetch("hf://user/tiny")
    hub.files["user/tiny"]["model.safetensors"] = tiny_weights.read_bytes() + b" "
    assert fetch("hf://user/tiny").stat().st_size == tiny_weights.stat().st_size + 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf://user/none",
            "no repository user/none on the Hub, or it is private; check the name, or run hf auth login",
        ),
        ("hf://user/tiny@v9", "no revision v9 in user/tiny; use a branch, a tag or a commit of it"),
        (
            "hf://user/tiny/best.safetensors",
            "no file best.safetensors in user/tiny; name the file: hf://USER/REPO/FILE",
        ),
        ("hf://user/gated", "access to this repository is restricted; ask for access on its page"),
        ("hf://us..er/tiny", "not a name on the Hub"),
    ],
)
def test_errors_of_the_hub_are_one_line(hub, name, message):
    hub.gated.add("user/gated")
    hub.files["user/gated"] = {}
    with pytest.raises(InputError) as caught:
        danet.load(name)
    assert str(caught.value).startswith(str(parse(name)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_connection_is_said_at_once(hub, monkeypatch):
    connect(monkeypatch, CLOSED)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("it tries again and again"))
    with pytest.raises(InputError, match=r"^hf://.*: the Hub does not answer \(ConnectError: .*\); check the conn"):
        danet.load("hf://user/tiny")


@pytest.mark.parametrize(
    ("content", "message"), [(b"PK\x03\x04 a pickle", "not a valid .safetensors file"), (b"", "not a valid")]
)
def test_files_that_are_no_weights_are_refused(hub, content, message):
    hub.files["user/tiny"]["model.safetensors"] = content
    with pytest.raises(InputError, match=message):
        danet.load("hf://user/tiny")


def test_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"needs huggingface_hub, which is not installed; .*uv sync --extra hub"):
        fetch("hf://user/tiny")


def test_predict_takes_an_address(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save("a.png")
    assert main(["predict", "a.png", "--weights", "hf://user/tiny", "--out", "out"]) == 0
    assert Path("out/a_labels.png").exists()


def test_wrong_address_is_an_error_of_the_command(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save("a.png")
    assert main(["predict", "a.png", "--weights", "hf://user/none"]) == 2
    assert capsys.readouterr().err.startswith("error: hf://user/none/model.safetensors: no repository user/none on the")


def test_training_starts_from_an_address(hub):
    network = DANet(6, "test_resnet", width=16)
    weights_file.load_into(network, {"num_classes": 6, "backbone": "test_resnet", "width": 16}, _classes(), _path())
    stored = danet.load("hf://user/tiny").network.state_dict()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in network.state_dict().items())


def _path() -> Path:
    return Path("hf://user/tiny")


def _classes():
    card = peek("hf://user/tiny")
    assert card
    return card.classes


def test_saved_network_is_loaded_again(tmp_path, tiny_weights):
    network = DANet.from_pretrained(tiny_weights)
    assert not network.training
    with torch.no_grad():
        network.classifier[1].bias.fill_(3.0)
    network.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["README.md", "model.safetensors"]
    again = DANet.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert again.card.classes == network.card.classes


@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
def test_files_that_danet_did_not_write_are_not_replaced(tmp_path, tiny_weights, name):
    network = DANet.from_pretrained(tiny_weights)
    (tmp_path / name).write_text("# My project\n\nIt says library_name: danet.\n")
    with pytest.raises(InputError, match=f"{name}: exists, and was not written by danet; choose another folder, or"):
        network.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
    (tmp_path / name).unlink()
    network.save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)


def test_exports_of_weights_on_the_hub_are_written_to_the_current_folder():
    for address, name in (
        ("hf://user/my.repo", "my.repo.onnx"),
        ("hf://user/repo@v1.0", "repo.onnx"),
        ("hf://user/repo/sub/best.v2.safetensors", "best.v2.onnx"),
    ):
        assert _default_out(Export("onnx", Path(address))) == Path(name)
    assert _default_out(Export("triton", Path("hf://user/repo"))) == Path("repo-triton")


def test_pushed_network_is_loaded_from_the_hub(hub, tiny_weights):
    network = DANet.from_pretrained(tiny_weights)
    assert network.push_to_hub("me/new", private=True, token="hf_secret") == f"{hub.endpoint}/me/new"
    assert hub.private == {"me/new": True}
    assert "Bearer hf_secret" in hub.tokens
    for name in ("me/new", "hf://me/new"):
        again = DANet.from_pretrained(name)
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert 'danet.load("hf://me/new")' in hub.files["me/new"]["README.md"].decode()


def test_refused_upload_is_one_line(hub, tiny_weights):
    hub.refuse = 403
    with pytest.raises(InputError, match=r"^hf://me/new/model.safetensors: the Hub refuses \(.*; check the name and"):
        DANet.from_pretrained(tiny_weights).push_to_hub("me/new")


def test_class_and_card_must_fit(tiny_weights, tmp_path):
    with pytest.raises(InputError, match=r"holds a DANet, not a DRANet; use danet.load"):
        DRANet.from_pretrained(tiny_weights)
    with pytest.raises(InputError, match=r"^card: missing: this network was not loaded from a weights file; pass a"):
        DANet(6, "test_resnet", width=16).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"^repository: 'new' is not a name on the Hub; write USER/REPO"):
        DANet.from_pretrained(tiny_weights).push_to_hub("new")


CARD = Card(
    {"num_classes": 2, "backbone": "resnet50"},
    replace(danet.load().classes, names=("a", "b"), palette=((0, 0, 0), (1, 1, 1))),
    (0.5,) * 3,
    (0.5,) * 3,
    size=512,
    dataset="camvid",
    license="CC-BY-4.0",
    metrics={
        "epoch": 3,
        "miou": 0.5,
        "pixel_accuracy": 0.75,
        "mean_accuracy": float("nan"),
        "iou": {"a": 0.25, "b": None},
    },
    recipe={"data": {"root": "/home/me/private", "size": 512}},
)


def test_model_card_is_what_the_hub_reads():
    data = huggingface_hub.ModelCard(model_card(CARD, "me/new")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "danet", "image-segmentation")
    assert data.tags == ["danet", "semantic-segmentation", "resnet50"]
    assert data.datasets == ["camvid"]
    results = {row.metric_type: row.metric_value for row in data.eval_results}
    assert results == {"mean_iou": 0.5, "accuracy": 0.75}
    assert {row.dataset_name for row in data.eval_results} == {"camvid"}
    assert {row.task_type for row in data.eval_results} == {"image-segmentation"}


def test_text_of_the_model_card_has_scores_and_terms():
    text = model_card(CARD, "me/new")
    assert "mIoU 50.0%, pixel accuracy 75.0%." in text
    assert "| a | 25.0 |" in text
    assert "| b |" not in text
    assert "## License\n\nCC-BY-4.0\n" in text


@pytest.mark.parametrize(("terms", "name"), [("", "unknown"), ("for research only", "other"), ("MIT", "mit")])
def test_licenses_are_those_that_the_hub_knows(terms, name):
    assert metadata(replace(CARD, license=terms), "me/new")["license"] == name


def test_own_data_and_missing_scores_are_left_out():
    entries = metadata(replace(CARD, dataset="folder", metrics={}), "me/new")
    assert entries.keys() == {"license", "library_name", "pipeline_tag", "tags"}
    own = metadata(replace(CARD, dataset="folder"), "me/new")["model-index"][0]["results"][0]["dataset"]
    assert own == {"type": "custom", "name": "own images", "split": "validation"}


def test_saved_card_names_no_local_folder(tmp_path):
    network = DANet(2, "test_resnet", width=16)
    card = replace(CARD, network={"num_classes": 2, "backbone": "test_resnet", "width": 16})
    network.save_pretrained(tmp_path, card)
    assert b"/home/me" not in (tmp_path / "model.safetensors").read_bytes()
    saved = peek(tmp_path / "model.safetensors")
    assert saved
    assert saved.recipe == {"data": {"root": None, "size": 512}}
    assert yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])["library_name"] == "danet"


@pytest.mark.slow
def test_process_with_the_hubs_variables(tiny_weights, tmp_path):
    """HF_ENDPOINT and HF_HUB_OFFLINE are read when the client is imported."""
    code = "import danet, json; print(json.dumps(danet.load('hf://user/tiny').card.sha256))"
    with serving() as server:
        server.files["user/tiny"] = {"model.safetensors": tiny_weights.read_bytes()}
        variables = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": server.endpoint}
        for more in ({}, {"HF_HUB_OFFLINE": "1"}):
            ended = subprocess.run(
                [sys.executable, "-c", code], env=variables | more, capture_output=True, text=True, check=True
            )
            assert json.loads(ended.stdout) == weights_file.read(tiny_weights)[1].sha256
            asked, server.requests[:] = len(server.requests), []
        assert asked == 0
