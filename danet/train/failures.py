"""What a library or the system throws in the middle of a run, told as one line that says what to do. Used by
`train.loop`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistError

from danet.errors import InputError
from danet.files import FULL, format_bytes
from danet.model.attention_kernels import is_out_of_memory
from danet.recipes import Recipe
from danet.train.estimate import Estimate, estimate


@contextmanager
def explained(recipe: Recipe, processes: int, workers: int, classes: int, channels: int) -> Iterator[None]:
    """Raises InputError in place of an allocator's error, a full disk's, a lost worker's or process's, torch's refusal
    of an operation that has no deterministic form, and batch normalization's refusal of a single value, such as an
    image's mean alone in its batch.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        what = "one image at once is too few: this network normalizes the mean of each image over the batch"
        raise InputError("--data.batch", what, "give a larger one, or a smaller --optim.accumulate") from error
    except (ConnectionError, EOFError) as error:
        raise _lost(workers, error) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = error.filename or "the run's folder"
        raise InputError(where, f"cannot be written ({error.strerror})", "free some space") from error
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" in str(error):
            raise _lost(workers, error) from error
        if is_out_of_memory(error):
            raise _too_large(recipe, processes, estimate(recipe, classes, channels)) from error
        if "does not have a deterministic implementation" in str(error):
            what = f"{str(error).split()[0]} has no deterministic form on this device"
            raise InputError("--deterministic", what, "train on the CPU, or leave the option out") from error
        if processes > 1 and (isinstance(error, DistError) or "gloo" in str(error)):
            remedy = "see what it said; torchrun --max-restarts N starts all of them again"
            raise InputError(f"{processes} processes", "one was lost", remedy) from error
        raise


def _lost(workers: int, error: Exception) -> InputError:
    signal = re.search(r"killed by signal: ([\w ]+)", f"{error} {error.__cause__}")
    cause = f" ({signal[1]})" if signal else ""
    what = f"one was killed{cause} while it loaded images: out of memory, /dev/shm full, or a file that ends a decoder"
    return InputError(f"--workers {workers}", what, "free memory, give fewer workers, or let danet check find the file")


def _too_large(recipe: Recipe, processes: int, cost: Estimate) -> InputError:
    images = recipe.data.batch // (processes * recipe.optim.accumulate)
    shape = " x ".join(map(str, (images, *cost.largest)))
    return InputError(
        f"{images} crops of {recipe.data.crop[0]} x {recipe.data.crop[1]} at once",
        f"out of memory: a step needs about {format_bytes(cost.bytes(images))}, its largest tensor being {shape}",
        "give a larger --optim.accumulate, a smaller --data.crop, or --optim.precision bf16",
    )
