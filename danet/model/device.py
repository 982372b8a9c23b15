"""Which device to compute on."""

import torch

from danet.errors import InputError


def choose(name: str | None, index: int = 0) -> torch.device:
    """The device of this name, "cpu", "cuda" or "cuda:1"; None: a GPU if there is one.

    Args:
        index: which GPU "cuda" means, where there are several.

    Raises:
        InputError: no such device, or not here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.zeros(1, device=device).tolist()
            return device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}", "is no device", "use cpu or cuda, or leave it out") from error
    index = index if device.index is None else device.index
    if index >= torch.cuda.device_count() or not torch.cuda.is_available():
        raise InputError(f"--device {name}", "no such GPU was found", "leave it out or use --device cpu")
    return torch.device("cuda", index)
