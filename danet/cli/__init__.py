"""The commands, one per file. Each parses its options, calls one function and prints the result.

Exit status: 0 success, 1 a bug in danet, 2 an error in the user's input, 130 or 143 interrupted by SIGINT or SIGTERM.
User errors are one line, `error: FILE OR OPTION: WHAT; REMEDY`; --debug shows the traceback. A command's module is
imported only when the command runs, and torch only inside the functions that need it, so that --help answers at once.
"""

import atexit
import difflib
import gc
import keyword
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from danet.errors import InputError, missing_torch, name_parameters
from danet.files import FULL
from danet.portability import kept_memory

COMMANDS = {
    "predict": "segment images, folders and videos: overlay, labels, JSON",
    "train": "train a recipe, on your own folder or a public dataset",
    "init": "propose dataset.yaml for a folder of images and masks",
    "import": "turn the export of an annotation tool into images, masks and dataset.yaml",
    "check": "list everything that is wrong with a dataset",
    "look": "draw where pixels attend, what channels respond to, and what each module changes",
    "evaluate": "score weights on a dataset: mean IoU, IoU of each class, boundary F, calibration",
    "robustness": "score weights on images corrupted by noise, blur, weather and compression",
    "report": "write an HTML report of a run, or compare several runs",
    "convert": "convert a checkpoint, of a run or of the released code, to .safetensors",
    "export": "export weights to ONNX, OpenVINO or ExecuTorch, float32 or int8, and verify them",
    "serve": "start a web page that shows attention, and a REST API",
    "recipes": "list what can be trained",
}
"""Command -> summary. The function is `run` of the module with that name, or with _ after it for a Python keyword."""

_COMPUTING = "predict", "train", "evaluate", "robustness"
"""They run a network again and again, and then end."""

_REPORTING_LEAKS = "triton", "onnx", "executorch"
"""They use nanobind, which prints at the exit what garbage collection would have removed."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; None: that of this process, which then ends."""
    named = name_parameters.set(_with_flags)
    try:
        return _main(args)
    finally:
        name_parameters.reset(named)


def _with_flags(text: str) -> str:
    from danet.cli.parsing import with_flags  # imports tyro

    return with_flags(text)


def _main(args: Sequence[str] | None) -> int:
    if own_process := args is None:
        _delay_garbage_collection()
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    warnings.showwarning = _note
    try:
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        if not args or args[0] in ("-h", "--help"):
            print(_usage())
            return 0
        if args[0] == "--version":
            from danet import __version__

            print(__version__)
            return 0
        if args[0] == "bench":
            what = "the benchmarks are in the source repository"
            raise InputError("bench", what, "run python -m benchmarks.attention there")
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(COMMANDS)}"
            raise InputError(args[0], "unknown command", remedy)
        module = f"{args[0]}_" if keyword.iskeyword(args[0]) else args[0]
        with kept_memory() if own_process and args[0] in _COMPUTING else nullcontext():
            status = import_module(f"danet.cli.{module}").run(args[1:])
        sys.stdout.flush()
        return status
    except InputError as error:
        if debug:
            raise
        return _refused(error)
    except ModuleNotFoundError as error:
        if debug:
            raise
        return _refused(missing_torch(f"danet {args[0]}", error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        where = error.filename or ("standard output" if error.errno in FULL and _output_is_full() else None)
        if debug or where is None:
            raise
        remedy = "free some space" if error.errno in FULL else "check the path and its permissions"
        return _refused(InputError(where, str(error.strerror), remedy))


def _delay_garbage_collection() -> None:
    """Let the imports pass without garbage collection, and the exit.

    torch makes some 250,000 objects that are never garbage. Searching through them again and again, and once more at
    the exit, takes a quarter of the time of `danet predict` for one image.
    """
    usual = gc.get_threshold()

    def resume(phase: str, _: object) -> None:
        if phase == "stop":
            gc.callbacks.remove(resume)
            gc.set_threshold(*usual)
            gc.freeze()  # what is left was imported

    gc.callbacks.append(resume)
    gc.set_threshold(400_000, *usual[1:])
    atexit.register(_leave_garbage)


def _leave_garbage() -> None:
    """Skip the search for garbage at the exit, unless a library would call what is left a leak."""
    if not any(name in sys.modules for name in _REPORTING_LEAKS):
        gc.freeze()


def _output_is_full() -> bool:
    """Return whether standard output takes no more lines, and if so discard the rest.

    Otherwise the interpreter would try to write it again when it exits.
    """
    try:
        print(flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return True
    return False


def _note(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Print a warning for users on one line, and no others."""
    if issubclass(category, FutureWarning):
        print(f"note: {message}", file=sys.stderr)


def _refused(error: InputError) -> int:
    from danet.cli.parsing import error_line

    print(error_line(error), file=sys.stderr)
    return 2


def _usage() -> str:
    lines = [f"  danet {name:11} {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "danet: Dual Attention Networks for semantic segmentation",
            "",
            *lines,
            "",
            "danet COMMAND --help lists the options of a command, danet --version prints the version.",
            "--debug shows the traceback of an error.",
        ]
    )
