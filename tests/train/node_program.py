"""`killed.training` as a program for torchrun: RUN and the settings, a JSON file.

With NODE_PAUSE, the process is slow: it waits for so many seconds in each step.
"""

import json
import os
import sys
import time
from pathlib import Path

import killed


def slow_down(seconds: float) -> None:
    from danet.train import loop

    compute_gradients = loop.compute_gradients

    def slowly(*args):
        time.sleep(seconds)
        return compute_gradients(*args)

    loop.compute_gradients = slowly


if __name__ == "__main__":
    run, settings = sys.argv[1:]
    slow_down(float(os.environ.get("NODE_PAUSE", 0)))
    sys.exit(killed.training(json.loads(Path(settings).read_text()), run, 0, False, double=True))
