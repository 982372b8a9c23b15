"""List the benchmarks: python -m benchmarks."""

import ast
from pathlib import Path


def main() -> None:
    print("usage: python -m benchmarks.NAME [options]\n")
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text = file.read_text()
        if not file.name.startswith("__") and '__name__ == "__main__"' in text:
            summary = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            print(f"  {file.stem:16} {summary}")


if __name__ == "__main__":
    main()
