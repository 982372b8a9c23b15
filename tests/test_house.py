"""The house's own rules (CONTRIBUTING.md): who imports whom, what is never called, how large a room may be."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "danet"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [  # downwards only: a room imports from its own floor or from one below
    {"cli", "__main__"},
    {"web", "train", "deploy", "bench"},
    {"evaluate", "predict", "pipeline", "video", "huge", "look", "report", "robustness", "submit"},
    {"weights", "exported", "inference", "draw", "metrics"},
    {"model", "data", "recipes"},
    {"devices", "files", "settings", "errors", "__init__"},
]
APART = [("model", "data"), ("data", "model"), ("recipes", "model"), ("recipes", "data")]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def imported_rooms(path: Path) -> set[str]:
    """The rooms of danet that a file imports, at its head or inside a function."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "danet":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path):
    if path == PACKAGE / "__init__.py":
        return  # the public face reaches for everything, lazily
    here = room(path)
    for other in imported_rooms(path):
        assert floor(here) <= floor(other), f"{path.name} imports {other} from above"
        assert (here, other) not in APART, f"{here} must not know {other}"


def test_no_file_imports_in_a_circle():
    graph = {}
    for path in FILES:
        module = "danet." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        froms = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module]
        graph[module] = {n.module for n in froms} | {f"{n.module}.{a.name}" for n in froms for a in n.names}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        for other in graph.get(module, ()):
            if other in graph:
                visit(other, (*trail, module))

    for module in graph:
        visit(module, ())


FORBIDDEN_MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "code"),
    *("subprocess", "pty", "ctypes", "tarfile", "zipfile", "urllib3", "requests", "httpx", "ftplib", "telnetlib"),
}
FORBIDDEN_CALLS = {
    *(("yaml", name) for name in ("load", "load_all", "Loader", "UnsafeLoader", "FullLoader")),
    *(("os", name) for name in ("system", "popen", "execv", "spawnv", "posix_spawn")),
    *(("torch", "load"), ("jit", "load"), ("hub", "load"), ("request", "urlopen")),
    *(("_pipe", "recv"), ("pipe", "recv")),
}
"""By the name of their owner; torch.load may be called, with weights_only=True written there."""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_dangerous_is_called(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not FORBIDDEN_MODULES & {n.split(".")[0] for n in names}
            if isinstance(node, ast.ImportFrom):  # under another name they would not be seen below
                owner = (node.module or "").split(".")[-1]
                assert not {(owner, alias.name) for alias in node.names} & FORBIDDEN_CALLS, f"line {node.lineno}"
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            value = getattr(node.func, "value", None)
            owner = getattr(value, "id", getattr(value, "attr", ""))
            assert name not in {"exec", "execv", "execve", "popen", "__import__"}, f"line {node.lineno}: {name}"
            assert not name.startswith(("unsafe_load", "full_load")), f"line {node.lineno}: {name}"
            assert not (isinstance(node.func, ast.Name) and name in {"eval", "compile"}), f"line {node.lineno}: {name}"
            assert (owner, name) not in FORBIDDEN_CALLS - {("torch", "load")}, f"line {node.lineno}: {owner}.{name}"
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert (owner, name) != ("torch", "load") or keywords.get("weights_only") is True, f"line {node.lineno}"
            assert keywords.get("weights_only") is not False, f"line {node.lineno}: weights_only=False"
            assert keywords.get("allow_pickle") is not True, f"line {node.lineno}: allow_pickle=True"
            assert keywords.get("shell") is not True, f"line {node.lineno}: shell=True"


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from marshal import loads", "import os.path, subprocess", "from torch import load"),
        *("eval('1')", "exec('1')", "compile('1', '', 'eval')", "__import__('os')", "os.system('x')", "os.popen('x')"),
        *("yaml.load(x)", "yaml.load_all(x)", "yaml.unsafe_load(x)", "yaml.full_load_all(x)", "from yaml import load"),
        *("torch.load(x)", "torch.load(x, weights_only=False)", "anything(x, weights_only=False)", "torch.jit.load(x)"),
        *(
            "np.load(x, allow_pickle=True)",
            "run(x, shell=True)",
            "self._pipe.recv()",
            "from os import system",
            "torch.hub.load(x)",
        ),
    ],
)
def test_what_is_dangerous_is_seen(line, tmp_path):
    (tmp_path / "file.py").write_text(f"def f():\n    {line}\n")
    with pytest.raises(AssertionError):
        test_nothing_dangerous_is_called(tmp_path / "file.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 330, "a room of 300 lines asks for a second room"
    assert path.stem not in {"utils", "helpers", "common", "base", "manager"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno
            assert lines <= (120 if (path.name, node.name) == ("loop.py", "_train") else 70), (
                f"{node.name}: {lines} lines"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_and_public_function_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a file begins with what it is"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and room(path) != "cli":
            assert ast.get_docstring(node), node.name
