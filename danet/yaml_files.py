"""Read YAML files of settings safely."""

import re
from pathlib import Path
from typing import Any

from danet.files import read_limited

_MAX_DEPTH, _MAX_VALUES = 20, 20_000


def read_yaml(file: Path) -> Any:
    """Read a YAML file of plain values: a user's dataset.yaml or a run's recipe.yaml.

    Aliases (&a, *a), deep nesting and too many values are refused: no settings file needs them, a few lines of them
    fill the memory, and PyYAML takes minutes for deeply nested brackets or for a list of 1 MB. So are keys that are
    written twice, of which PyYAML would take the last.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, is not YAML, has a key twice, or holds more than plain values; the message is
            one line.
    """
    import yaml

    content = read_limited(file)
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(content, yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError(f"nested deeper than {_MAX_DEPTH} levels, or an alias (*NAME)")
            if count > _MAX_VALUES:
                raise ValueError(f"more than {_MAX_VALUES:,} values")
        loader = yaml.SafeLoader(content)
        if (top := loader.get_single_node()) is None:
            return None
        _check_keys(top, loader)
        return loader.construct_document(top)
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = re.sub(r",? but (got|found) .*", "", " ".join((error.problem or "syntax error").split()))
        raise ValueError(f"invalid YAML{line}: {problem[:300]}") from error
    except Exception as error:  # PyYAML raises a dozen exception types, for example for the date 2001-99-99
        raise ValueError(f"invalid YAML: {' '.join(str(error).split())[:300]}") from error


def _check_keys(node: Any, loader: Any) -> None:
    """Check that no mapping in a node of PyYAML has a key twice.

    Raises:
        ValueError: one does, with its line.
    """
    if node.id == "scalar":
        return
    pairs = node.value if node.id == "mapping" else []
    lines: dict[Any, int] = {}
    for key, _ in pairs:
        if key.id == "scalar" and key.value != "<<":  # which merges mappings
            name, line = loader.construct_object(key), key.start_mark.line + 1
            if name in lines:
                raise ValueError(f"has the key {name!r} twice, at lines {lines[name]} and {line}")
            lines[name] = line
    for child in (each for pair in pairs for each in pair) if pairs else node.value:
        _check_keys(child, loader)
