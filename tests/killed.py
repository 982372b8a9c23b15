"""Programs that the training tests kill, forked from a process that has already imported torch, so they start quickly.

`python killed.py` is that process. It reads one JSON line for each program to start, and prints lines `PID TEXT`: the
messages of the programs, and finally `ended STATUS`. The class `Warm` controls it.
"""

import atexit
import gc
import hashlib
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

SECONDS = 300  # without a message mean that a program hangs


def lines(pipe: IO[bytes], seconds: float) -> Iterator[tuple[int, str]]:
    """Yield (process id, message) until all programs have ended; fail if there is no message for some time."""
    part = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], seconds)
        assert ready, f"no message for {seconds} s"
        content = os.read(pipe.fileno(), 1 << 16)
        if not content:
            return
        *whole, part = (part + content).split(b"\n")
        for line in whole:
            pid, _, text = line.decode().partition(" ")
            if pid.isdigit():  # a message, not the output of a command
                yield int(pid), text


class Warm:
    """Starts programs, each in its own process group."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None
        self._lines = lines(self._process.stdout, SECONDS)
        self._messages: dict[int, deque[str]] = defaultdict(deque)

    def start(self, program: Callable, *args: Any, errors: Path, **environment: str) -> "Program":
        """Start a program; `errors` is the file for its standard error, and `args` must be JSON values."""
        line = {"program": program.__name__, "args": args, "errors": str(errors), "environment": environment}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()
        return Program(self, int(self.next_message(0)), errors)

    def next_message(self, pid: int) -> str:
        """Return the next message of a program."""
        while not self._messages[pid]:
            number, text = next(self._lines)
            self._messages[number].append(text)
        return self._messages[pid].popleft()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class Program:
    """A running program. `status` is None while it runs, then its exit status, or minus a signal's number."""

    def __init__(self, warm: Warm, pid: int, errors: Path):
        self._warm, self.pid, self.errors = warm, pid, errors
        self.status: int | None = None

    def read(self) -> str:
        """Return its next message."""
        text = self._warm.next_message(self.pid)
        if text.startswith("ended "):
            self.status = int(text.split()[1])
        return text

    def reaches(self, moment: str, times: int = 1) -> bool:
        """Wait until it has sent this message `times` times; return False if it ends before."""
        while self.status is None:
            times -= self.read() == moment
            if times == 0:
                return True
        return False

    def wait(self) -> int:
        """Wait until it ends, and return its status."""
        while self.status is None:
            self.read()
        return self.status

    def kill(self, number: int = signal.SIGKILL, group: bool = True) -> int:
        """Send a signal to its group or only to itself, and wait until it ends."""
        (os.killpg if group else os.kill)(self.pid, number)
        return self.wait()

    def stderr(self) -> str:
        """Return what it has written to standard error."""
        return self.errors.read_text()

    def alive(self) -> list[int]:
        """Return the running processes of its group, including orphaned workers."""
        running = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group, *_ = file.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(group) == self.pid and state != "Z":
                running.append(int(file.parent.name))
        return running

    def workers(self) -> list[int]:
        """Return its running workers."""
        return [pid for pid in self.alive() if pid != self.pid]


def send(text: str) -> None:
    """Send a message to the test."""
    os.write(1, f"{os.getpid()} {text}\n".encode())


# programs, which run in the forks


def save_forever(run: str) -> None:
    """Save checkpoints whose tensors contain their step."""
    import torch

    from danet.train import checkpoint, run_folder

    with run_folder.lock(Path(run)):
        state = checkpoint.newest(Path(run)) if checkpoint.exists(Path(run)) else {"step": 0}
        send("ready")
        for step in range(state["step"] + 1, 1 << 30):
            checkpoint.save(Path(run), {"step": step, "network": {"a": torch.full((200_000,), float(step))}})


def command(*args: str) -> int:
    """Run a `danet` command on few scenes, with the messages of `training`. The last argument is the run folder."""
    from danet.cli import main

    _watch(Path(args[-1]).with_suffix(".order"))
    return main(list(args))


def script(path: str, *args: str) -> None:
    """Run a file as `python PATH ARGS`; what it prints goes to standard error."""
    sys.argv = [path, *args]
    runpy.run_path(path, run_name="__main__")


def hold_lock(run: str) -> None:
    """Lock a run folder until it is killed."""
    from danet.train import run_folder

    with run_folder.lock(Path(run)):
        send("locked")
        signal.pause()


def serve(*args: str) -> int:
    """Run `danet serve`."""
    from danet.cli import main

    return main(["serve", *args])


def serve_briefly(*args: str) -> int:
    """Run `danet serve`, which finishes its requests for only half a second."""
    from danet.serve import run_server

    run_server.GRACE = 0.5
    return serve(*args)


def serve_with_few_descriptors(count: int, *args: str) -> int:
    """Run `danet serve` with this limit on its file descriptors."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
    return serve(*args)


def command_in_little_memory(megabytes: int, *args: str) -> int:
    """Run a `danet` command that may allocate only this much memory."""
    import torch

    from danet.cli import main

    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 1_000_000,) * 2)
    return main(list(args))


def batch_killed_at(count: int, *args: str) -> int:
    """Run a `danet` command, and kill it in the middle of its n-th write of a file; 0: never."""
    import torch

    from danet import files
    from danet.cli import main

    torch.set_num_threads(1)
    flush, writes = files.flush, []

    def flush_or_die(path: Path) -> None:
        flush(path)
        writes.append(path)
        if len(writes) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    files.flush = flush_or_die
    return main(list(args))


def batch_killed_by(image: str, *args: str) -> int:
    """Run a `danet` command, and kill it when it reads this image."""
    import torch

    from danet.cli import main
    from danet.predict import batch_segmenter

    torch.set_num_threads(1)
    read = batch_segmenter.read_job

    def read_or_die(job, bands):
        if job.file.name == image:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(job, bands)

    batch_segmenter.read_job = read_or_die
    return main(list(args))


def ray_batch(faults: str, *args: str) -> int:
    """Run `danet predict --engine ray` with the workers of faulty_worker.py, which take their faults from a folder."""
    import faulty_worker
    from ray import cloudpickle

    from danet.cli import main
    from danet.predict import batch_engines

    cloudpickle.register_pickle_by_value(faulty_worker)
    batch_engines._BatchWorker = partial(faulty_worker.FaultyWorker, faults)
    return main(["predict", *args])


def elastic(*args: str) -> int:
    """Run `command` with a checkpoint after every step. First send how often torchrun has restarted it."""
    from danet.train import run_folder

    send(f"started {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}")
    run_folder.RunOptions = partial(run_folder.RunOptions, checkpoint_seconds=0)
    return command(*args)


def training(settings: dict, run: str, workers: int, resume: bool, double: bool = False) -> None:
    """Train a recipe with a checkpoint after every step.

    Messages: `part` before each part of a step, `validation` before each validation image, `saving` before each
    checkpoint. RUN.order gets a line for each step and process: the step, RANK/WORLD, the names of the samples, and the
    SHA-256 of everything random in the step. `double` computes in float64.
    """
    import torch
    import torch.distributed

    from danet import recipes
    from danet.train.loop import train
    from danet.train.run_folder import RunOptions

    _watch(Path(run).with_suffix(".order"))
    if double:
        _compute_in_float64()
    options = RunOptions(Path(run), device="cpu", workers=workers, checkpoint_seconds=0)
    result = train(recipes.from_dict(settings, "test"), options, resume)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if result.stopped_by is not None:
        sys.exit(128 + result.stopped_by)


def validation(images: int) -> None:
    """Send the confusion matrix of an untrained network."""
    import torch

    from danet import recipes
    from danet.data import registry
    from danet.data.datasets import synthetic
    from danet.train import distributed
    from danet.train import validate as validation
    from danet.train.build import build

    synthetic.COUNTS["val"] = images
    recipe = recipes.from_dict({**recipes.to_dict(recipes.TOY), "network": _NETWORK}, "test")
    process = distributed.start("cpu")
    samples = registry.load("toy", None, "val")
    network, card = build(recipe, samples.classes)
    send(json.dumps(validation.validate(network, card, samples, process).matrix.tolist()))
    if process.world > 1:
        torch.distributed.destroy_process_group()


def same_data(images: int) -> None:
    """Send what the comparison of the samples of all processes finds; this one has so many."""
    import torch

    from danet import InputError
    from danet.data import registry
    from danet.data.datasets import synthetic
    from danet.train import distributed, nodes

    synthetic.COUNTS["train"] = images
    process = distributed.start("cpu")
    try:
        nodes.check_same_data(process, {"training": registry.load("toy", None, "train")})
        send("same")
    except InputError as error:
        send(str(error))
    torch.distributed.destroy_process_group()


_NETWORK = {"backbone": "test_resnet", "width": 16, "align_corners": False, "pretrained": False}


def _watch(order: Path) -> None:
    from danet.data.datasets import synthetic
    from danet.train import checkpoint, loop, report
    from danet.train import validate as validation

    synthetic.COUNTS.update({"train": 10, "val": 3})
    steps = [0]

    def before(module, name: str, act: Callable) -> None:
        original = getattr(module, name)

        def watched(*args):
            act(*args)
            return original(*args)

        setattr(module, name, watched)

    def note(_network, parts, *_rest) -> None:
        names = ",".join(name for part in parts for name in part.names)
        process = os.environ.get("RANK", "0") + "/" + os.environ.get("WORLD_SIZE", "1")
        with order.open("a") as file:
            file.write(f"{steps[0]} {process} {names} {_randomness(parts)}\n")

    before(loop, "learning_rate", lambda _optim, step, _steps: steps.__setitem__(0, step))
    before(loop, "compute_gradients", note)
    before(loop, "multi_loss", lambda *_: send("part"))
    before(checkpoint, "save", lambda *_: send("saving"))
    report.finish = lambda *_: None  # saves a second after each run
    evaluate = validation.evaluate
    validation.evaluate = lambda logits, *args: evaluate(lambda images: send("validation") or logits(images), *args)


def _randomness(parts) -> str:
    import torch

    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for part in parts:
        digest.update(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
    return digest.hexdigest()


def _compute_in_float64() -> None:
    """Compute in float64, in which rounding is far smaller than the effect of any mistake."""
    from danet.predict import attention, inference
    from danet.train import loop

    build, normalize = loop.build, inference.normalize

    def double_build(*args, **kwargs):
        network, card = build(*args, **kwargs)
        return network.double(), card

    loop.build = double_build
    loop.normalize = inference.normalize = attention.normalize = lambda *args: normalize(*args).double()


# the process that forks


def main() -> None:
    """Import what the programs need, without starting a thread, and fork for each line."""
    gc.disable()
    import torch._dynamo  # noqa: F401  (the first step of an optimizer imports it)

    import danet.cli.train
    import danet.train.loop  # noqa: F401

    gc.freeze()  # the programs neither search through what is imported, nor copy it
    gc.enable()
    signal.signal(signal.SIGCHLD, lambda *_: _report_ended())
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            _run(request)
        os.write(1, f"0 {pid}\n".encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _run(request: dict) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    status: Any = 1
    try:
        os.setpgid(0, 0)
        os.environ.update(request["environment"])
        descriptor = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stdout = sys.stderr  # standard output is for messages
        status = globals()[request["program"]](*request["args"]) or 0
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(status)


def _report_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        os.write(1, f"{pid} ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    sys.exit(elastic(*sys.argv[1:]) if sys.argv[1:] else main())
