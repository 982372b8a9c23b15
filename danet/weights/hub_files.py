"""Read files from the Hugging Face Hub: hf://user/repo[@revision][/file]. Needs no torch.

Only .safetensors files are read: other formats can run code. Files are kept in the cache of the Hub's client; without a
connection they are read from it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from danet.errors import InputError, missing_package
from danet.portability import address_text

HUB = "hf:/"
"""How addresses of the Hub begin, after `Path` has joined their slashes."""
FILE = "model.safetensors"
"""The file of a repository if none is named."""

_ADDRESS = re.compile(r"hf:/+(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/\s]+))?(?:/(?P<file>.+))?")


def is_address(path: Path | str) -> bool:
    """Return whether weights are named by an address of the Hub."""
    return address_text(path).startswith(HUB)


class Address(NamedTuple):
    """A file on the Hub.

    Args:
        repository: "user/repo".
        revision: a branch, a tag or a commit; None: the main branch.
        file: its path in the repository.
    """

    repository: str
    revision: str | None
    file: str

    def __str__(self) -> str:
        return f"hf://{self.repository}{'' if self.revision is None else f'@{self.revision}'}/{self.file}"


def parse(name: str) -> Address:
    """Return the address that is written hf://user/repo[@revision][/file]; the file is model.safetensors by default.

    Raises:
        InputError: another text, or a file that is no .safetensors file.
    """
    found = _ADDRESS.fullmatch(address_text(name))
    if not found:
        raise InputError(name, "not an address of the Hub", "write hf://USER/REPO, hf://USER/REPO@REVISION or .../FILE")
    address = Address(found["repository"], found["revision"], found["file"] or FILE)
    if not address.file.endswith(".safetensors"):
        what = "only .safetensors files are read from the Hub; other formats can run code"
        raise InputError(str(address), what, "name the .safetensors file, or ask its author for one")
    return address


def fetch(name: str) -> Path:
    """Return the local copy of a file on the Hub, after downloading it if it is new.

    Args:
        name: see `parse`.

    Raises:
        InputError: no such repository, revision or file; a private repository; no connection and no earlier download.
    """
    address = parse(name)
    repository, revision, file = address
    hub = client(str(address))
    with hub_errors(address):
        if not isinstance(hub.try_to_load_from_cache(repository, file, revision=revision), str):
            # asks once, while the download would try again for half a minute without a connection
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision))
        return Path(hub.hf_hub_download(repository, file, revision=revision))


def client(where: str) -> ModuleType:
    """Import the Hub's client.

    Raises:
        InputError: it is not installed; the message is about `where`.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_package(where, "needs huggingface_hub, which is not installed", "hub") from error
    return huggingface_hub


@contextmanager
def hub_errors(address: Address) -> Iterator[None]:
    """Turn the errors of the Hub's client into one line each."""
    from huggingface_hub import errors

    where, repository = str(address), address.repository
    try:
        yield
    except errors.GatedRepoError as error:
        remedy = f"ask for access on its page, and run hf auth login ({_reason(error)})"
        raise InputError(where, "access to this repository is restricted", remedy) from error
    except errors.RepositoryNotFoundError as error:
        what = f"no repository {repository} on the Hub, or it is private"
        raise InputError(where, what, "check the name, or run hf auth login") from error
    except errors.RevisionNotFoundError as error:
        what = f"no revision {address.revision} in {repository}"
        raise InputError(where, what, "use a branch, a tag or a commit of it") from error
    except errors.EntryNotFoundError as error:
        remedy = "name the file: hf://USER/REPO/FILE.safetensors"
        raise InputError(where, f"no file {address.file} in {repository}", remedy) from error
    except errors.HFValidationError as error:
        raise InputError(where, f"not a name on the Hub ({_reason(error)})", "write hf://USER/REPO") from error
    except errors.HfHubHTTPError as error:
        raise InputError(where, f"the Hub refuses ({_reason(error)})", "check the name and your token") from error
    except Exception as error:  # the types depend on the version of the client and its library for HTTP
        raise InputError(where, f"the Hub does not answer ({_reason(error)})", "check the connection") from error


def _reason(error: BaseException) -> str:
    words = " ".join(str(error).split("\n")[0].split())
    return f"{type(error).__name__}: {words}"[:160].rstrip(": ")
