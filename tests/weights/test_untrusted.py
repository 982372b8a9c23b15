"""Untrusted weights: malicious pickles, unusual tensors, invalid headers, cards with huge values.

Nothing is run or downloaded, and each file is reported as an error on one line.
"""

import hashlib
import io
import json
import os
import pickle
import re
import struct
import tarfile
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from memory import needs_proc, peak_of

from danet import InputError
from danet.cli import main
from danet.data.registry import DATASETS
from danet.predict.predictor import load
from danet.train import checkpoint
from danet.weights import file as weights_file
from danet.weights.convert import read_foreign


class Call:
    """Calls `function(*args)` when unpickled by Python's pickle."""

    def __init__(self, function: Callable, *args: Any):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Built:
    """Has its state set when unpickled; the state contains a call."""

    def __init__(self, inner: Call):
        self.inner = inner


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def archive_of(evil: bytes) -> bytes:
    """A checkpoint in the present format with a handwritten pickle."""
    buffer = io.BytesIO(saved({"a": torch.zeros(1)}))
    made = io.BytesIO()
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(made, "w") as forged:
        for name in whole.namelist():
            forged.writestr(name, evil if name.endswith("data.pkl") else whole.read(name))
    return made.getvalue()


def old_tar_of(evil: bytes) -> bytes:
    """A checkpoint of torch 0.1."""
    made = io.BytesIO()
    parts = {
        "sys_info": pickle.dumps({}),
        "storages": pickle.dumps(0) + pickle.dumps([]),
        "tensors": pickle.dumps(0),
        "pickle": evil,
    }
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def stack_global(module: str, name: str, argument: str) -> bytes:
    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value.encode())]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85R."


def by_numpy(evil: Call) -> object:
    """An array of objects, which NumPy reconstructs, with the call among its values."""
    array = np.empty(1, object)
    array[0] = evil
    return {"best_pred": array}


def partly(path: str) -> Call:
    import functools

    return Call(functools.partial(os.mkdir), path)


def found_by_name(path: str) -> Call:
    import importlib

    class Attribute:
        def __reduce__(self):
            return getattr, (Call(importlib.import_module, "os"), "mkdir")

    class Called:
        def __reduce__(self):
            import operator

            return operator.call, (Attribute(), path)

    return Call(dict, [("state_dict", Called())])


PICKLES: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda path: saved({"state_dict": {"a": Call(os.system, f"mkdir '{path}'")}}),
    "builtins.exec": lambda path: saved({"state_dict": Call(exec, f"import os; os.mkdir({path!r})")}),
    "builtins.eval in an optimizer": lambda path: saved(
        {"state_dict": {}, "optimizer": {"state": [Call(eval, f"__import__('os').mkdir({path!r})")]}}
    ),
    "a call in a call": lambda path: saved(OrderedDict(a=Call(list, [Call(os.mkdir, path)]))),
    "GLOBAL, no archive": lambda path: f"cos\nmkdir\n(S'{path}'\ntR.".encode(),
    "INST, no archive": lambda path: f"(S'{path}'\nios\nmkdir\n.".encode(),
    "STACK_GLOBAL, no archive": lambda path: stack_global("os", "mkdir", path),
    "an archive with its pickle replaced": lambda path: archive_of(stack_global("os", "mkdir", path)),
    "the format before archives": lambda path: saved({"state_dict": Call(os.mkdir, path)}, zipped=False),
    "the format of torch 0.1, a tar": lambda path: old_tar_of(f"cos\nmkdir\n(S'{path}'\ntR.".encode()),
    "torch's own loader": lambda path: saved(
        {"a": Call(torch.storage._load_from_bytes, saved(Call(os.mkdir, path), zipped=False))}
    ),
    "NumPy's reconstruction": lambda path: saved(by_numpy(Call(os.mkdir, path))),
    "the state of an object": lambda path: saved({"state_dict": Built(Call(os.mkdir, path))}),
    "functools.partial": lambda path: saved(partly(path)),
    "a function found by its name": lambda path: saved(found_by_name(path)),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_malicious_pickle_runs_nothing(kind, tmp_path, capsys):
    """First check that the pickle is malicious: it runs when unpickling is not restricted."""
    evil = tmp_path / "evil"
    content = PICKLES[kind](str(evil))
    (tmp_path / "trusted").write_bytes(content)
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        torch.load(tmp_path / "trusted", weights_only=False)
    assert evil.is_dir(), "the pickle did nothing, so this test proves nothing"
    evil.rmdir()

    for name in ("a.pth", "a.pth.tar", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert main(["convert", str(tmp_path / name), str(tmp_path / "w.safetensors")]) == 2
        message = capsys.readouterr().err
        assert message.startswith(
            f"error: {tmp_path / name}: cannot be opened as a checkpoint without running its code ("
        )
        assert message.count("\n") == 1
        with pytest.raises(InputError, match=r"not a (valid )?\.safetensors file"):
            weights_file.load(tmp_path / name)
    payload = checkpoint._MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
    (tmp_path / checkpoint.LAST).write_bytes(payload)
    with pytest.raises(InputError, match="contains objects other than plain values and tensors"):
        checkpoint.newest(tmp_path)
    assert not evil.exists()
    assert not (tmp_path / "w.safetensors").exists()


def outside(check: bool = False) -> torch.Tensor:
    """A sparse tensor with an index far out of range: reading it unchecked would read other memory."""
    return torch.sparse_coo_tensor(torch.tensor([[1 << 40]]), torch.ones(1), (4,), check_invariants=check)


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "sparse with an index outside": outside,
    "on no device": lambda: torch.empty(4, device="meta"),
    "complex": lambda: torch.zeros(4, dtype=torch.complex64),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_not_dense_and_real_are_errors(kind, tmp_path):
    file = tmp_path / "a.pth"
    with torch.sparse.check_sparse_tensor_invariants(enable=False):
        torch.save({"state_dict": {"head.conv8.1.weight": TENSORS[kind]()}}, file)
    with pytest.raises(
        InputError, match=r"a\.pth: (head\.conv8\.1\.weight is not a dense real tensor|cannot be opened)"
    ):
        read_foreign(file)


def test_small_file_that_claims_a_huge_tensor_is_fast(tmp_path):
    torch.save({"head.conv8.1.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "a.pth")
    begun = time.process_time()
    with pytest.raises(InputError):
        main_convert(tmp_path / "a.pth")
    assert time.process_time() - begun < 2


def main_convert(file: Path) -> None:
    from danet.weights.convert import convert

    convert(file, file.with_suffix(".safetensors"))


def written(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def header(**entries: object) -> bytes:
    return written(json.dumps(entries).encode())


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS = {
    "2^60 bytes": struct.pack("<Q", 1 << 60) + b"{}",
    "2^64 - 1 bytes": b"\xff" * 8 + b"{}",
    "200 MB of blanks": struct.pack("<Q", 200 << 20) + b"{}" + b" " * 1000,
    "depth of 100,000": written(b"[" * 100_000 + b"]" * 100_000),
    "no JSON": written(b"cos\n"),
    "shape beyond its bytes": header(a={**ONE, "shape": [1 << 40]}) + bytes(4),
    "shape that overflows": header(a={**ONE, "shape": [1 << 33, 1 << 33]}) + bytes(4),
    "offsets beyond the end": header(a={**ONE, "data_offsets": [0, 1 << 40]}) + bytes(4),
    "offsets that overlap": header(a=ONE, b=ONE) + bytes(4),
    "a hole": header(a={**ONE, "data_offsets": [8, 12]}) + bytes(12),
    "unknown type": header(a={**ONE, "dtype": "OBJECT"}) + bytes(4),
    "negative shape": header(a={**ONE, "shape": [-1]}) + bytes(4),
    "one name twice": written(f'{{"a": {json.dumps(ONE)}, "a": {json.dumps(ONE)}}}'.encode()) + bytes(4),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_invalid_safetensors_header_is_an_error(kind, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(HEADERS[kind])
    begun = time.process_time()
    with pytest.raises(InputError, match=r"w\.safetensors: (not a valid|has tensors but no danet metadata)"):
        weights_file.load(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors: "):
        main_convert(tmp_path / "w.safetensors")
    assert time.process_time() - begun < 2


CARDS: dict[str, tuple[dict[str, object], str]] = {
    "a billion classes": (
        {"network": {"num_classes": 10**9, "backbone": "test_resnet"}},
        "num_classes: .* got 1000000000",
    ),
    "a billion channels": ({"network": {"num_classes": 6, "width": 10**9}}, "width: .* got 1000000000"),
    "a negative width": ({"network": {"num_classes": 6, "width": -8}}, "width: .* got -8"),
    "weights of the hub": ({"network": {"num_classes": 6, "pretrained": True}}, "pretrained: not allowed"),
    "a backbone of the hub": ({"network": {"num_classes": 6, "backbone": "hf-hub:a/b"}}, "timm has no model"),
    "a backbone of a folder": ({"network": {"num_classes": 6, "backbone": "local-dir:/etc"}}, "timm has no model"),
    "odd values": (
        {"network": {"num_classes": 6, "backbone": "test_resnet", "dropout": "much"}},
        "unknown architecture",
    ),
    "an odd stride": ({"network": {"num_classes": 6, "backbone": "test_resnet", "output_stride": -1}}, "output_stride"),
    "a size of a billion": ({"size": 10**9}, "size: .* got 1000000000"),
    "a size of no kind": ({"size": "large"}, "size"),
    "a size beyond those of recipes": ({"size": 4097}, "size: must be an integer from 1 to 4096, got 4097"),
    "no deviation": ({"std": [0.5, 0.0, 0.5]}, "std: must be at least 1e-06"),
    "nearly no deviation": ({"std": [0.5, 1e-320, 0.5]}, "std: must be at least 1e-06"),
    "two names for six classes": (
        {"classes": {"names": ["a", "b"], "palette": [[0, 0, 0]] * 2}},
        "classes: 2 names for a network of 6 classes",
    ),
    "half a character": ({"license": "\ud800"}, "halves of characters"),
    "a name with an escape sequence": (
        {"classes": {"names": [*"abcde", "\x1b[31m"], "palette": [[0, 0, 0]] * 6}},
        "is not a line of text",
    ),
    "two lines in a name": ({"classes": {"names": [*"abcde", "f\ng"], "palette": [[0, 0, 0]] * 6}}, "is not a line"),
    "two megabytes": ({"license": "x" * (2 << 20)}, "the limit is 1,048,576"),
    "too few means": ({"mean": [0.5]}, "mean: "),
    "a mean that is none": ({"mean": [float("nan")] * 3}, "mean: "),
    "names that are no text": (
        {"classes": {"names": [1, 2], "palette": [[0, 0, 0]] * 2}},
        "is not a line of text|'names'",
    ),
    "colors that are none": ({"classes": {"names": ["a"], "palette": [[0, 0, 900]]}}, "colors must be"),
    "no network": ({"network": None}, "invalid metadata"),
}


@pytest.mark.parametrize("kind", CARDS)
def test_card_values_must_be_within_bounds(kind, tiny_weights, tmp_path):
    """The hash covers only the tensors, so the card of an untrusted file may have any value."""
    change, message = CARDS[kind]
    tensors, card = weights_file.read(tiny_weights)
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(tensors, file, {"danet": json.dumps(json.loads(card.json()) | change)})
    with pytest.raises(InputError, match=message) as error:
        weights_file.load(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_with_values_that_are_not_finite_are_rejected(value, dtype, tiny_weights, tmp_path):
    tensors, card = weights_file.read(tiny_weights)
    key = next(key for key, tensor in tensors.items() if tensor.ndim == 4)
    tensors[key] = tensors[key].to(dtype)
    tensors[key].view(-1)[-1] = value
    file = tmp_path / "w.safetensors"
    card = replace(card, sha256=weights_file._hash(tensors))
    safetensors.torch.save_file(tensors, file, {"danet": card.json()})
    with pytest.raises(InputError, match=f"the values of {re.escape(key)} are not all finite numbers"):
        weights_file.load(file)


def test_a_network_that_returns_nan_is_reported(tiny_weights):
    predictor = load(tiny_weights)
    predictor.logits = lambda images: torch.full((len(images), 6, 4, 4), torch.nan)
    with pytest.raises(InputError, match=r"weights: the network returned values that are not numbers \(NaN\)"):
        predictor(np.zeros((8, 8, 3), np.uint8))


def test_a_metric_that_is_nan_is_read_as_unknown(tiny_weights, tmp_path):
    tensors, card = weights_file.read(tiny_weights)
    text = replace(card, metrics={"miou": float("nan")}).json()
    assert "NaN" in text
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", {"danet": text})
    assert weights_file.read(tmp_path / "w.safetensors")[1].metrics == {"miou": None}


@needs_proc
def test_a_header_of_many_megabytes_is_not_read(tiny_weights, tmp_path):
    tensors, card = weights_file.read(tiny_weights)
    changed = json.loads(card.json()) | {"recipe": {str(i): [] for i in range(1_000_000)}}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", {"danet": json.dumps(changed)})
    del changed

    def refused() -> None:
        with pytest.raises(InputError, match=r"its header has [\d,]+ bytes, the limit is 4,194,304"):
            weights_file.load(tmp_path / "w.safetensors")

    assert peak_of(refused) < 10_000_000


@needs_proc
def test_a_checkpoint_that_unpacks_to_far_more_than_its_size_is_rejected(tmp_path):
    file = tmp_path / "bomb.pth"
    (tmp_path / "plain.pth").write_bytes(saved({"state_dict": {"a": torch.zeros(50_000_000)}}))
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))

    def refused() -> None:
        with pytest.raises(InputError, match=r"bomb\.pth: its [\d,]+ bytes unpack to 200,0[\d,]+; use the checkpoint"):
            read_foreign(file)

    assert peak_of(refused) < 20_000_000


@pytest.mark.parametrize("text", ["null", "[]", "{}", "3", "[" * 100_000, '{"format": 1, "classes": []}', "\x00"])
def test_metadata_that_is_no_card_is_an_error(text, tiny_weights, tmp_path):
    tensors, _ = weights_file.read(tiny_weights)
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", {"danet": text})
    with pytest.raises(InputError, match="invalid metadata"):
        weights_file.load(tmp_path / "w.safetensors")


def test_cards_of_the_package_are_within_bounds():
    card = weights_file.load()[1]
    assert weights_file.Card.from_json(card.json()) == card
    for classes in (dataset.classes for dataset in DATASETS.values() if dataset.classes is not None):
        known = weights_file.Card({"num_classes": len(classes)}, classes, (0.5,) * 3, (0.2,) * 3, size=2048)
        assert weights_file.Card.from_json(known.json()) == known
