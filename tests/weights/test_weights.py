"""The self-describing weights file: whole or refused."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from danet import DANet, InputError
from danet.data.classes import Classes
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
def test_what_could_not_be_read_again_is_not_written(network, card, tmp_path, change):
    with pytest.raises(InputError, match="its card cannot be"):
        weights_file.save(tmp_path / "w.safetensors", network, replace(card, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0), (torch.float16, 2e-3)])
def test_a_network_comes_back_with_everything_needed_to_use_it(network, card, tmp_path, dtype, tolerance):
    saved = weights_file.save(tmp_path / "w.safetensors", network, card, dtype)
    loaded, described = weights_file.load(tmp_path / "w.safetensors")
    assert described == saved == replace(card, sha256=saved.sha256)
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


def test_a_flipped_bit_anywhere_is_noticed(network, card, tmp_path):
    path = tmp_path / "w.safetensors"
    weights_file.save(path, network, card)
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(0, len(good), (40,), generator=generator).tolist():
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(InputError, match=r"w\.safetensors"):
            weights_file.load(path)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_cut_file_is_noticed(network, card, tmp_path, kept):
    path = tmp_path / "w.safetensors"
    weights_file.save(path, network, card)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"not a whole \.safetensors file"):
        weights_file.load(path)


def test_other_files_are_told_apart(network, card, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="no such file"):
        weights_file.load(path)
    with pytest.raises(InputError, match="is not a file"):
        weights_file.load(tmp_path)
    path.write_bytes((1 << 60).to_bytes(8, "little"))  # a header said to be an exabyte long
    with pytest.raises(InputError, match="not a whole"):
        weights_file.load(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="does not say of which network; use danet convert"):
        weights_file.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "another format version"),
        ({"network": {"num_classes": 3, "backbone": "test_resnet", "heads": 8}}, "architecture is not known here"),
        ({"network": {"num_classes": 4, "backbone": "test_resnet", "width": 16}}, "does not fit the network"),
        ({"network": {"num_classes": 3, "backbone": "test_resnet", "channel": False}}, "does not fit the network"),
        ({"surprise": 1}, "cannot be read"),
    ],
)
def test_a_description_that_does_not_fit_is_told(network, card, tmp_path, change, message):
    path = tmp_path / "w.safetensors"
    entries = json.loads(weights_file.save(path, network, card).json()) | change
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"danet": json.dumps(entries)})
    with pytest.raises(InputError, match=message):
        weights_file.load(path)


def test_an_unwritable_place_is_told_before_anything_is_left_there(network, card, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        weights_file.save(tmp_path / "absent" / "w.safetensors", network, card)
