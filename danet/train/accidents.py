"""What a library or the system throws in the middle of a run, told as one line that says what to do. Used by
`train.loop`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from danet.errors import InputError
from danet.model.kernels import is_out_of_memory
from danet.recipes import Recipe
from danet.train.dry_run import in_words
from danet.train.estimate import Estimate, estimate


@contextmanager
def explained(recipe: Recipe, processes: int, classes: int, channels: int) -> Iterator[None]:
    """Raises InputError in place of an allocator's error and of torch's refusal of an operation that has no
    deterministic form.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise _too_large(recipe, processes, estimate(recipe, classes, channels)) from error
        if "does not have a deterministic implementation" in str(error):
            what = f"{str(error).split()[0]} has no deterministic form on this device"
            raise InputError("--deterministic", what, "train on the CPU, or leave the option out") from error
        raise


def _too_large(recipe: Recipe, processes: int, cost: Estimate) -> InputError:
    pictures = recipe.data.batch // (processes * recipe.optim.accumulate)
    shape = " x ".join(map(str, (pictures, *cost.largest)))
    return InputError(
        f"{pictures} crops of {recipe.data.crop[0]} x {recipe.data.crop[1]} at once",
        f"out of memory: a step needs about {in_words(cost.bytes(pictures))}, its largest tensor being {shape}",
        "give a larger --optim.accumulate, a smaller --data.crop, or --optim.precision bf16",
    )
