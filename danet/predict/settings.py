"""The settings that change a result. Its JSON records them, so that a run continues only with the same ones."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from danet.predict.outputs import Kind
from danet.predict.protocols import PROTOCOLS, Protocol
from danet.weights.card import Card

_SHOWN = 12  # characters of a hash


@dataclass(frozen=True)
class Settings:
    """How images are segmented.

    Args:
        weights: the hash of the weights, see `Predictor.fingerprint`.
        size: the long side in pixels of images at the network's input; None: their own.
        protocol: the name of the protocol, or its values if it has none.
        dtype: the precision.
        windows: whether images that are too large to load are segmented in windows.
    """

    weights: str
    size: int | None
    protocol: str
    dtype: str
    windows: bool

    @classmethod
    def of(cls, card: Card, weights: str, protocol: Protocol, size: int | None, dtype: str) -> "Settings":
        """Return the settings of a network with this card; `size` None means the size in the card."""
        long_side = card.size if size is None else int(size)
        name = next((name for name, known in PROTOCOLS.items() if known == protocol), str(protocol))
        return cls(weights, long_side, name, dtype, card.scale_rule == "native" or long_side is None)

    def entry(self, kind: Kind) -> dict[str, Any]:
        """Return what the JSON of a file of this kind records."""
        own = asdict(self)
        return own if kind == "large" else {name: value for name, value in own.items() if name != "windows"}

    def differences(self, recorded: Mapping[str, Any], kind: Kind) -> str:
        """Return what differs from recorded settings, for example "with size 320, not 640"; empty if nothing does."""
        own = self.entry(kind)
        parts = [
            f"{name} {_shown(recorded.get(name))}, not {_shown(value)}"
            for name, value in own.items()
            if recorded.get(name) != value
        ]
        return f"with {' and '.join(parts)}" if parts else ""


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}..."
