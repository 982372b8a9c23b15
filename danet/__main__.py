"""Run `python -m danet`, which is the same as the command `danet`."""

import sys

from danet.cli import main

sys.exit(main())
