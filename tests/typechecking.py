"""The run-time type checker that jaxtyping applies to danet in tests (see pyproject.toml)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # accept an int where a float is annotated, as pyright does
