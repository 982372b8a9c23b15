"""Translate errors of libraries and the system during training into one line that says what to do."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed import DistError

from danet.data.samples import Samples
from danet.errors import InputError
from danet.files import FULL, format_bytes
from danet.model.attention_kernels import is_out_of_memory
from danet.recipes import Recipe
from danet.train.batches import Batch
from danet.train.estimate import Estimate, estimate


@contextmanager
def translate_errors(recipe: Recipe, processes: int, workers: int, samples: Samples) -> Iterator[None]:
    """Translate the errors that users can fix; others pass through.

    Args:
        recipe: the recipe in training.
        processes: number of training processes.
        workers: number of loading processes.
        samples: the training samples.

    Raises:
        InputError: out of memory; disk full; a lost worker or process; an operation without a deterministic
            implementation; batch normalization over a single value, such as the mean of the only image in a batch.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        what = "one image at a time is too few: this network normalizes image means over the batch"
        raise InputError("data.batch", what, "increase `data.batch`, or reduce `optim.accumulate`") from error
    except (ConnectionError, EOFError) as error:
        if not workers:
            raise
        raise _lost_worker(workers, error) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = error.filename or "the run folder"
        raise InputError(where, f"cannot write ({error.strerror})", "free some space") from error
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" in str(error):
            raise _lost_worker(workers, error) from error
        if is_out_of_memory(error):
            cost = estimate(recipe, len(samples.classes), samples.bands.count)
            raise _out_of_memory(recipe, processes, cost) from error
        if "does not have a deterministic implementation" in str(error):
            what = f"{str(error).split()[0]} has no deterministic implementation on this device"
            raise InputError("deterministic", what, "train on the CPU, or leave it out") from error
        if processes > 1 and (isinstance(error, DistError) or "gloo" in str(error)):
            what = f"one of {processes} processes was lost"
            remedy = "see its output; with its option max-restarts, torchrun restarts all processes"
            raise InputError("torchrun", what, remedy) from error
        raise


def _lost_worker(workers: int, error: Exception) -> InputError:
    signal = re.search(r"killed by signal: ([\w ]+)", f"{error} {error.__cause__}")
    cause = f" ({signal[1]})" if signal else ""
    number = f"one of {workers}" if workers > 1 else "the only one"
    what = f"{number} was killed{cause}: out of memory, /dev/shm is full, or an image crashed its decoder"
    remedy = "free memory, use fewer `workers`, or run danet check to find the image"
    return InputError("workers", what, remedy)


def _out_of_memory(recipe: Recipe, processes: int, cost: Estimate) -> InputError:
    images = recipe.data.batch // (processes * recipe.optim.accumulate)
    crops = f"{images} crops of {recipe.data.crop[0]} x {recipe.data.crop[1]}"
    tensor = " x ".join(map(str, (images, *cost.largest)))
    return InputError(
        "data.crop",
        f"out of memory: {crops} need about {format_bytes(cost.bytes(images))}, the largest tensor is {tensor}",
        "increase `optim.accumulate`, reduce `data.crop`, or set `optim.precision` to bfloat16",
    )


def check_finite(loss: dict[str, float], network: nn.Module, step: int, rate: float, parts: Sequence[Batch]) -> None:
    """Check the loss and the gradients before the optimizer applies them to the weights.

    Args:
        loss: losses by name.
        network: the network, with its gradients.
        step: the step.
        rate: its learning rate.
        parts: its images.

    Raises:
        InputError: one of them is not finite.
    """
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]))
    if not (math.isfinite(loss["total"]) and math.isfinite(norm)):
        names = ", ".join(name for part in parts for name in part.names)
        what = f"loss {loss['total']:g} and gradient norm {norm:g} at learning rate {rate:g}, on {names}"
        raise InputError(f"step {step}", what, "start a new run with a lower `optim.lr`, or a longer `optim.warmup`")
