"""Batches in an object store: the same results as on a disk, by single PUTs, whatever requests fail."""

import random

import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from exported import onnx_content
from object_store import CREDENTIALS, ObjectStore

from danet import InputError
from danet.cli import main
from danet.predict import storage
from danet.predict.storage import Folder

pytestmark = pytest.mark.filterwarnings("ignore")  # of moto


@pytest.fixture(scope="module")
def server():
    with ObjectStore().running() as running:
        yield running


@pytest.fixture
def store(server, monkeypatch):
    """The server with an empty bucket."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.address}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_FIRST_WAIT", 0.001)
    storage._system.cache_clear()
    system, _ = pyarrow.fs.FileSystem.from_uri("s3://photos/?allow_bucket_creation=true&allow_bucket_deletion=true")
    system.create_dir("photos")
    yield server
    server.fails, server.delays = lambda *_: False, lambda *_: 0
    system.delete_dir("photos")
    storage._system.cache_clear()
    server.requests.clear()


def fill(folder: str, count: int = 3) -> None:
    from io import BytesIO

    from PIL import Image

    for i in range(count):
        content = BytesIO()
        Image.new("RGB", (24 + i, 16), (80 * i, 0, 0)).save(content, "PNG")
        Folder(folder).write(f"{'sub/' * (i == 2)}x{i} #é%20.png", content.getvalue())
    Folder(folder).write("bad.jpg", b"no image")


def predict(*words) -> int:
    return main(["predict", *map(str, words), "--recursive", "--device", "cpu"])


def test_results_in_a_store_equal_those_on_a_disk(store, tiny_weights, tmp_path, capsys):
    fill("s3://photos/in")
    assert predict("s3://photos/in", "--weights", tiny_weights, "--out", tmp_path / "out") == 2
    local = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*.png")}
    store.requests.clear()
    assert predict("s3://photos/in", "--weights", tiny_weights, "--out", "s3://photos/out") == 2
    assert "done 3, existing 0, failed 1" in capsys.readouterr().err
    stored = {file.name for file in storage.list_files("s3://photos/out")}
    assert {name for name in stored if name.endswith(".png")} == set(local)
    assert len(local) == 3
    for name, path in local.items():
        assert Folder("s3://photos/out").read(name) == path.read_bytes()
    table = pq.read_table("photos/out/statistics.parquet", filesystem=storage._system("s3", "photos")[0])
    rows = sorted(table.drop_columns(["ms"]).to_pylist(), key=lambda row: row["path"])
    files = sorted((tmp_path / "out/statistics.parquet").iterdir())
    expected = [row for file in files for row in pq.read_table(file).drop_columns(["ms"]).to_pylist()]
    assert rows == sorted(expected, key=lambda row: row["path"])
    uploads = {request: count for request, count in store.requests.items() if request[0] in ("PUT", "POST")}
    uploads.pop(("PUT", "/photos/out/statistics.parquet/"), None)  # pyarrow notes a folder after it has deleted a file
    assert len(uploads) == 3 + 4 + 4 + 2  # labels, shards, their beginnings, manifest and run.json
    assert {method for method, _ in uploads} == {"PUT"}
    assert set(uploads.values()) == {1}


def test_failing_requests_are_repeated(store, tiny_weights, tmp_path):
    fill("s3://photos/in")
    store.requests.clear()
    store.fails = lambda method, path, time: method in ("PUT", "GET") and path.endswith((".png", "quet")) and time < 5
    assert predict("s3://photos/in", "--weights", tiny_weights, "--out", "s3://photos/out") == 2
    names = [file.name for file in storage.list_files("s3://photos/out")]
    assert sum(name.endswith(".png") for name in names) == 3


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_an_outage_ends_the_batch_and_its_command_finishes_it(store, tiny_weights, method, monkeypatch, capsys):
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    fill("s3://photos/in")
    store.fails = lambda verb, path, _: verb == method and "x1" in path
    args = "s3://photos/in", "--weights", tiny_weights, "--out", "s3://photos/out"
    assert predict(*args) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: s3://photos/")
    assert "AWS Error" in error
    store.fails = lambda *_: False
    assert predict(*args) == 2
    names = [file.name for file in storage.list_files("s3://photos/out")]
    assert sum(name.endswith(".png") for name in names) == 3
    assert sum(name.endswith(".parquet") for name in names) == 4 + 1
    for name in names:
        if "/shard" in name:
            assert "AWS Error" not in str(pq.read_table(pyarrow.BufferReader(Folder("s3://photos/out").read(name))))


@pytest.mark.parametrize("fault", [500, 503, "slow"])
@pytest.mark.parametrize(
    "rounds", [pytest.param(1, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.stress)]
)
def test_whatever_requests_fail_each_image_is_there_once(store, tmp_path, rounds, fault, capsys):
    fill("s3://photos/in", 8)
    (tmp_path / "net.onnx").write_bytes(onnx_content())
    args = "s3://photos/in", "--weights", tmp_path / "net.onnx", "--out"
    assert predict(*args, "s3://photos/whole") == 2
    expected = contents("s3://photos/whole")
    assert len(expected) == 8 + 9
    for number in range(rounds):
        rng = random.Random(number)
        if fault == "slow":
            store.delays = lambda *_, rng=rng: 0.3 * (rng.random() < 0.2)
        else:
            store.fails = lambda *_, rng=rng: fault * (rng.random() < 0.4)
        capsys.readouterr()
        for _ in range(99):
            assert predict(*args, f"s3://photos/{number}") == 2
            error = capsys.readouterr().err
            if "could not be segmented" in error:
                break
            assert "AWS Error" in error  # on all attempts
        store.fails, store.delays = lambda *_: False, lambda *_: 0
        assert contents(f"s3://photos/{number}") == expected


def contents(out: str) -> dict[str, object]:
    """Return the bytes of the labels and the rows of the shards, but for their times."""
    found: dict[str, object] = {}
    for name in (file.name for file in storage.list_files(out)):
        content = Folder(out).read(name)
        if name.endswith(".png"):
            found[name] = content
        elif "/" in name:
            found[name] = pq.read_table(pyarrow.BufferReader(content)).drop_columns(["ms"]).to_pylist()
    return found


def test_what_is_not_in_the_store_is_named(store, tmp_path, capsys):
    assert predict("s3://photos/none", "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == "error: s3://photos/none: no such folder, or no files in it; check the address\n"
    with pytest.raises(InputError, match=r"s3://photos/x: no such file"):
        storage.download("s3://photos/x")


def test_without_pyarrow_the_error_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    assert predict("s3://photos/in", "--out", tmp_path / "out") == 2
    line = "error: --manifest: needs pyarrow, which is not installed; in a clone of danet, run: uv sync --extra ray\n"
    assert capsys.readouterr().err == line
