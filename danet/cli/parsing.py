"""Parse options declared as dataclasses, by tyro, and turn every user error into one line."""

import contextlib
import io
import re
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from danet.errors import InputError, printable

Parsed = TypeVar("Parsed")

_FLAGS: ContextVar[dict[str, str]] = ContextVar("flags", default={})  # noqa: B039 (never mutated)

_METAVARS = {
    "images": "IMAGE",
    "weights": "WEIGHTS",
    "initial_weights": "WEIGHTS",
    "runs": "RUN",
    "resume": "RUN",
    "names": "NAME",
    "folder": "FOLDER",
    "source": "SOURCE",
    "destination": "DESTINATION",
    **dict.fromkeys(("root", "cache", "calibration", "submit", "predictions", "counts", "verify_on"), "DIR"),
    "shard": "I/N",
    "fold": "I/K",
    "device": "DEVICE",
    "time_budget": "TIME",
    "host": "HOST",
    "allow_host": "HOST",
    "allow_origin": "ORIGIN",
    "trusted_proxy": "ADDRESS",
    "root_path": "PATH",
    "token": "TOKEN",
    "about": "TEXT",
}
"""Field -> how help calls its value, if not by its type."""

_TYPES = {
    int: ("N", "a whole number", "whole numbers"),
    float: ("X", "a number", "numbers"),
    Path: ("FILE", "a path", "paths"),
    str: ("NAME", "a text", "texts"),
}
"""Type of a value -> its name in help, and its description in errors, in the singular and in the plural."""

_COUNTS = {2: "two", 3: "three", 4: "four"}
_FORMER_VALUES = {"bf16": "bfloat16"}
"""Spellings of choices that are still accepted."""


_SYNONYMS = (("--root", "--data.root"), ("--fold", "--data.fold"))
"""Flags of which a command has one and also accepts the other."""


@dataclass(frozen=True)
class _Option:
    """An option of a command.

    Args:
        names: the parameters that it sets: its own name, and that with the names of its sections.
        flag: --FLAG, or the name of a positional argument.
        kind: its type, without None.
        default: its default value, or MISSING.
    """

    names: tuple[str, str]
    flag: str
    kind: Any
    default: Any

    @property
    def several(self) -> bool:
        """Whether the option is a list of values, which may be given in several parts."""
        element, *rest = get_args(self.kind) or (None,)
        return rest == [Ellipsis] and get_origin(element) is not tuple

    @property
    def switch(self) -> bool:
        """Whether the option is a flag that is off by default."""
        return self.kind is bool and self.default is False


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
    options = list(_options(kind, default))
    first = {option.names[0]: option.flag for option in options[::-1]}  # network.position before loss.position
    _FLAGS.set({**first, **{option.names[1]: option.flag for option in options}, **(aliases or {})})
    given: dict[str, Any] = {} if default is None else {"default": default}
    full, texts, messages = f"{program} {command}", {}, io.StringIO()
    args = ["--help"] if {"-h", "--help"} & set(args) else _normalized(args, options)
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(kind, prog=full, args=args, registry=_registry(texts), **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _option_error(messages.getvalue(), full, args, options, texts) from None


def error_line(error: InputError) -> str:
    """Format an error as one line, with the parameters it names written as flags of the parsed command."""
    where = _FLAGS.get().get(error.where, error.where) if isinstance(error.where, str) else error.where
    return printable(f"error: {where}: {with_flags(f'{error.what}; {error.remedy}')}")


def with_flags(text: str) -> str:
    """Replace the parameters in backticks by the flags of the parsed command."""
    flags = _FLAGS.get()
    return re.sub(r"`([a-z][\w.]*)`", lambda name: flags.get(name[1], name[1]), text)


def given_names(args: Sequence[str]) -> set[str]:
    """Return the parameters whose flags are among the arguments of the parsed command."""
    flags = {arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")}
    flags |= {one for pair in _SYNONYMS for one in pair if flags & set(pair)}
    return {name for name, flag in _FLAGS.get().items() if flag in flags or _negation(flag) in flags}


def option_words(name: str, value: Any) -> list[str]:
    """Return the words of the parsed command that set a parameter."""
    values = value if isinstance(value, tuple) else (value,)
    return [_FLAGS.get()[name], *map(str, values)]


def without_options(args: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the arguments without some options and their values."""
    kept: list[str] = []
    dropping = False
    for arg in args:
        if arg.startswith("--"):
            dropping = arg.partition("=")[0].replace("_", "-") in flags
        if not dropping:
            kept.append(arg)
    return kept


def _options(kind: type, default: Any = None, prefix: str = "") -> Iterator[_Option]:
    """Yield the options of a dataclass; those of its sections first.

    A field annotated with tyro.conf.arg(name="") adds no prefix.
    """
    types_by_name = get_type_hints(kind, include_extras=True)
    own = []
    for field in fields(kind):  # pyright: ignore[reportArgumentType]
        inner, *notes = [types_by_name[field.name], *getattr(types_by_name[field.name], "__metadata__", ())]
        inner = getattr(inner, "__origin__", inner) if notes else inner
        value = field.default if default is None else getattr(default, field.name)
        if is_dataclass(inner) and isinstance(inner, type):
            unnamed = any(getattr(note, "name", None) == "" for note in notes)
            yield from _options(
                inner, None if value is MISSING else value, prefix if unnamed else f"{prefix}{field.name}."
            )
            continue
        name = next((note.name for note in notes if getattr(note, "name", None)), field.name)  # tyro.conf.arg(name=...)
        flag = f"--{prefix}{name}".replace("_", "-")
        if any("Positional" in repr(note) for note in notes):
            flag = _METAVARS[field.name]
        own.append(_Option((field.name, f"{prefix}{field.name}"), flag, _without_none(inner), value))
    yield from own


def _without_none(kind: Any) -> Any:
    """Return X for `X | None`."""
    others = [arg for arg in get_args(kind) if arg is not types.NoneType]
    return others[0] if get_origin(kind) in (types.UnionType, Union) and len(others) == 1 else kind


def _negation(flag: str) -> str:
    """Return --a.no-b for --a.b, as tyro does."""
    section, _, name = flag.removeprefix("--").rpartition(".")
    return f"--{section}{'.' * bool(section)}no-{name}"


def _normalized(args: Sequence[str], options: Sequence[_Option]) -> list[str]:
    """Replace synonyms and former spellings of choices, and drop the negations of flags that are off anyway."""
    flags = {option.flag for option in options}
    synonyms = {one: other for pair in _SYNONYMS for one, other in (pair, pair[::-1]) if one not in flags}
    synonyms = {one: other for one, other in synonyms.items() if other in flags}
    needless = {_negation(option.flag) for option in options if option.switch} - flags
    choices = {option.flag for option in options if set(_FORMER_VALUES.values()) & set(get_args(option.kind))}
    normalized: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        flag = synonyms.get(flag, flag)
        arg = f"{flag}{equals}{value}"
        if flag in choices and equals:
            normalized.append(f"{flag}={_FORMER_VALUES.get(value, value)}")
        elif normalized and normalized[-1] in choices:
            normalized.append(_FORMER_VALUES.get(arg, arg))
        elif arg not in needless:
            normalized.append(arg)
    return _joined(normalized, {option.flag for option in options if option.several})


def _joined(args: Sequence[str], flags: Set[str]) -> list[str]:
    """Move all values of a list that is given several times behind its first flag: tyro takes those of the last one."""
    lists: dict[str, list[str]] = {}
    parts: list[list[str]] = [[]]
    current = parts[0]
    for arg in args:
        flag, equals, value = arg.partition("=")
        flag = flag.replace("_", "-")
        if flag in flags and flag in lists:
            current = lists[flag]
        elif arg.startswith("--"):
            current = [flag if flag in flags else arg]
            parts.append(current)
            if flag in flags:
                lists[flag] = current
        else:
            current.append(arg)
        if flag in flags and equals:
            current.append(value)
    return [word for part in parts for word in part]


def _registry(texts: dict[str, str]) -> ConstructorRegistry:
    """Return rules for a shorter help of tyro, which also collect the text of each option in `texts`."""
    registry, pending = ConstructorRegistry(), []

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if pending or not is_dataclass(info.type):
            return None  # tyro's own rules apply
        pending.append(info)
        spec = ConstructorRegistry.get_struct_spec(info)
        pending.pop()
        assert isinstance(spec, StructConstructorSpec)
        return replace(spec, fields=tuple(_simplified(field, texts) for field in spec.fields))

    return registry


def _simplified(field: StructFieldSpec, texts: dict[str, str]) -> StructFieldSpec:
    """Return an option whose help is one paragraph without Python's types, and states each default once.

    "(default: VALUE)" is added if the option has a default that its text does not describe, and "(this recipe: VALUE)"
    if a recipe sets another value than the default that the text describes.
    """
    text = field.helptext() if callable(field.helptext) else field.helptext
    text = texts[field.name] = with_flags(" ".join((text or "").split()))
    described = "default:" in text

    def hint(value: str) -> str:
        if value in ("", "''", "None", "False") or (described and isinstance(field.default, Path)):
            return ""
        return f"(this recipe: {value})" if described else f"(default: {value})"

    notes = getattr(field.type, "__metadata__", ())
    inner = getattr(field.type, "__origin__", field.type) if notes else field.type
    positional = any("Positional" in repr(note) for note in notes)
    named = any(getattr(note, "metavar", None) for note in notes)
    metavar = None if named else _metavar(field.name, inner, positional, field.default)
    kind: Any = Annotated[field.type, tyro.conf.arg(help_behavior_hint=hint, metavar=metavar)]
    if inner is bool and field.default is False:
        kind = tyro.conf.FlagCreatePairsOff[kind]
    return replace(field, type=kind, helptext=text or None)


def _metavar(name: str, kind: Any, positional: bool, default: Any) -> str | None:
    """Return how help calls the value of an option; None for flags and sections."""
    kind = _without_none(kind)
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, arguments))}}}"
    if get_origin(kind) in (types.UnionType, Union):
        parts = ("None" if one is types.NoneType else _metavar(name, one, False, None) for one in arguments)
        return "|".join(str(part).strip("{}") for part in parts)
    element = arguments[0] if get_origin(kind) is tuple else kind
    if element not in _TYPES:
        return None
    word = _METAVARS.get(name, _TYPES[element][0]) if positional or name != "images" else "FILE"
    if get_origin(kind) is tuple:
        word = f"{word} [{word} ...]" if Ellipsis in arguments else " ".join([word] * len(arguments))
    optional = positional and (default is None or isinstance(default, str | Path | tuple))
    return f"[{word}]" if optional else word


def _option_error(
    message: str, program: str, args: Sequence[str], options: Sequence[_Option], texts: Mapping[str, str]
) -> InputError:
    """Return the error for what tyro prints."""
    lines = [line.strip(" │╭╮╰╯|+") for line in message.splitlines()]  # a box, in ASCII on some terminals
    lines = [line for line in lines if line.strip("─-")][1:]  # the first is the box's title
    text, seek = " ".join(lines), f"see {program} --help"
    by_flag = {option.flag: option for option in options}
    if unknown := re.match(r"Unrecognized options: ([^\s,]+)", text):
        return _unknown_option(unknown[1], text, by_flag, seek)
    if choice := re.match(r"invalid choice (.*?) for argument '(\S+)'\. Expected one of \((.*?)\)", text):
        option = by_flag.get(choice[2])
        names = get_args(option.kind) if option else ()  # tyro's own list is unordered, and contains None
        listed = ", ".join(map(str, names)) or choice[3].rstrip(",").replace("'", "")
        return InputError(choice[2], f"{choice[1]} is unknown", f"use one of {listed}")
    if short := re.match(r"Missing value for argument '(\S+)'\. Expected (\d+) values?", text):
        count, given = int(short[2]), len(_values(args, short[1]))
        return InputError(short[1], f"needs {count} values, got {given}" if count > 1 else "needs a value", seek)
    if (wrong := re.match(r"Error parsing (\S+): ", text)) and (option := by_flag.get(wrong[1])):
        return _wrong_type(option, _values(args, option.flag), seek)
    if text.startswith("Missing from"):
        required = [option for option in options if option.default is MISSING]
        missing = [option for option in required if any(re.match(rf"{option.flag}( |$)", line) for line in lines)]
        if missing:
            return _missing(missing, program, texts, seek)
    named = re.search(r"--[\w.-]+", text)
    return InputError(named[0] if named else program, lines[0] if lines else "invalid arguments", seek)


def _unknown_option(name: str, text: str, by_flag: Mapping[str, _Option], seek: str) -> InputError:
    if not name.startswith("-"):
        return InputError(name, "unexpected argument", seek)
    by_name: dict[str, list[str]] = {}  # with sections and without them -> flags
    for flag in by_flag:
        for known in {flag, f"--{flag.removeprefix('--').rpartition('.')[2]}"}:
            by_name.setdefault(known, []).append(flag)
    positive = by_name.get(f"--{name.removeprefix('--no-')}", []) if name.startswith("--no-") else []
    if negations := [_negation(flag) for flag in positive if by_flag[flag].kind is bool]:
        return InputError(name, "unknown option", f"did you mean {' or '.join(negations)}?")
    near = [name] if name in by_name else get_close_matches(name, by_name, n=1, cutoff=0.8)
    listed = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", text)
    suggestion = " or ".join(by_name[near[0]]) if near else listed[1] if listed else None
    return InputError(name, "unknown option", f"did you mean {suggestion}?" if suggestion else seek)


def _values(args: Sequence[str], flag: str) -> list[str]:
    """Return the words after the last occurrence of a flag."""
    values: list[str] = []
    collecting = False
    for arg in args:
        name, equals, value = arg.partition("=")
        if name.startswith("--"):
            if collecting := name.replace("_", "-") == flag:
                values = [value] if equals else []
        elif collecting:
            values.append(arg)
    return values


def _wrong_type(option: _Option, values: Sequence[str], seek: str) -> InputError:
    kind = option.kind
    while get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is tuple:  # may be repeated
        kind = get_args(kind)[0]
    arguments = get_args(kind)
    element = arguments[0] if arguments else kind
    _, one, several = _TYPES.get(element, _TYPES[str])
    fixed = bool(arguments) and Ellipsis not in arguments
    expected = (
        one if not arguments else f"{_COUNTS.get(len(arguments), len(arguments))} {several}" if fixed else several
    )
    values = values[: len(arguments)] if fixed else values if arguments else values[:1]
    return InputError(option.flag, f"must be {expected}, got {' '.join(map(repr, values))}", seek)


def _missing(missing: Sequence[_Option], program: str, texts: Mapping[str, str], seek: str) -> InputError:
    if len(missing) > 1:
        return InputError(program, f"{' and '.join(option.flag for option in missing)} are missing", seek)
    option = missing[0]
    choices = get_args(option.kind) if get_origin(option.kind) is Literal else ()
    remedy = " or ".join(f"{option.flag} {choice}" for choice in choices)
    text = texts.get(option.names[0], "")
    return InputError(
        program, f"{option.flag} is missing", f"use {remedy}" if remedy else f"specify {text}" if text else seek
    )
