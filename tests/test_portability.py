"""What Windows lacks is simulated: fcntl, signal masks, alarms, and renaming or removing open files."""

import ast
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import pytest

from danet import cli, files, portability
from danet.errors import InputError
from danet.files import atomic_folder, read_limited, remove_incomplete, write_atomically

PACKAGE = Path(files.__file__).parent
UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "msvcrt", "winreg"}
UNIX_NAMES = (
    r"signal\.(pthread_sigmask|alarm|SIGALRM|SIGKILL|SIGHUP)|os\.(pwrite|pread|sync|fork|O_(NOFOLLOW|NONBLOCK|CLOEXEC))"
)


class FakeMsvcrt:
    """Locks bytes as Windows' C library does: for each file, until the descriptor is closed."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        key = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        owner = self.held.get(key)
        if owner is not None and owner != descriptor and is_open(owner, key[0]):
            raise PermissionError(errno.EACCES, "locked")
        self.held[key] = descriptor


def is_open(descriptor: int, inode: int) -> bool:
    try:
        return os.fstat(descriptor).st_ino == inode
    except OSError:
        return False


def is_open_anywhere(path: Path) -> bool:
    """Return whether this process holds the file open."""
    target = path.stat()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found = entry.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino):
            return True
    return False


@pytest.fixture
def windows(monkeypatch) -> FakeMsvcrt:
    """Simulate Windows: open files can be neither renamed nor removed, and folders replace nothing."""
    fake = FakeMsvcrt()
    replace, unlink = Path.replace, Path.unlink

    def refuse_open(path: Path) -> None:
        if path.exists() and is_open_anywhere(path):
            raise PermissionError(errno.EACCES, "in use", str(path))

    def checked_replace(self: Path, target: Path) -> Path:
        refuse_open(self)
        if self.is_dir() and target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target))
        return replace(self, target)

    def checked_unlink(self: Path, missing_ok: bool = False) -> None:
        refuse_open(self)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "replace", checked_replace)
    monkeypatch.setattr(Path, "unlink", checked_unlink)
    monkeypatch.setattr(portability, "WINDOWS", True)
    monkeypatch.setattr(portability, "_fcntl", None)
    monkeypatch.setattr(portability, "_msvcrt", fake)
    monkeypatch.setattr(portability, "_resource", None)
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.delattr(signal, "alarm")
    monkeypatch.delattr(os, "sync")
    return fake


def test_files_are_written_atomically(windows, tmp_path):
    write_atomically(tmp_path / "a", b"one")
    write_atomically(tmp_path / "a", b"two\r\n")
    assert read_limited(tmp_path / "a") == b"two\r\n"
    with pytest.raises(InputError, match="already exists"):
        write_atomically(tmp_path / "a", b"three", overwrite=False)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_folders_appear_complete(windows, tmp_path):
    (tmp_path / "new").mkdir()
    with atomic_folder(tmp_path / "new") as temporary:
        (temporary / "a").write_bytes(b"x")
    assert (tmp_path / "new/a").exists()


def test_incomplete_files_are_removed_but_not_those_being_written(windows, tmp_path):
    (tmp_path / ".danet-old").write_bytes(b"")
    with files.atomic_path(tmp_path / "a") as temporary:
        remove_incomplete(tmp_path)
        assert temporary.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_run_folder_is_locked_and_unlocked(windows, tmp_path):
    from danet.train.run_folder import lock

    with lock(tmp_path / "run"):
        assert (tmp_path / "run/.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(InputError, match=f"in use by process {os.getpid()}"), lock(tmp_path / "run"):
            pass
        (tmp_path / "run/kept").touch()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["kept"]
    with lock(tmp_path / "other"):
        pass
    assert not (tmp_path / "other").exists()


def test_signals_and_limits_that_do_not_exist_are_left_out(windows):
    with portability.blocked_signals((signal.SIGINT,)):
        pass
    portability.unblock_signals((signal.SIGINT,))
    portability.end_after(0)
    assert portability.free_files() == 8192


def test_signals_are_blocked_where_they_can_be():
    with portability.blocked_signals((signal.SIGUSR1,)):
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert portability.free_files() > 0


def imported_at_once(tree: ast.Module) -> set[str]:
    """Return the modules that a file imports when it is imported itself."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


GLIBC = hasattr(os, "confstr") and "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", ())


@pytest.mark.skipif(not GLIBC, reason="changes glibc's allocator")
def test_kept_memory_is_used_again_and_returned_at_the_end():
    """64 MB are more than glibc keeps by itself. NumPy would ask for huge pages, which hide the difference."""
    program = """
import os, resource
from contextlib import nullcontext
from danet.portability import kept_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

for way in (nullcontext, kept_memory):
    with way():
        before = faults()
        for _ in range(10):
            b"x" * (1 << 26)
        print(faults() - before)
print(resident())
"""
    returned, kept, resident = map(int, subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert kept < returned / 4
    assert resident < 1 << 26


@pytest.mark.parametrize(("command", "kept"), [("evaluate", True), ("train", True), ("serve", False)])
def test_commands_that_compute_keep_memory_in_a_process_of_their_own(monkeypatch, command, kept):
    calls = []

    @contextmanager
    def record() -> Iterator[None]:
        calls.append(command)
        yield

    monkeypatch.setattr(cli, "kept_memory", record)
    monkeypatch.setattr(cli, "_delay_garbage_collection", lambda: None)
    monkeypatch.setattr(sys, "argv", ["danet", command, "--help"])
    for arguments in ([command, "--help"], None):
        with suppress(SystemExit):
            cli.main(arguments)
    assert calls == [command] * kept


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_memory_is_left_to_other_c_libraries(monkeypatch, error):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(portability.ctypes, "CDLL", fail)
    with portability.kept_memory():
        pass


def test_only_portability_knows_what_some_systems_lack():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "portability.py":
            text = path.read_text()
            assert not imported_at_once(ast.parse(text)) & UNIX_MODULES, path
            assert not re.search(UNIX_NAMES, text), path


def test_mps_is_refused_where_it_does_not_exist(monkeypatch):
    import torch

    from danet.model.device import resolve_device
    from danet.train import distributed

    if torch.backends.mps.is_available():
        pytest.skip("this is an Apple processor")
    with pytest.raises(InputError, match=r"^device: 'mps' is not available \(it needs macOS on an Apple processor\)"):
        resolve_device("mps")
    monkeypatch.setattr(distributed, "resolve_device", lambda *_: torch.device("mps"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^device: 'mps' trains in a single process"):
        distributed.start("mps")


def test_addresses_keep_their_slashes_where_paths_have_backslashes():
    from danet.predict.inputs import stream_address
    from danet.predict.storage import store_address
    from danet.weights import hub_files

    def windows(address: str) -> str:
        return str(PureWindowsPath(address))

    assert hub_files.is_address(windows("hf://user/repo"))
    assert str(hub_files.parse(windows("hf://user/repo@v1/a/b.safetensors"))) == "hf://user/repo@v1/a/b.safetensors"
    assert store_address(windows("s3://bucket/dir/a.png")) == "s3://bucket/dir/a.png"
    assert stream_address(windows("rtsp://host/stream")) == "rtsp://host/stream"
    for path in (windows("C:/images/a.png"), windows(r"\\server\images\a.png"), windows("images/a.png")):
        assert not hub_files.is_address(path)
        assert (store_address(path), stream_address(path)) == (None, None)


def test_lists_name_images_where_paths_have_backslashes(tmp_path, monkeypatch):
    from danet.data.custom import split_lists
    from danet.data.custom.layout import Layout
    from danet.data.naming import Naming

    monkeypatch.setattr(split_lists, "Path", PureWindowsPath)
    monkeypatch.setattr(split_lists, "os", SimpleNamespace(path=SimpleNamespace(relpath=lambda *_: r"images\a.jpg")))
    image = tmp_path / "images/a.jpg"
    found = split_lists._Names(Layout(tmp_path, "images", "masks", Naming("_mask.png"), {}), [image])
    assert [found.get(text) for text in ("a", "a.jpg", "images/a.jpg", "images/a")] == [image] * 4


def test_what_loads_images_can_be_sent_to_spawned_processes(tmp_path):
    from multiprocessing.reduction import ForkingPickler

    import numpy as np
    from PIL import Image

    from danet import recipes
    from danet.data import registry
    from danet.train.batches import _Stream

    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / kind / split / "a.png")
    for entry in ("label_map: {0: 0}", "colors: [[0, 0, 0], [1, 1, 1]]"):
        (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\n{entry}\n")
        samples = registry.load("folder", tmp_path, "train")
        stream = _Stream(samples, recipes.TOY, (), None)
        again = ForkingPickler.loads(ForkingPickler.dumps(stream))
        assert np.array_equal(again.samples[0].labels, samples[0].labels)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 2000 << 10),
        ({"memory.max": "max", "memory.current": "5"}, 2000 << 10),
        ({"memory.max": "3000", "memory.current": "1000"}, 2000),
        ({"memory.max": "3000", "memory.current": "2900", "memory.stat": "file 9\ninactive_file 700\n"}, 800),
        (
            {
                "memory/memory.limit_in_bytes": "3000",
                "memory/memory.usage_in_bytes": "2900",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 700\n",
            },
            800,
        ),
        ({"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "4000"}, 0),
    ],
)
def test_memory_is_what_the_system_and_the_container_leave(tmp_path, files, free):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    2000 kB\n")
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    assert portability.available_memory(tmp_path) == free


def test_memory_of_other_systems_is_that_of_the_machine(tmp_path, monkeypatch):
    assert (portability.available_memory(tmp_path) or 0) > 1 << 20
    monkeypatch.delattr(portability.os, "sysconf")
    assert portability.available_memory(tmp_path) is None
