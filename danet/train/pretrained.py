"""Check that a backbone's ImageNet weights are on this machine or can be downloaded, before a run needs them.

`timm` downloads them from the Hugging Face Hub. Without a connection it would try again for more than a minute.
"""

import huggingface_hub
import timm
from huggingface_hub.errors import EntryNotFoundError

from danet.errors import InputError
from danet.files import format_bytes

_FILES = ("model.safetensors", "pytorch_model.bin")  # in this order, as timm looks for them


def find_pretrained(backbone: str) -> str:
    """Return where the ImageNet weights of a backbone come from, for example "in the cache of the Hugging Face Hub".

    Args:
        backbone: a timm model name; an unknown one is left to `build_backbone`.

    Raises:
        InputError: they are not on this machine, and the Hub does not answer. It is asked once.
    """
    config = timm.get_pretrained_cfg(backbone)
    repository = getattr(config, "hf_hub_id", None)
    if config is None or not repository:
        return f"published by timm for {backbone}"
    named = getattr(config, "hf_hub_filename", None)
    files = (named,) if named else _FILES
    if any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in files):
        return "in the cache of the Hugging Face Hub"
    url = huggingface_hub.hf_hub_url(repository, files[0])
    try:
        size = huggingface_hub.get_hf_file_metadata(url).size
    except EntryNotFoundError:  # the Hub answers; timm then looks for the other file
        size = None
    except Exception as error:  # the types depend on the version of the Hub's client
        what = f"cannot download the pretrained weights of {backbone!r} ({_reason(error)})"
        remedy = f"download {url}, and set `backbone_weights` to that file; or set `initial_weights` to default"
        raise InputError("network.pretrained", what, remedy) from error
    return "downloaded from the Hugging Face Hub" + ("" if size is None else f", {format_bytes(size)}")


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split("\n")[0].split())
    return f"{type(error).__name__}: {words}"[:120].rstrip(": ")
