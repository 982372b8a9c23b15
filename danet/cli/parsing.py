"""Command-line options as dataclasses, parsed by tyro; whatever is wrong with them in one line."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from danet.errors import InputError

Parsed = TypeVar("Parsed")


def parse(kind: type[Parsed], args: Sequence[str], command: str, default: Parsed | None = None) -> Parsed:
    """Parse by tyro, its boxed error message made one line."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(kind, prog=f"danet {command}", args=args, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _option_error(messages.getvalue(), command) from None


def error_line(error: InputError) -> str:
    return printable(f"error: {error}")


def printable(text: str) -> str:
    """File names may hold newlines, terminal escapes or bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogateescape").decode() for c in text)


def _option_error(message: str, command: str) -> InputError:
    lines = [line.strip(" │╭╮╰╯|+") for line in message.splitlines()]  # a box, in ASCII where the terminal has no other
    lines = [line for line in lines if line.strip("─-")][1:]  # the first is the box's title
    text = " ".join(lines)
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", text)
    remedy = f"did you mean {near[1]}?" if near else f"see danet {command} --help"
    if unknown := re.match(r"Unrecognized options: ([^\s,]+)", text):
        return InputError(unknown[1], "unknown option", remedy)
    if choice := re.match(r"invalid choice (.*?) for argument '(\S+)'\. Expected one of \((.*?)\)", text):
        names = choice[3].rstrip(",").replace("'", "")
        return InputError(choice[2], f"{choice[1]} is unknown", f"use one of {names}")
    if short := re.match(r"Missing value for argument '(\S+)'\. Expected (\d+) values?", text):
        return InputError(short[1], f"its value is missing ({short[2]} wanted)", remedy)
    if wrong := re.match(r"Error parsing (\S+): (.*?)(?= Argument helptext| For full|$)", text):
        return InputError(wrong[1], wrong[2], remedy)
    if missing := re.match(r"Missing from .*?: (.*?)(?= For full|$)", text):
        return InputError(f"danet {command}", f"{missing[1]} is missing", remedy)
    option = re.search(r"--[\w.-]+", text)
    return InputError(option[0] if option else f"danet {command}", lines[0] if lines else "cannot be read", remedy)
