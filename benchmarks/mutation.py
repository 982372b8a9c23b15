"""Mutation testing: how many small faults in the model, metrics and inference code the tests detect.

    python -m benchmarks.mutation --minutes 25    continues benchmarks/results/mutation.json
    python -m benchmarks.mutation --again         repeats only the survivors, after tests were added

Mutants are tried in the order of their hashes, which is random but fixed, until the time is over. The checkout is
copied and not changed. Strings, annotations, decorators and assertions are not mutated.

mutmut 3.8 skips all decorated functions (`averaged`, `segment`, the backward pass of the tiles). cosmic-ray 8.7 changes
the files of the checkout and starts torch again for each mutant; here each mutant runs in a fork of a process that has
already loaded torch and the test libraries. This script must not import danet itself: the forks import the mutated
copy.
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
LIMIT = 60  # CPU seconds for the tests of a mutant; a mutant that takes longer counts as detected
BANDS = ("test_imagenet_weights_adapt_to_any_number_of_bands", "test_normalization_adapts_to_the_number_of_bands")
_ATTENTION = ("model/test_attention.py", "model/test_kernels.py")
_METRICS = ("evaluate/test_metrics.py", "evaluate/test_evaluate.py")
_INFERENCE = ("predict/test_inference.py", "predict/test_protocols.py")
TESTS = {  # mutated file -> its tests, the fastest first
    "danet/model/attention_kernels.py": _ATTENTION,
    "danet/model/tiled_attention.py": _ATTENTION,
    "danet/model/attention.py": _ATTENTION,
    "danet/model/loss.py": ("model/test_loss.py",),
    "danet/model/fold_batchnorm.py": ("model/test_fold_batchnorm.py",),
    "danet/model/backbone.py": ("model/test_danet.py", *(f"data/test_channels.py::{name}" for name in BANDS)),
    "danet/model/danet.py": ("model/test_danet.py", "model/test_golden.py"),
    "danet/evaluate/cityscapes.py": ("evaluate/test_submission.py",),
    **{f"danet/evaluate/{name}.py": _METRICS for name in ("confusion", "boundary", "calibration", "per_image")},
    "danet/evaluate/evaluation.py": _METRICS,
    **{f"danet/predict/{name}.py": _INFERENCE for name in ("inference", "protocols", "resampling", "sliding_window")},
}
QUIET = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutation"]
QUIET += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
PAIRS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)]
PAIRS += [(ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr)]
SWAPS = dict(PAIRS) | {b: a for a, b in PAIRS} | {ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
SKIPPED = {"annotation", "returns", "decorator_list"}


class Mutant(NamedTuple):
    """A source file whose bytes from `start` to `stop` are replaced."""

    file: str
    line: int
    start: int
    stop: int
    text: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def describe(self, source: bytes) -> dict[str, str]:
        before, after = (text.decode().splitlines()[self.line - 1].strip() for text in (source, self.apply(source)))
        key = hashlib.sha256("\n".join((self.file, before, after)).encode()).hexdigest()[:8]
        return {"id": key, "where": f"{self.file}:{self.line}", "before": before, "after": after}


def changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST]]:
    """Yield the nodes to replace at a node, and their replacements."""
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
    """Copy the project, prepare this process for its tests, and return the sources by file."""
    for name in ("danet", "tests", "benchmarks"):
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
    return {file: (folder / file).read_bytes() for file in TESTS}


def passes(tests: tuple[str, ...]) -> bool:
    """Return whether tests pass, in a fork."""
    if (child := os.fork()) == 0:
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            names = [f"tests/{name}" for name in tests]
            os._exit(pytest.main([*QUIET, *names]))
        finally:
            os._exit(70)
    end = time.monotonic() + 10 * LIMIT
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="stop after this time")
    parser.add_argument("--again", action="store_true", help="repeat only the survivors")
    parser.add_argument("--json", type=Path, default=RESULTS, help="results so far, which are extended")
    options = parser.parse_args()
    target, start = options.json.resolve(), time.monotonic()
    last: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"tried": [], "survivors": []}
    with tempfile.TemporaryDirectory() as folder:
        sources = prepare(Path(folder))
        every = {
            (entry := mutant.describe(source))["id"]: (mutant, entry)
            for file, source in sources.items()
            for mutant in mutants(file, source)
        }
        tried = {key for key in last["tried"] if key in every}
        survivors = {
            old["id"]: {**every[old["id"]][1], "why": old["why"]} for old in last["survivors"] if old["id"] in every
        }
        wanted = sorted(survivors if options.again else every.keys() - tried)
        for tests in {TESTS[every[key][0].file] for key in wanted}:
            assert passes(tests), f"{tests} fail without a mutant"
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two mutants within a second could be confused
        sys.dont_write_bytecode = True
        for key in wanted:
            if time.monotonic() - start > 60 * options.minutes:
                break
            mutant, entry = every[key]
            file, source = Path(folder, mutant.file), sources[mutant.file]
            file.write_bytes(mutant.apply(source))
            old = survivors.pop(key, {"why": ""})
            if passes(TESTS[mutant.file]):
                survivors[key] = {**entry, "why": old["why"]}
                print(*entry.values(), sep="\n    ", flush=True)
            file.write_bytes(source)
            tried.add(key)
            result = {"mutants": len(every), "killed": 1 - len(survivors) / len(tried), "tried": sorted(tried)}
            target.write_text(json.dumps(result | {"survivors": list(survivors.values())}, indent=1) + "\n")
    for file in sources:
        count = sum(every[key][0].file == file for key in tried)
        print(f"{file:40} {count:4} tried, {sum(every[key][0].file == file for key in survivors):3} survived")
    if tried:
        print(f"{len(tried)} of {len(every)} mutants tried, {100 - 100 * len(survivors) / len(tried):.1f}% killed")


if __name__ == "__main__":
    main()
