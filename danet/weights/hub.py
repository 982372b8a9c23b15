"""Write networks to the Hugging Face Hub, and build them from there; see `danet.hub_methods`."""

import re
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from danet.errors import InputError
from danet.files import make_folder, read_limited, write_atomically
from danet.weights import file as weights_file
from danet.weights.card import Card, peek
from danet.weights.hub_files import FILE, HUB, Address, client, fetch, hub_errors
from danet.weights.model_card import model_card

MODEL_CARD = "README.md"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

Network = TypeVar("Network", bound=nn.Module)


def from_pretrained(kind: type[Network], name: Path | str) -> Network:
    """Return a network of this class; see `HubMethods.from_pretrained`."""
    path, text = Path(name), str(name)
    if path.is_dir():
        path = path / FILE
    elif not path.exists() and _REPOSITORY.fullmatch(text) and path.suffix != ".safetensors":
        path = fetch(f"{HUB}//{text}")
    network, card = weights_file.load(path if path.exists() else name)
    if not isinstance(network, kind):
        what = f"holds a {type(network).__name__}, not a {kind.__name__}"
        raise InputError(name, what, "use danet.load, which builds the network of the file")
    assert network.card == card
    return network


def save_pretrained(network: nn.Module, folder: Path | str, card: Card | None = None, repository: str = "") -> None:
    """Write weights and model card; see `HubMethods.save_pretrained`. The card's local paths are left out.

    Files in the folder are replaced only if danet wrote them.

    Args:
        network: the network.
        folder: the folder.
        card: its description; None: `network.card`.
        repository: "user/repo", for the example in the model card.
    """
    card = getattr(network, "card", None) if card is None else card
    if card is None:
        what = "missing: this network was not loaded from a weights file"
        raise InputError("card", what, "pass a danet.weights.card.Card with its arguments, classes, mean and std")
    folder = Path(folder)
    _check_replaceable(folder)
    make_folder(folder)
    card = weights_file.save(folder / FILE, network, _without_paths(card))
    write_atomically(folder / MODEL_CARD, model_card(card, repository or folder.resolve().name).encode())


def _check_replaceable(folder: Path) -> None:
    """Check that the files which are replaced are those of danet.

    Raises:
        InputError: one was not written by danet.
    """
    card, head = folder / MODEL_CARD, ""
    with suppress(OSError, ValueError):
        head = read_limited(card).decode(errors="replace").partition("\n---\n")[0]
    own = {folder / FILE: peek(folder / FILE) is not None, card: "\nlibrary_name: danet\n" in head + "\n"}
    for file, known in own.items():
        if file.exists() and not known:
            what = "exists, and was not written by danet"
            raise InputError(file, what, "choose another folder, or move it away")


def push_to_hub(network: nn.Module, repository: str, card: Card | None, private: bool, token: str | None) -> str:
    """Upload weights and model card; see `HubMethods.push_to_hub`."""
    if not _REPOSITORY.fullmatch(repository):
        raise InputError("repository", f"{repository!r} is not a name on the Hub", "write USER/REPO")
    address = Address(repository, None, FILE)
    hub = client(str(address))
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(network, folder, card, repository)
        with hub_errors(address):
            api = hub.HfApi(token=token, library_name="danet")
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload weights and model card")
    return str(url)


def _without_paths(card: Card) -> Card:
    """Return the card without the folder of the training data, which is nobody else's business."""
    data = card.recipe.get("data")
    if not isinstance(data, dict) or data.get("root") is None:
        return card
    return replace(card, recipe={**card.recipe, "data": {**data, "root": None}})
