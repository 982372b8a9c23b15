"""YAML files of settings as plain values: a folder's dataset.yaml and a run's recipe.yaml. Nothing in them is run. Used
by `data.folder` and `train.folder`.
"""

from pathlib import Path
from typing import Any

import yaml

_DEPTH = 20


def read_yaml(file: Path) -> Any:
    """What a file holds. What no settings need is refused: names that stand for earlier parts (&a, *a), for nine lists
    of nine of nine ..., printed, fill the memory; and brackets deep in each other, which take PyYAML minutes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML of plain values; one line.
    """
    content = file.read_bytes()
    try:
        depth = 0
        for event in yaml.parse(content, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError(f"nested more than {_DEPTH} deep, or a part repeated by its name (*NAME)")
        return yaml.safe_load(content)
    except Exception as error:  # PyYAML raises a dozen kinds for values that are none, such as the day 2001-99-99
        raise ValueError(" ".join(str(error).split())[:500]) from error
