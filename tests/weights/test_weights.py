"""The self-describing weights file: complete, or an error; files of danet 0.1.0 load."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from danet import DANet, InputError
from danet.data.classes import Classes
from danet.data.datasets import camvid
from danet.weights import file as weights_file
from danet.weights.file import Card


@pytest.fixture
def network() -> DANet:
    torch.manual_seed(0)
    return DANet(3, "test_resnet", width=16).eval()


@pytest.fixture
def card() -> Card:
    arguments = {"num_classes": 3, "backbone": "test_resnet", "width": 16}
    classes = Classes.named(("a", "b", "c"))
    return Card(arguments, classes, (0.5,) * 3, (0.25,) * 3, 128, {"seed": 1}, "toy", {"miou": 0.5}, "Apache-2.0")


@pytest.mark.parametrize("change", [{"size": 9000}, {"mean": (0.5,)}])
def test_invalid_card_is_not_written(network, card, tmp_path, change):
    with pytest.raises(InputError, match="invalid metadata: "):
        weights_file.save(tmp_path / "w.safetensors", network, replace(card, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: setattr(n, "extra", torch.nn.Linear(1, 1)), "is not the one that its card describes: extra."),
        (lambda n: n.classifier[-1].weight.data.fill_(torch.nan), "are not all finite numbers"),
        (lambda n: n.classifier[-1].weight.data.fill_(1e5), "are not all finite numbers"),
    ],
)
def test_what_could_not_be_loaded_replaces_nothing(network, card, tmp_path, change, message):
    file = tmp_path / "w.safetensors"
    weights_file.save(file, network, card)
    before = file.read_bytes()
    change(network)
    with pytest.raises(InputError, match=message):
        weights_file.save(file, network, card, torch.float16)
    assert file.read_bytes() == before


def test_values_that_json_cannot_hold_are_named(network, card, tmp_path):
    with pytest.raises(InputError, match="invalid metadata: Object of type float32 is not JSON serializable"):
        weights_file.save(tmp_path / "w.safetensors", network, replace(card, metrics={"miou": np.float32(0.5)}))


def test_a_compiled_network_is_saved_under_its_own_names(network, card, tmp_path):
    saved = weights_file.save(tmp_path / "w.safetensors", torch.compile(network), card)
    assert saved.sha256 == weights_file.save(tmp_path / "v.safetensors", network, card).sha256


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0), (torch.float16, 2e-3)])
def test_network_and_card_survive_save_and_load(network, card, tmp_path, dtype, tolerance):
    saved = weights_file.save(tmp_path / "w.safetensors", network, card, dtype)
    loaded, loaded_card = weights_file.load(tmp_path / "w.safetensors")
    assert loaded_card == saved == replace(card, sha256=saved.sha256)
    assert not loaded.training
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32, torch.int64}
    images = torch.randn(1, 3, 33, 33)
    for ours, theirs in zip(loaded(images), network(images), strict=True):
        assert (ours - theirs).abs().max() <= tolerance
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_precision_halves_the_file(network, card, tmp_path):
    sizes = []
    for dtype in (None, torch.float16):
        weights_file.save(tmp_path / "w.safetensors", network, card, dtype)
        sizes.append((tmp_path / "w.safetensors").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


def test_flipped_bit_anywhere_is_an_error(network, card, tmp_path):
    path = tmp_path / "w.safetensors"
    weights_file.save(path, network, card)
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(0, len(good), (40,), generator=generator).tolist():
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(InputError, match=r"w\.safetensors"):
            weights_file.load(path)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_truncated_file_is_an_error(network, card, tmp_path, kept):
    path = tmp_path / "w.safetensors"
    weights_file.save(path, network, card)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"not a valid \.safetensors file"):
        weights_file.load(path)


def test_other_files_are_errors(network, card, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such file"):
        weights_file.load(path)
    with pytest.raises(InputError, match="not a file"):
        weights_file.load(tmp_path)
    path.write_bytes((1 << 60).to_bytes(8, "little"))  # a header length of one exabyte
    with pytest.raises(InputError, match="not a valid"):
        weights_file.load(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="has tensors but no danet metadata; convert it with danet convert"):
        weights_file.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "unsupported format version"),
        ({"network": {"num_classes": 3, "backbone": "test_resnet", "heads": 8}}, "unknown architecture"),
        ({"network": {"num_classes": 4, "backbone": "test_resnet", "width": 16}}, "3 names for a network of 4 classes"),
        ({"network": {"num_classes": 3, "backbone": "test_resnet", "width": 24}}, "does not match the network"),
        ({"network": {"num_classes": 3, "backbone": "test_resnet", "channel": False}}, "does not match the network"),
        ({"surprise": 1}, "invalid metadata"),
    ],
)
def test_card_that_does_not_match_is_an_error(network, card, tmp_path, change, message):
    path = tmp_path / "w.safetensors"
    entries = json.loads(weights_file.save(path, network, card).json()) | change
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"danet": json.dumps(entries)})
    with pytest.raises(InputError, match=message):
        weights_file.load(path)


def test_unwritable_folder_is_an_error_and_leaves_nothing(network, card, tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        weights_file.save(tmp_path / "absent" / "w.safetensors", network, card)


VERSION_0_1_0 = Path(__file__).parents[1] / "version_0_1_0/run/best.safetensors"


def test_files_of_version_0_1_0_load_and_are_rewritten_the_new_way(tmp_path):
    """Their cards have the British spelling of the key `license`."""
    with safetensors.safe_open(VERSION_0_1_0, framework="pt") as file:
        entries = json.loads(file.metadata()["danet"])
    assert "licence" in entries  # vocabulary: old name
    network, card = weights_file.load(VERSION_0_1_0)
    assert card.license == entries.pop("licence")  # vocabulary: old name
    assert json.loads(card.json()) == {**entries, "license": card.license, "scale_rule": "native"}
    saved = weights_file.save(tmp_path / "w.safetensors", network, card)
    assert weights_file.read(tmp_path / "w.safetensors")[1] == saved
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert "licence" not in json.loads(file.metadata()["danet"])  # vocabulary: old name


def test_camvid_weights_with_its_published_colors_get_those_of_danet(card):
    classes = Classes(camvid.CLASSES.names, camvid.PUBLISHED_PALETTE)
    network = card.network | {"num_classes": len(classes)}
    assert Card.from_json(replace(card, classes=classes, network=network).json()).classes == camvid.CLASSES


def test_license_is_written_under_its_new_name(network, card, tmp_path):
    weights_file.save(tmp_path / "w.safetensors", network, card)
    with safetensors.safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        entries = json.loads(file.metadata()["danet"])
    assert entries["license"] == "Apache-2.0"
    assert set(entries) == {
        *("format", "network", "classes", "mean", "std", "size", "recipe", "dataset", "metrics", "license", "sha256"),
        *("white", "scale_rule"),
    }
