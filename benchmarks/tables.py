"""Write the tables of our measurements into the docs, by cog, from benchmarks/results.

    python -m benchmarks.tables            write the tables into README.md and docs/*.md
    python -m benchmarks.tables --check    only report the files that are out of date

In a page, a table is a block `<!-- [[[cog cog.out(accuracy_tables.baselines()) ]]] -->` ... `<!-- [[[end]]] -->`. Each
function of accuracy_tables.py and speed_tables.py returns one table; model_card.py makes the parts of the model card.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROLOGUE = "import cog\nfrom benchmarks import accuracy_tables, model_card, speed_tables"


def main() -> int:
    """Run cog on all pages and return its exit status."""
    from cogapp import Cog

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only report the files that are out of date")
    mode = ["--check"] if parser.parse_args().check else ["-r"]
    pages = [str(ROOT / "README.md"), *map(str, sorted((ROOT / "docs").glob("*.md")))]
    return Cog().main(["cog", "-I", str(ROOT), "-p", PROLOGUE, *mode, *pages])


if __name__ == "__main__":
    sys.exit(main())
