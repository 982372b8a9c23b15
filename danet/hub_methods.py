"""The methods of networks that read and write the Hugging Face Hub's form: a folder or repository with a model card.

Their work is in `danet.weights.hub`, which builds networks and so is above `danet.model`; it is imported by its name at
the first call, as in `callable_package`.
"""

from importlib import import_module
from typing import Any, TypeVar

_WORK = "danet.weights.hub"

Network = TypeVar("Network")


class HubMethods:
    """Adds `from_pretrained`, `save_pretrained` and `push_to_hub` to a network.

    Attributes:
        card: the description of the network, if it was loaded from a weights file; see `danet.weights.card.Card`.
    """

    card: Any = None

    @classmethod
    def from_pretrained(cls: type[Network], name: Any) -> Network:
        """Return a network of this class in evaluation mode, with its `card`.

        Args:
            name: a weights file, a folder that `save_pretrained` wrote, or a repository of the Hub: "user/repo" or
                "hf://user/repo[@revision][/file]".

        Raises:
            InputError: no such file or repository, no connection, no weights file, or a network of another class.
        """
        return import_module(_WORK).from_pretrained(cls, name)

    def save_pretrained(self, folder: Any, card: Any = None) -> None:
        """Write the weights, model.safetensors, and a model card, README.md, into a folder.

        Such files are replaced if danet wrote them.

        Args:
            folder: the folder; it is created if needed.
            card: the description of the network; None: its own `card`.

        Raises:
            InputError: the network has no card; the folder has such files of others, or cannot be written to.
        """
        import_module(_WORK).save_pretrained(self, folder, card)

    def push_to_hub(self, repository: str, card: Any = None, private: bool = False, token: str | None = None) -> str:
        """Upload what `save_pretrained` writes to a repository of the Hub, and return its address.

        Args:
            repository: "user/repo"; it is created if needed.
            card: see `save_pretrained`.
            private: whether a new repository is private.
            token: of the Hub, with the right to write; None: that of `hf auth login` or the variable HF_TOKEN.

        Raises:
            InputError: the network has no card; no connection; the Hub refuses.
        """
        return import_module(_WORK).push_to_hub(self, repository, card, private, token)
