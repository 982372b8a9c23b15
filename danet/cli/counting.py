"""What `danet evaluate --counts` and `danet robustness --counts` share."""

import sys


def all_counted(counted: int, total: int) -> bool:
    """Return whether all images are counted, and say how many."""
    print(f"{counted} of {total} images are counted", file=sys.stderr)
    return counted == total
