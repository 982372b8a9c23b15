"""Serve one port with several processes, each with its own network, compute thread, decoder and stored images.

The main process starts them, starts a new one when one has crashed, and passes on that they are to stop. If it is
killed, they stop as well. They share the listening socket, so no connection is lost when one of them crashes.
"""

import json
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from danet.errors import InputError
from danet.serve import run_server
from danet.serve.limits import Limits
from danet.serve.log import LogFormat
from danet.serve.peers import Peers, internal_socket

log = logging.getLogger("danet.serve")

_RESTART_SECONDS = 1.0
_EXTRA_SECONDS = 5.0
"""Time beyond that for running requests that a process has to end."""


@dataclass(frozen=True)
class Settings:
    """What each process serves, and how.

    Args:
        weights: a weights file or an exported model; None means the bundled weights.
        device: cpu or cuda; None means the GPU if there is one.
        limits: limits of each process, and access rules.
        drain: seconds for which a stopping server still accepts requests.
        log_format: format of the log.
    """

    weights: Path | None
    device: str | None
    limits: Limits
    drain: float
    log_format: LogFormat


@dataclass
class _Child:
    process: BaseProcess
    pipe: Connection
    started: float
    ready: bool = False


def serve(settings: Settings, listening: socket.socket, count: int, announce: Callable[[], None]) -> None:
    """Serve with several processes until SIGINT or SIGTERM.

    Args:
        settings: what each process serves.
        listening: the socket that they share.
        count: number of processes.
        announce: called when all of them accept requests.

    Raises:
        InputError: the network cannot be loaded.
    """
    run_server.start_log(settings.log_format)
    supervisor = _Supervisor(settings, listening, count, announce)
    with _Signals() as signals:
        supervisor.run(signals)
    if signals.number is not None:
        signal.raise_signal(signals.number)


class _Signals:
    """Notes the first SIGINT or SIGTERM, and makes `pipe` readable. Restores the handlers at the end."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.pipe, self._other = socket.socketpair()

    def __enter__(self) -> "_Signals":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.pipe.close()
        self._other.close()

    def _note(self, number: int, _: object) -> None:
        if self.number is None:
            self.number = number
            self._other.send(b"x")


class _Supervisor:
    def __init__(self, settings: Settings, listening: socket.socket, count: int, announce: Callable[[], None]):
        self._settings, self._listening, self._announce = settings, listening, announce
        names = [f"danet-{secrets.token_hex(16)}" for _ in range(count)]
        self._internal = [internal_socket(name) for name in names]
        self._addresses, self._secret = tuple(f"\0{name}" for name in names), secrets.token_hex(32)
        self._children: list[_Child] = []
        self._announced = False

    def run(self, signals: _Signals) -> None:
        """Run the processes until a signal arrives, and stop them."""
        try:
            self._children = [self._start(number) for number in range(len(self._internal))]
            while signals.number is None:
                self._wait(signals)
        finally:
            self._stop()

    def _start(self, number: int) -> _Child:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        sockets = [socket.socket(fileno=os.dup(own.fileno())) for own in (self._listening, self._internal[number])]
        peers = Peers(number, self._addresses, self._secret)
        arguments = (self._settings, peers, len(self._internal), sockets, other)
        process = context.Process(target=_work, args=arguments, name=f"danet-serve-{number}")
        with other, sockets[0], sockets[1]:
            process.start()
        return _Child(process, pipe, time.monotonic())

    def _wait(self, signals: _Signals) -> None:
        """Wait for the next signal, message or end of a process, and act on it."""
        waiting = [child.process.sentinel for child in self._children]
        waiting += [child.pipe for child in self._children if not child.ready]
        wait([*waiting, signals.pipe])
        for number, child in enumerate(self._children):
            if not child.ready and child.pipe.poll():
                self._receive(child)
            if signals.number is None and not child.process.is_alive():
                self._replace(number, child)
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            self._announce()

    def _receive(self, child: _Child) -> None:
        try:
            message = json.loads(child.pipe.recv_bytes())
        except (EOFError, OSError):  # it has crashed
            child.process.join()
            return
        if "error" in message:
            raise InputError(*message["error"])
        child.ready = True

    def _replace(self, number: int, child: _Child) -> None:
        if not self._announced:
            what = f"a process ended with status {child.process.exitcode} before it could serve"
            raise InputError("workers", what, "use fewer, or see the log")
        log.error("process %d ended with status %s; starting another", number, child.process.exitcode)
        child.pipe.close()
        child.process.close()
        time.sleep(max(0.0, child.started + _RESTART_SECONDS - time.monotonic()))
        self._children[number] = self._start(number)

    def _stop(self) -> None:
        """Tell the processes to stop, by closing their pipes, and kill those that take too long or do not serve yet."""
        self._listening.close()
        for child in self._children:
            child.pipe.close()
            if not child.ready:
                child.process.kill()
        deadline = time.monotonic() + self._settings.drain + run_server.GRACE + _EXTRA_SECONDS
        for child in self._children:
            child.process.join(max(0.0, deadline - time.monotonic()))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
        for own in self._internal:
            own.close()


def _work(settings: Settings, peers: Peers, count: int, sockets: list[socket.socket], pipe: Connection) -> None:
    """Serve in a process of its own, until the main process closes the pipe or ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the main process gets them too
        signal.signal(number, signal.SIG_IGN)
    from danet.predict.predictor import load
    from danet.serve.app import create_app

    _share_cores(count)
    try:
        app = create_app(load(settings.weights, settings.device), settings.limits, peers)
    except InputError as error:
        pipe.send_bytes(json.dumps({"error": (error.where, error.what, error.remedy)}, default=str).encode())
        return
    run_server.start_log(settings.log_format)
    public, internal = sockets
    run_server.serve(
        app, [run_server.shared(public), run_server.shared(internal)], settings.limits, settings.drain, pipe
    )


def _share_cores(count: int) -> None:
    """Give each process its share of the cores, unless the user has set the number of threads."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for torch when it is imported, and for the runtimes of exports
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
