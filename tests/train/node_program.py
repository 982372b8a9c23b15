"""`killed.training` as a program for torchrun: RUN and the settings, a JSON file."""

import json
import sys
from pathlib import Path

import killed

if __name__ == "__main__":
    run, settings = sys.argv[1:]
    sys.exit(killed.training(json.loads(Path(settings).read_text()), run, 0, False, double=True))
