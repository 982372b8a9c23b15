"""The run-time type checker that pyproject.toml asks jaxtyping to put on every annotated function of danet in tests."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float, as for static checkers
