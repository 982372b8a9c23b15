"""danet.files: atomic files of several processes, what killed ones leave, and settings that are not regular files."""

import errno
import fcntl
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from danet import files, portability
from danet.errors import InputError
from danet.files import (
    atomic_folder,
    atomic_path,
    read_limited,
    remove_incomplete,
    walk_files,
    write_atomically,
    write_json,
)
from danet.yaml_files import read_yaml

WRITER = """
import sys
from pathlib import Path
from danet.files import write_atomically
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(folder / name).touch()
while len(list(folder.glob("ready-*"))) < 2:
    pass
for i in range(count):
    write_atomically(folder / f"{name}-{i}", name.encode() * 50_000)
"""


def in_own_pid_namespace(*command: str) -> list[str]:
    return ["unshare", "--user", "--map-root-user", "--pid", "--fork", *command]


def can_unshare() -> bool:
    try:
        return subprocess.run(in_own_pid_namespace("true"), capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="needs unshare")
@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.stress)])
def test_two_containers_write_one_folder_without_mixing_files(tmp_path, count):
    """In a container, each program has the process number 1."""
    names = ("ready-a", "ready-b")
    commands = [(sys.executable, "-c", WRITER, str(tmp_path), name, str(count)) for name in names]
    running = [subprocess.Popen(in_own_pid_namespace(*command)) for command in commands]
    assert [process.wait(600) for process in running] == [0, 0]
    for name in names:
        for i in range(count):
            assert (tmp_path / f"{name}-{i}").read_bytes() == name.encode() * 50_000
    assert not list(tmp_path.glob(".danet-*"))


def test_incomplete_files_of_killed_processes_are_removed(tmp_path):
    def old(name: str) -> Path:
        path = tmp_path / name
        path.touch()
        os.utime(path, (1, 1))
        return path

    left, mine = old(".danet-12-0.png"), old("danet.png")
    (tmp_path / ".danet-folder").mkdir()
    (tmp_path / ".danet-link").symlink_to(mine)
    with atomic_path(tmp_path / "x.png") as being_written:
        os.utime(being_written, (1, 1))
        remove_incomplete(tmp_path)
        assert being_written.exists()
        assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", "danet.png", ".danet-folder", ".danet-link"}
    remove_incomplete(tmp_path / "absent")


KILLED = """
import os, signal, sys
from pathlib import Path
from danet.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "a.png").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path):
    others = [tmp_path / name for name in (".danet-notes", ".danet-runs", ".danet-0123456789abcdef")]
    for other in others:
        other.mkdir()
        (other / ".danet-next.ckpt").touch()
    (others[1] / ".danet-lock").touch()
    (others[2] / ".danet-lock").write_text("another machine")
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path / "new"], check=False).returncode == -9
    left = [path for path in tmp_path.iterdir() if path not in others]
    assert [path.name for path in left[0].glob("[!.]*")] == ["a.png"]
    with atomic_folder(tmp_path / "first") as being_written, atomic_folder(tmp_path / "second"):
        assert not left[0].exists()
        (being_written / "b.png").touch()
    assert set(tmp_path.iterdir()) == {*others, tmp_path / "first", tmp_path / "second"}
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["b.png"]


def test_a_folder_that_is_finished_while_another_process_looks_at_it_stays(tmp_path, monkeypatch):
    lock, written = portability.lock, tmp_path / ".danet-0123456789abcdef"

    def finish_first(descriptor: int) -> None:
        (written / ".danet-lock").unlink(missing_ok=True)
        lock(descriptor)

    written.mkdir()
    (written / ".danet-lock").write_text(socket.gethostname())
    monkeypatch.setattr(portability, "lock", finish_first)
    with atomic_folder(tmp_path / "new"):
        pass
    assert set(tmp_path.iterdir()) == {written, tmp_path / "new"}


@pytest.mark.parametrize("links", [True, False])
def test_a_file_created_meanwhile_is_not_overwritten(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    file = tmp_path / "x"
    write_atomically(file, b"first", overwrite=False)
    assert file.read_bytes() == b"first"
    with pytest.raises(InputError, match="x: already exists: another process wrote it meanwhile; "):
        write_atomically(file, b"second", overwrite=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]
    write_atomically(file, b"third")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"third"]


def test_the_permissions_of_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_file_system_without_locks_does_not_stop_writing(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    write_atomically(tmp_path / "x", b"content")
    assert (tmp_path / "x").read_bytes() == b"content"


def test_settings_are_read_from_regular_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, reason in (("pipe", "not a regular file"), ("zero", "not a regular file"), (".", "a folder")):
        with pytest.raises(OSError, match=reason):
            read_yaml(tmp_path / name)
    (tmp_path / "large").write_bytes(b"#" * (files.SETTINGS_BYTES + 1))
    with pytest.raises(ValueError, match="larger than 262,144 bytes"):
        read_yaml(tmp_path / "large")
    assert len(read_limited(tmp_path / "large", 1 << 20)) == files.SETTINGS_BYTES + 1


@pytest.mark.parametrize("text", ["[" + "0," * 130_000 + "]", "- a\n" * 65_000, "{" + "a: b, " * 40_000 + "}"])
def test_a_settings_file_of_many_values_is_rejected_quickly(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(ValueError, match="more than 20,000 values"):
        read_yaml(tmp_path / "x.yaml")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("classes: [a]\nval: 0.1\nclasses: [b]\n", "has the key 'classes' twice, at lines 1 and 3"),
        ("label_map: {0: 0, 1: 1, 0x1: 0}", "has the key 1 twice, at lines 1 and 1"),
        ("- a: {b: {c: 1,\n  c: 2}}", "has the key 'c' twice, at lines 1 and 2"),
        ("a: [{b: 1}, {b: 2, b: 3}]", "has the key 'b' twice"),
    ],
)
def test_settings_with_a_key_twice_are_rejected(tmp_path, text, what):
    """PyYAML would keep the last value in silence: a line of a label map would be lost."""
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=what):
        read_yaml(tmp_path / "x.yaml")


def test_settings_of_all_kinds_are_read_as_by_pyyaml(tmp_path):
    for text in (
        "",
        "# only a comment",
        "a",
        "[]",
        "{}",
        "a: {<<: {b: 1}, b: 2}",
        "a: [{b: 1}, {b: 2}]\n1: '1'\n'1': 1",
    ):
        (tmp_path / "x.yaml").write_text(text)
        assert read_yaml(tmp_path / "x.yaml") == yaml.safe_load(text)


def test_the_longest_honest_label_map_is_read(tmp_path):
    text = "label_map: {" + ", ".join(f"{value}: {value % 150}" for value in range(9_000)) + "}"
    (tmp_path / "dataset.yaml").write_text(text)
    assert len(read_yaml(tmp_path / "dataset.yaml")["label_map"]) == 9_000


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    assert list(walk_files(tmp_path)) == [tmp_path / "a.png"]
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    with pytest.raises(InputError, match=r"closed: cannot read the folder \(Permission denied\); change its"):
        list(walk_files(tmp_path))


def test_folders_that_ignore_case_are_recognized(tmp_path, monkeypatch):
    assert not files.ignores_case(tmp_path)
    (tmp_path / "Out").mkdir()
    (tmp_path / "oUT").mkdir()
    assert not files.ignores_case(tmp_path / "Out" / "new" / "folder"), "two folders"
    monkeypatch.setattr(Path, "samefile", lambda *_: True)
    assert files.ignores_case(tmp_path / "Out" / "new" / "folder")


@pytest.mark.parametrize(
    "write", [lambda file: write_json(file, ["x" * 5000]), lambda file: write_atomically(file, bytes(5000))]
)
def test_a_full_disk_leaves_no_half_written_file(tmp_path, write):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write 5,\d+ bytes \(File too large\); free some space"):
            write(tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
