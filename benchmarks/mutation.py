"""How many small faults of the numbers' code the tests notice: mutants of danet/model, metrics and inference, tried in
the order of their hashes, a fixed random one, until the time is up. The checkout is copied and never touched.

    .venv/bin/python -m benchmarks.mutation --minutes 25        goes on in benchmarks/results/mutation.json
    .venv/bin/python -m benchmarks.mutation --again             only the survivors there, after tests were added

No string, annotation, decorator or assertion is changed. mutmut 3.8 leaves out every decorated function (`averaged`,
`segment`, the backward pass of the tiles); cosmic-ray 8.7 changes the checkout's own files and starts torch anew for
every mutant. Here each mutant runs in a fork of a process that has torch and the tests' libraries loaded.
"""

import argparse
import ast
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/mutation.json"
LIMIT = 60  # seconds of a processor for the tests of a mutant; it is noticed where they take longer
BANDS = "test_imagenet_weights_adapt_to_any_number_of_bands", "test_normalization_adapts_to_the_number_of_bands"
TESTS = {  # the first that fits; the quickest first
    "danet/model/__init__.py": [],
    "danet/model/baselines.py": [],  # networks of others
    "danet/model/triton_attention.py": [],  # needs a GPU, or a minute of Triton's interpreter
    "danet/model/attention_kernels.py": ["model/test_attention.py", "model/test_kernels.py"],
    "danet/model/tiled_attention.py": ["model/test_attention.py", "model/test_kernels.py"],
    "danet/model/attention.py": ["model/test_attention.py", "model/test_kernels.py"],
    "danet/model/loss.py": ["model/test_loss.py"],
    "danet/model/fold_batchnorm.py": ["model/test_fold_batchnorm.py"],
    "danet/model/backbone.py": ["model/test_danet.py", *(f"data/test_channels.py::{name}" for name in BANDS)],
    "danet/model/danet.py": ["model/test_danet.py", "model/test_golden.py"],
    "danet/evaluate/cityscapes.py": ["evaluate/test_submission.py"],
    "danet/metrics": ["evaluate/test_metrics.py", "evaluate/test_evaluate.py"],
    "danet/inference": ["predict/test_inference.py", "predict/test_protocols.py"],
}
QUIETLY = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutation"]
QUIETLY += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
PAIRS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)]
PAIRS += [(ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr)]
SWAPS = dict(PAIRS) | {b: a for a, b in PAIRS} | {ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
SKIPPED = {"annotation", "returns", "decorator_list"}


class Mutant(NamedTuple):
    """A file of the package with the bytes from `start` to `stop` replaced."""

    file: str
    line: int
    start: int
    stop: int
    text: str

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def told(self, source: bytes) -> dict[str, str]:
        before, after = (text.decode().splitlines()[self.line - 1].strip() for text in (source, self.of(source)))
        key = hashlib.sha256("\n".join((self.file, before, after)).encode()).hexdigest()[:8]
        return {"id": key, "where": f"{self.file}:{self.line}", "before": before, "after": after}


def changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST]]:
    """What is replaced at a node, and what by."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                yield (
                    node,
                    ast.Compare(node.left, [*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]], node.comparators),
                )
        case ast.BoolOp():
            yield node, ast.BoolOp(SWAPS[type(node.op)](), node.values)
        case ast.BinOp() if type(node.op) in SWAPS:
            yield node, ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
        case ast.AugAssign() if type(node.op) in SWAPS:
            yield node, ast.AugAssign(node.target, SWAPS[type(node.op)](), node.value)
        case ast.UnaryOp():
            yield node, node.operand
        case ast.If() | ast.IfExp() | ast.While():
            yield node.test, ast.UnaryOp(ast.Not(), node.test)
        case ast.Constant(value=bool() as truth):
            yield node, ast.Constant(not truth)
        case ast.Constant(value=(int() | float()) as number):
            yield node, ast.Constant(number + 1)
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield node, ast.Pass()


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Assert | ast.JoinedStr) and name not in SKIPPED:
                yield from (child, *nodes(child))


def mutants(file: str, source: bytes) -> Iterator[Mutant]:
    lines = source.splitlines(keepends=True)
    for node in nodes(ast.parse(source)):
        for at, other in changes(node):
            start, stop = (
                len(b"".join(lines[: line - 1])) + column
                for line, column in ((at.lineno, at.col_offset), (at.end_lineno or 0, at.end_col_offset or 0))
            )
            text = ast.unparse(other)
            yield Mutant(file, at.lineno, start, stop, f"({text})" if isinstance(other, ast.expr) else text)


def prepare(folder: Path) -> dict[str, bytes]:
    """A copy of the project, this process ready to test it; the sources by file."""
    for name in ("danet", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.environ |= {"DANET_SHARED": str(ROOT.parent / "shared"), "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    for name in ("timm", "torchvision.transforms.v2", "sklearn.calibration"):
        import_module(name)
    from hypothesis import Phase, settings

    settings.register_profile(
        "mutation", phases=[Phase.generate], max_examples=50, derandomize=True, database=None, deadline=None
    )
    rooms = (folder / "danet" / room for room in ("model", "metrics", "inference"))
    files = sorted(str(file.relative_to(folder)) for room in rooms for file in room.rglob("*.py"))
    return {file: (folder / file).read_bytes() for file in files if tests_of(file)}


def tests_of(file: str) -> tuple[str, ...]:
    return next((*tests,) for start, tests in TESTS.items() if file.startswith(start))


def passes(tests: tuple[str, ...]) -> bool:
    """Run tests in a fork."""
    if (child := os.fork()) == 0:
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            names = [f"tests/{name}" for name in tests]
            os._exit(pytest.main([*QUIETLY, *names]))
        finally:
            os._exit(70)
    end = time.monotonic() + 10 * LIMIT
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--again", action="store_true", help="only the survivors so far")
    parser.add_argument("--json", type=Path, default=RESULTS, help="what was found so far, and is added to")
    options = parser.parse_args()
    target, start = options.json.resolve(), time.monotonic()
    last: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"tried": [], "survivors": []}
    with tempfile.TemporaryDirectory() as folder:
        sources = prepare(Path(folder))
        every = {(told := m.told(s))["id"]: (m, told) for file, s in sources.items() for m in mutants(file, s)}
        tried = {key for key in last["tried"] if key in every}
        survivors = {
            old["id"]: {**every[old["id"]][1], "why": old["why"]} for old in last["survivors"] if old["id"] in every
        }
        wanted = sorted(survivors if options.again else every.keys() - tried)
        for tests in {tests_of(every[key][0].file) for key in wanted}:
            assert passes(tests), f"{tests} fail without a mutant"
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two mutants within a second could pass for one another
        sys.dont_write_bytecode = True
        for key in wanted:
            if time.monotonic() - start > 60 * options.minutes:
                break
            mutant, told = every[key]
            file, source = Path(folder, mutant.file), sources[mutant.file]
            file.write_bytes(mutant.of(source))
            old = survivors.pop(key, {"why": ""})
            if passes(tests_of(mutant.file)):
                survivors[key] = {**told, "why": old["why"]}
                print(*told.values(), sep="\n    ", flush=True)
            file.write_bytes(source)
            tried.add(key)
            result = {"mutants": len(every), "killed": 1 - len(survivors) / len(tried), "tried": sorted(tried)}
            target.write_text(json.dumps(result | {"survivors": list(survivors.values())}, indent=1) + "\n")
    for file in sources:
        count = sum(every[key][0].file == file for key in tried)
        print(f"{file:40} {count:4} tried, {sum(every[key][0].file == file for key in survivors):3} survived")
    print(f"{len(tried)} of {len(every)} mutants tried, {100 - 100 * len(survivors) / len(tried):.1f} % killed")


if __name__ == "__main__":
    main()
