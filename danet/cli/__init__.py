"""The commands, one a file: parse, call one function, print. No logic.

Exit status: 0 good, 1 our fault, 2 the user's input, told in one line, `error: FILE OR OPTION: WHAT; REMEDY` (--debug
shows the traceback), 130 or 143 stopped by SIGINT or SIGTERM. A command's file is imported when it is run, and torch
inside the functions that need it, so that --help answers at once.
"""

import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from danet.errors import InputError
from danet.files import FULL

COMMANDS = {
    "predict": "images or folders -> overlay, labels, JSON",
    "train": "a recipe, on CamVid, on your own folder, or on drawn scenes",
    "init": "your own folder -> its dataset.yaml",
    "check": "everything that is wrong with a dataset, in one run",
    "look": "where a point of an image looks, what a channel answers to, what each module changes",
    "evaluate": "weights + dataset -> mean IoU, IoU of each class",
    "robustness": "weights + dataset -> mean IoU on images that noise, blur, weather or JPEG have corrupted",
    "report": "a run's page, or several runs side by side",
    "convert": "a released DANet checkpoint -> .safetensors",
    "export": "weights -> ONNX or OpenVINO, int8 too, compared with the network",
    "serve": "a page that shows where each pixel looks, and a REST interface",
    "recipes": "what can be trained",
}
"""name -> one line; the function is `run` of the module of that name."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    warnings.showwarning = _note
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_usage())
            return 0
        if args[0] == "--version":
            from danet import __version__

            print(__version__)
            return 0
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            raise InputError(
                args[0], "is no command", f"did you mean {near[0]}?" if near else f"use {', '.join(COMMANDS)}"
            )
        status = import_module(f"danet.cli.{args[0]}").run(args[1:])
        sys.stdout.flush()
        return status
    except InputError as error:
        if debug:
            raise
        return _refused(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        where = error.filename or ("standard output" if error.errno in FULL and _output_is_full() else None)
        if debug or where is None:
            raise
        return _refused(InputError(where, str(error.strerror), "check the path and its permissions"))


def _output_is_full() -> bool:
    """Whether standard output takes not one line more; what is left of it is then thrown away, since the interpreter
    would try again at its end.
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
            "danet: Dual Attention Networks for scene segmentation",
            "",
            *lines,
            "",
            "danet COMMAND --help shows a command's options; --debug shows the traceback of an error.",
        ]
    )
