"""Batches over a manifest: shards, kills and full disks give each image exactly once, with the same bytes."""

import errno
import io
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from killed import batch_killed_at, batch_killed_by
from PIL import Image

from danet import InputError, files
from danet.cli import main
from danet.data.images.read import read_mask
from danet.predict import batch, batch_segmenter
from danet.predict.batch_segmenter import Segmenter
from danet.predict.batched import Batched
from danet.predict.manifest import Entry, Share, decode, encode, list_images
from danet.predict.predictor import load
from danet.predict.storage import Folder, store_address

GIVEN_UP = "killed 2 processes on its own, so it was given up; check the image, or give the processes more memory"


@pytest.fixture(autouse=True)
def one_thread():
    """One thread, because the last bits may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight images, of which three have names that collide, and one that cannot be read."""
    folder, rng = tmp_path_factory.mktemp("source") / "photos", np.random.default_rng(0)
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "a.bmp", "A.jpg", "b.png", "c.png", "sub/a.png", "sub/d e#%.png")):
        Image.fromarray(rng.integers(0, 256, (24, 32 + i, 3), np.uint8)).save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("hello")
    return folder


def predict(*words) -> int:
    return main(["predict", *map(str, words), "--device", "cpu"])


@pytest.fixture
def command(photos, tiny_weights):
    """The options of all batches."""
    return [photos, "--recursive", "--weights", tiny_weights]


@pytest.fixture(scope="module")
def whole(photos, tiny_weights, tmp_path_factory):
    """The results of one process."""
    out, threads = tmp_path_factory.mktemp("whole") / "out", torch.get_num_threads()
    torch.set_num_threads(1)
    assert predict(photos, "--recursive", "--weights", tiny_weights, "--out", out, "--manifest", out.parent / "m") == 2
    torch.set_num_threads(threads)
    return out


def rows_of(out, drop=("ms",)) -> list[dict]:
    """The rows of all images in the order of their paths."""
    files = sorted((out / "statistics.parquet").glob("shard*"))
    rows = [row for file in files for row in pq.read_table(file).drop_columns(list(drop)).to_pylist()]
    return sorted(rows, key=lambda row: (row["path"], row["page"] or 0))


def labels_of(out) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*_labels.*")}


def assert_same(out, whole) -> None:
    """Assert that each image is there once, with the same bytes, and that nothing else is."""
    assert rows_of(out) == rows_of(whole)
    assert labels_of(out) == labels_of(whole)
    assert not [path for path in out.rglob("*") if path.name.startswith((".", "_"))]


def test_rows_and_labels_are_those_of_the_predictor(whole, photos, tiny_weights):
    predictor = load(tiny_weights, "cpu")
    rows = {row["path"]: row for row in rows_of(whole)}
    assert len(rows) == 8
    assert len(labels_of(whole)) == 7
    segmentation = predictor(photos / "b.png")
    assert np.array_equal(read_mask(whole / "b_labels.png"), segmentation.labels)
    row = rows[str(photos / "b.png")]
    assert (row["width"], row["height"], row["error"], row["note"]) == (35, 24, None, None)
    for kind in segmentation.summary()["classes"]:
        assert row[f"share_{kind['name']}"] == kind["share"]
        assert row[f"confidence_{kind['name']}"] == kind["mean_confidence"]
    assert sum(value for key, value in row.items() if key.startswith("share_")) == pytest.approx(1)


def test_groups_of_one_size_give_the_results_of_single_images(tiny_weights, tmp_path, monkeypatch):
    rng, groups, original = np.random.default_rng(0), [], Batched.segment
    (tmp_path / "in").mkdir()
    for i in range(20):
        image = rng.integers(0, 256, (24, 48 if i > 16 else 32, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"in/{i:02}.png")
    (tmp_path / "in/05.png").write_bytes(b"no image")
    monkeypatch.setattr(Batched, "segment", lambda *args: groups.append(args[1]) or original(*args))
    assert predict(tmp_path / "in", "--weights", tiny_weights, "--out", tmp_path / "out", "--no-images") == 2
    assert [len(names) for names in groups] == [5, 11, 3]
    predictor = load(tiny_weights, "cpu")
    for row in rows_of(tmp_path / "out"):
        name = Path(row["path"]).name
        assert (row["error"] is not None) == (name == "05.png")
        for kind in [] if row["error"] else predictor(tmp_path / "in" / name).summary()["classes"]:
            assert row[f"confidence_{kind['name']}"] == kind["mean_confidence"]


def test_an_unreadable_image_is_a_row_with_its_error(whole, photos):
    (row,) = [row for row in rows_of(whole) if row["error"]]
    assert row["path"] == str(photos / "bad.png")
    assert "not an image" in row["error"] or "cannot" in row["error"]
    assert row["width"] is None
    assert all(value is None for key, value in row.items() if key.startswith("share_"))


def test_colliding_names_get_the_id_of_their_path(whole, photos):
    manifest = decode((whole.parent / "m").read_bytes(), "m")
    by_file = {os.path.relpath(entry.path, photos): entry for entry in manifest.entries}
    colliding = [by_file[file].name for file in ("a.png", "a.bmp", "A.jpg")]
    assert {name.rpartition("-")[0] for name in colliding} == {"a", "A"}
    assert by_file["sub/a.png"].name == "sub/a"
    assert by_file["sub/d e#%.png"].name == "sub/d e#%"
    assert len({name.casefold() for name in colliding}) == 3


def test_all_shards_together_equal_one_process(command, whole, tmp_path, capsys):
    out = tmp_path / "out"
    args = *command, "--out", out, "--manifest", tmp_path / "m.parquet"
    assert [predict(*args, "--shard", f"{i}/3") for i in (2, 3, 1, 2)] == [2, 0, 0, 2]
    assert "done 0, existing 3, failed 0" in capsys.readouterr().err.splitlines()[-1]
    assert_same(out, whole)
    manifest = (tmp_path / "m.parquet").read_bytes()
    assert predict(*args[1:]) == 2
    assert (tmp_path / "m.parquet").read_bytes() == manifest


def test_the_listing_is_counted_and_named(command, tmp_path, capsys):
    args = *command, "--out", tmp_path / "out", "--manifest", tmp_path / "m.parquet", "--manifest-only"
    assert predict(*args) == 0
    assert capsys.readouterr().err.splitlines() == ["8 images in 8 shards", "1 skipped: 1 .txt (not images)"]
    assert predict(*args) == 0
    assert "listed before" in capsys.readouterr().err
    assert not (tmp_path / "out/statistics.parquet").exists()


def test_a_manifest_of_other_images_is_refused(command, tiny_weights, tmp_path, capsys):
    args = "--weights", tiny_weights, "--out", tmp_path / "out", "--manifest", tmp_path / "m.parquet", "--manifest-only"
    assert predict(*command, *args[2:]) == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    capsys.readouterr()
    for given in (tmp_path / "new.png", tmp_path):
        assert predict(given, *args) == 2
        expected = f"m.parquet: was written for other images, and lists nothing of {given}; choose another --out or"
        assert expected in capsys.readouterr().err
    photos = command[0]
    for same in (photos / "a.png", photos / "sub", f"{photos}/sub/../", "/"):
        assert predict(same, *args) == 0


def test_no_images_writes_only_the_statistics(command, whole, tmp_path):
    assert predict(*command, "--out", tmp_path / "out", "--no-images") == 2
    assert rows_of(tmp_path / "out") == rows_of(whole)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"manifest.parquet", "run.json", "statistics.parquet"}


def test_a_stack_has_a_row_and_labels_for_each_page(tiny_weights, tmp_path):
    pages = [Image.new("RGB", (16, 12 + i), (60 * i, 0, 0)) for i in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    args = tmp_path / "stack.tif", "--weights", tiny_weights, "--no-images"
    assert predict(*args, "--pages", "--out", tmp_path / "out") == 0
    assert [(row["page"], row["height"]) for row in rows_of(tmp_path / "out")] == [(1, 12), (2, 13), (3, 14)]
    assert predict(*args, "--out", tmp_path / "refused") == 2
    (row,) = rows_of(tmp_path / "refused")
    assert row["error"].startswith("a stack or animation of 3 pages")


def test_an_image_that_changes_after_its_listing_is_an_error_row(photos, tiny_weights, tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes((photos / "b.png").read_bytes())
    args = file, "--weights", tiny_weights, "--out", tmp_path / "out", "--no-images"
    assert predict(*args, "--manifest-only") == 0
    file.write_bytes((photos / "c.png").read_bytes() + b" ")
    assert predict(*args) == 2
    (row,) = rows_of(tmp_path / "out")
    assert "has changed since it was listed" in row["error"]


def test_failed_images_are_retried_only_if_asked(photos, tiny_weights, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("b.png", "c.png"):
        os.link(photos / name, tmp_path / "in" / name)
    args = tmp_path / "in", "--weights", tiny_weights, "--out", tmp_path / "out", "--no-images"
    assert predict(*args, "--manifest-only") == 0
    (tmp_path / "in/c.png").rename(tmp_path / "away")
    assert predict(*args) == 2
    line = f"see the column error of {tmp_path / 'out/statistics.parquet'}, or add --retry-failed"
    now, earlier = (
        f"error: 1 of 2 images could not be segmented{when}; {line}" for when in ("", " (1 of them earlier)")
    )
    assert now in capsys.readouterr().err.splitlines()
    (tmp_path / "away").rename(tmp_path / "in/c.png")
    assert predict(*args) == 2
    assert earlier in capsys.readouterr().err.splitlines()
    assert [row["error"] is None for row in rows_of(tmp_path / "out")] == [True, False]
    assert predict(*args, "--retry-failed") == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("done 1, existing 1, failed 0")
    assert [row["error"] for row in rows_of(tmp_path / "out")] == [None, None]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--shard", "0/3"], "error: --shard: must be I/N with I from 1 to N, got '0/3'; for example, use 1/8"),
        (["--shard", "2"], "error: --shard: must be I/N with I from 1 to N, got '2'; for example, use 1/8"),
        (
            ["--engine", "local", "--workers", "2"],
            "error: --workers: is for the engine ray; add --engine ray, or leave it out",
        ),
        (
            ["--no-images", "--csv", "x.csv"],
            "error: --csv: is not for batches; leave it out, or leave out the options of batches",
        ),
        (
            ["--no-images", "--windows"],
            "error: --windows: is not for batches; leave it out, or leave out the options of batches",
        ),
        (
            ["--no-images", "--size", "0"],
            "error: --size: must be at least 1 pixel, got 0; use the long side in pixels",
        ),
    ],
)
def test_invalid_options_of_batches_are_rejected(options, line, command, tmp_path, capsys):
    assert predict(*command, "--out", tmp_path / "out", *options) == 2
    assert capsys.readouterr().err.strip() == line
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_results_is_refused(command, tmp_path, capsys, photos):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("")
    assert predict(*command, "--out", out, "--no-images") == 2
    assert "is not empty: it contains mine.txt" in capsys.readouterr().err
    assert predict(*command, "--out", tmp_path / "b", "--no-images") == 2
    assert predict(*command, "--out", tmp_path / "b", "--no-images", "--size", "64") == 2
    assert "has the results of other settings (size None, now 64)" in capsys.readouterr().err


def test_a_full_disk_for_temporary_files_is_named(tmp_path, monkeypatch):
    """An error of `write` has no file name, without which the command ends in a traceback."""
    entry = Entry("s3://photos/a.png", "a", 200, 0, "0", 0)
    monkeypatch.setattr(batch_segmenter, "download", lambda _: b"x" * 200)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            batch_segmenter._local_copy(entry, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(tmp_path / "image.png")


def test_a_forged_manifest_is_refused(tmp_path, photos):
    entries, _ = list_images([photos / "b.png"], Folder(str(tmp_path)))
    for forged in (entries[0]._replace(name="../x"), entries[0]._replace(name="/x"), entries[0]._replace(path=None)):
        with pytest.raises(InputError, match=r"m: is not a manifest of danet predict"):
            decode(encode([forged]), "m")
    with pytest.raises(InputError, match=r"occurs 2 times"):
        decode(encode([entries[0], entries[0]]), "m")
    with pytest.raises(InputError, match=r"is not a manifest"):
        decode(b"PAR1", "m")
    with pytest.raises(InputError, match=r"is not a manifest"):
        decode(encode([entries[0]._replace(shard=None)]), "m", Share(1, 2))
    empty = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(encode(entries))).slice(0, 0), empty)
    with pytest.raises(InputError, match=r"m: is not a manifest of danet predict \(it lists no images\)"):
        decode(empty.getvalue(), "m")


def test_shards_hold_at_most_500_images_and_split_evenly(tmp_path, photos):
    for count, shards in ((1, 1), (2000, 2000), (2001, 1001), (5000, 1667)):
        entries = _many(count)
        assert entries[-1].shard + 1 == shards
        parts = [decode(encode(entries), "m", Share(i, 7)) for i in range(1, 8)]
        assert sorted(entry for part in parts for entry in part.entries) == sorted(entries)
        assert all(part.images == count and part.shards == shards for part in parts)


def _many(count: int):
    from danet.predict.manifest import _entries

    return _entries([(f"/x/{i}.png", str(i), 1, 1) for i in range(count)])


@pytest.mark.parametrize("moment", ["labels", "rows"])
def test_a_full_disk_ends_the_batch_and_the_same_command_finishes_it(
    command, whole, tmp_path, capsys, monkeypatch, moment
):
    real, writes = files.flush, []

    def full(path):
        if (
            path.suffix == {"labels": ".png", "rows": ".parquet"}[moment]
            and "out" in str(path.parent)
            and path.is_file()
        ):
            writes.append(path)
            if len(writes) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    args = *command, "--out", tmp_path / "out", "--manifest", tmp_path / "m.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(files, "flush", full)
        assert predict(*args) == 2
    assert "bytes (No space left on device); free some space" in capsys.readouterr().err
    before = rows_of(tmp_path / "out")
    assert 0 < len(before) < 8
    assert predict(*args) == 2
    assert_same(tmp_path / "out", whole)


@pytest.mark.parametrize("kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.stress)])
def test_a_batch_that_is_killed_anywhere_is_finished_by_its_command(warm, command, whole, tmp_path, kills):
    """Kills after the n-th write of a file, before and after it gets its name."""
    for kill in range(kills):
        out = tmp_path / f"out{kill}"
        args = ["predict", *map(str, command), "--device", "cpu", "--out", str(out), "--manifest", f"{out}.parquet"]
        program = warm.start(batch_killed_at, 8 + 5 * kill % 22, *args, errors=tmp_path / "errors")
        assert program.wait() == -signal.SIGKILL, program.stderr()
        assert len(rows_of(out)) < 8
        assert predict(*args[1:-6], "--out", out, "--manifest", f"{out}.parquet") == 2
        assert_same(out, whole)


def test_an_image_that_killed_two_processes_on_its_own_is_given_up(command, whole, tmp_path, capsys):
    args = *command, "--out", tmp_path / "out", "--manifest", tmp_path / "m"
    assert predict(*args, "--manifest-only") == 0
    first, second, *_ = decode((tmp_path / "m").read_bytes(), "m").entries
    (tmp_path / "out/statistics.parquet").mkdir()
    capsys.readouterr()
    for entry, kills in ((first, 0), (second, 1)):  # before the last kill
        state = {"alone": entry.id, "kills": {entry.id: kills}}
        (tmp_path / f"out/statistics.parquet/_begun-{entry.shard:07d}.json").write_text(json.dumps(state))
    assert predict(*args) == 2
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert rows[second.id]["error"] == GIVEN_UP
    assert f"error: {second.path}: {GIVEN_UP}" in capsys.readouterr().err
    del rows[second.id]
    assert [*rows.values()] == [row for row in rows_of(whole) if row["id"] != second.id]
    assert not list((tmp_path / "out").rglob("_*"))


@pytest.mark.slow
def test_an_image_that_kills_its_process_again_and_again_is_given_up(warm, command, whole, tmp_path):
    out = tmp_path / "out"
    args = ["predict", *map(str, command), "--device", "cpu", "--out", str(out), "--manifest", str(tmp_path / "m")]
    programs = [warm.start(batch_killed_by, "b.png", *args, errors=tmp_path / "errors").wait() for _ in range(4)]
    assert programs == [-signal.SIGKILL] * 3 + [2]
    expected = rows_of(whole)
    (killer,) = [row for row in expected if Path(row["path"]).name == "b.png"]
    killer |= dict.fromkeys(set(killer) - {"id", "path"})
    killer["error"] = GIVEN_UP
    assert rows_of(out) == expected
    assert labels_of(out) == {name: labels for name, labels in labels_of(whole).items() if name != "b_labels.png"}
    assert not list(out.rglob("_*"))


def test_ends_that_no_image_caused_give_up_nothing(command, whole, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    args = *command, "--out", tmp_path / "out", "--manifest", tmp_path / "m"
    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "_work", stop)
        assert predict(*args) == 130
        assert not list((tmp_path / "out").rglob("_*"))
        batch = tmp_path / "out/statistics.parquet"
        for shard in range(8):
            (batch / f"_begun-{shard:07d}.json").write_bytes([b"", b"[]", b'{"alone": null, "kills": {}}'][shard % 3])
        for _ in range(3):
            assert predict(*args) == 130
    assert predict(*args) == 2
    assert_same(tmp_path / "out", whole)


@pytest.mark.slow
def test_two_processes_of_the_same_shard_double_nothing(warm, command, whole, tmp_path):
    out = tmp_path / "out"
    args = ["predict", *map(str, command), "--device", "cpu", "--out", str(out), "--manifest", str(tmp_path / "m")]
    programs = [warm.start(batch_killed_at, 0, *args, errors=tmp_path / f"errors{i}") for i in range(2)]
    assert [program.wait() for program in programs] == [2, 2], programs[1].stderr()
    assert_same(out, whole)


def test_addresses_of_stores_survive_path():
    assert store_address(Path("s3://bucket/a b/c")) == "s3://bucket/a b/c"
    assert (
        store_address(Path("abfs://box@account.dfs.core.windows.net/x/")) == "abfs://box@account.dfs.core.windows.net/x"
    )
    assert store_address("gs://bucket") == "gs://bucket"
    assert store_address("photos/s3") is None
    assert Folder.at(Path("s3://bucket/x")).address("y") == "s3://bucket/x/y"


def test_statistics_name_the_batch(whole):
    metadata = pq.read_schema(next((whole / "statistics.parquet").iterdir())).metadata
    assert json.loads(metadata[b"danet"]) == json.loads((whole / "run.json").read_text())


def test_a_manifest_is_where_its_path_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, expected in (("/m.parquet", Path("/m.parquet")), ("m.parquet", tmp_path / "m.parquet")):
        folder, name = batch._place(Path(given), Folder("elsewhere"))
        assert Path(folder.address(name)) == expected
    assert batch._place(None, Folder("elsewhere")) == (Folder("elsewhere"), "manifest.parquet")
