"""Parse options declared as dataclasses, by tyro, and turn every user error into one line."""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from danet.errors import InputError

Parsed = TypeVar("Parsed")

_FLAGS: ContextVar[dict[str, str]] = ContextVar("flags", default={})  # noqa: B039 (never mutated)


def parse(
    kind: type[Parsed],
    args: Sequence[str],
    command: str,
    default: Parsed | None = None,
    aliases: Mapping[str, str] | None = None,
    program: str = "danet",
) -> Parsed:
    """Parse the arguments of a command, and remember its flags for `error_line`.

    Args:
        kind: a dataclass with a field per option.
        args: the arguments.
        command: its name, for messages.
        default: default values that differ from those of `kind`.
        aliases: flags of parameters that no option is named after.
        program: the word before the command.

    Raises:
        InputError: an unknown option, a missing or invalid value.
    """
    _FLAGS.set({**dict(_flags(kind)), **(aliases or {})})
    given: dict[str, Any] = {} if default is None else {"default": default}
    full = f"{program} {command}"
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(kind, prog=full, args=args, registry=_registry(), **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _option_error(messages.getvalue(), full) from None


def error_line(error: InputError) -> str:
    """Format an error as one line, with the parameters it names written as flags of the parsed command."""
    flags = _FLAGS.get()
    where = flags.get(error.where, error.where) if isinstance(error.where, str) else error.where
    text = re.sub(r"`([a-z][\w.]*)`", lambda name: flags.get(name[1], name[1]), f"{error.what}; {error.remedy}")
    return printable(f"error: {where}: {text}")


def printable(text: str) -> str:
    """Escape newlines, terminal control sequences and undecodable bytes, which file names may contain."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogateescape").decode() for c in text)


def _registry() -> ConstructorRegistry:
    """Return rules with which tyro's help states the default of each option once."""
    registry, pending = ConstructorRegistry(), []

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if pending or not is_dataclass(info.type):
            return None  # tyro's own rules apply
        pending.append(info)
        spec = ConstructorRegistry.get_struct_spec(info)
        pending.pop()
        assert isinstance(spec, StructConstructorSpec)
        return replace(spec, fields=tuple(map(_with_one_default, spec.fields)))

    return registry


def _with_one_default(field: StructFieldSpec) -> StructFieldSpec:
    """Append "(default: VALUE)" to the text of an option only if it has a default that the text does not describe."""

    def hint(value: str) -> str:
        text = field.helptext() if callable(field.helptext) else field.helptext
        return "" if value in ("", "''", "None") or "default:" in (text or "") else f"(default: {value})"

    return replace(field, type=Annotated[field.type, tyro.conf.arg(help_behavior_hint=hint)])


def _flags(kind: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Map the parameters behind the options of a dataclass to flags; nested ones by their own and their dotted names.

    A field annotated with tyro.conf.arg(name="") adds no prefix. Options override fields of the same name in sections.
    """
    types = get_type_hints(kind, include_extras=True)
    own = []
    for field in fields(kind):  # pyright: ignore[reportArgumentType]
        inner, *notes = [types[field.name], *getattr(types[field.name], "__metadata__", ())]
        inner = getattr(inner, "__origin__", inner) if notes else inner
        if is_dataclass(inner) and isinstance(inner, type):
            unnamed = any(getattr(note, "name", None) == "" for note in notes)
            yield from _flags(inner, prefix if unnamed else f"{prefix}{field.name}.")
            continue
        positional = any("Positional" in repr(note) for note in notes)
        name = next((note.name for note in notes if getattr(note, "name", None)), field.name)  # tyro.conf.arg(name=...)
        flag = field.name.upper() if positional else f"--{prefix}{name}".replace("_", "-")
        own += [(field.name, flag), (f"{prefix}{field.name}", flag)]
    yield from own


def _option_error(message: str, program: str) -> InputError:
    lines = [line.strip(" │╭╮╰╯|+") for line in message.splitlines()]  # a box, in ASCII on some terminals
    lines = [line for line in lines if line.strip("─-")][1:]  # the first is the box's title
    text = " ".join(lines)
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", text)
    remedy = f"did you mean {near[1]}?" if near else f"see {program} --help"
    if unknown := re.match(r"Unrecognized options: ([^\s,]+)", text):
        return InputError(unknown[1], "unknown option", remedy)
    if choice := re.match(r"invalid choice (.*?) for argument '(\S+)'\. Expected one of \((.*?)\)", text):
        names = choice[3].rstrip(",").replace("'", "")
        return InputError(choice[2], f"{choice[1]} is unknown", f"use one of {names}")
    if short := re.match(r"Missing value for argument '(\S+)'\. Expected (\d+) values?", text):
        return InputError(short[1], f"its value is missing (expected {short[2]})", remedy)
    if wrong := re.match(r"Error parsing (\S+): (.*?)(?= Argument helptext| For full|$)", text):
        return InputError(wrong[1], wrong[2], remedy)
    if missing := re.match(r"Missing from .*?: (.*?)(?= For full|$)", text):
        return InputError(program, f"{missing[1]} is missing", remedy)
    option = re.search(r"--[\w.-]+", text)
    return InputError(option[0] if option else program, lines[0] if lines else "invalid arguments", remedy)
