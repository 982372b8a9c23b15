"""Every command and every snippet of the README and of the guide pages runs, on small data; links and names exist."""

import ast
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import labelme_file, labelme_shape
from PIL import Image
from released import released_state

from danet import DANet, recipes
from danet.cli import main
from danet.data import registry
from danet.data.datasets import synthetic
from danet.predict import protocols
from danet.weights import file as weights_file
from docs import line_links

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
RECORDS = {"does_attention_matter.md", "log.md", "model_card.md", "paper.md", "reliability.md", "results.md"}
"""Pages whose commands need the real datasets, GPUs or hours."""
PAGES = [ROOT / "README.md", *(page for page in DOCS if page.name not in RECORDS)]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def steps(page: Path) -> list[tuple[str, str]]:
    """The commands and Python snippets of a page, in their order: ("command" or "python", text)."""
    found = []
    for language, text in re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        lines = text.splitlines() if language == "bash" else [text]
        found += [("command" if language == "bash" else language, line) for line in lines]
    return found


def save_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_clip(path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The working directory of the commands, with the images and datasets that they name, and small recipes.

    paper-multi has 2 of its 8 scales.
    """
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(10):
        mask = np.where(np.arange(48)[None] > 6 * i, 255, 0).astype(np.uint8).repeat(40, 0)
        save_image(tmp_path / f"my_images/images/{i}.png", rng.integers(0, 256, (40, 48, 3), np.uint8))
        save_image(tmp_path / f"my_images/masks/{i}.png", mask)
    for i in range(2):
        save_image(tmp_path / f"CAMVID/images/val/{i}.png", rng.integers(0, 256, (36, 48, 3), np.uint8))
        save_image(
            tmp_path / f"CAMVID/labels/val/{i}.png", rng.integers(0, 12, (6, 8), np.uint8).repeat(6, 0).repeat(6, 1)
        )
    save_image(tmp_path / "street.jpg", rng.integers(0, 256, (40, 48, 3), np.uint8))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")

    few_scales = replace(protocols.PROTOCOLS["paper-multi"], scales=(0.5, 0.75))
    monkeypatch.setitem(protocols.PROTOCOLS, "paper-multi", few_scales)
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})
    for name in ("folder", "toy"):
        recipe = recipes.RECIPES[name]
        small = replace(recipe.network, backbone="test_resnet", output_stride=16, width=16, pretrained=False)
        crops = replace(recipe.data, crop=(64, 64), size=64, scale_from="size")
        recipe = replace(recipe, network=small, data=crops, optim=replace(recipe.optim, epochs=1))
        monkeypatch.setitem(recipes.RECIPES, name, recipe)
    return tmp_path


def prepare(page: Path, workplace: Path) -> None:
    """Create the files that only some pages name."""
    text = page.read_text()
    if "DANet101.pth.tar" in text:
        torch.save({"state_dict": released_state(DANet(19, "resnet50"))}, workplace / "DANet101.pth.tar")
    if "my_export" in text:
        for i in range(10):
            save_image(workplace / f"my_export/{i}.png", np.full((40, 48, 3), 20 * i, np.uint8))
            shape = labelme_shape("car", [[5, 5], [20 + i, 5], [20 + i, 30], [5, 30]])
            labelme_file(workplace / f"my_export/{i}.json", [shape], f"{i}.png", 40, 48)
    if "--predictions predicted" in text:
        assert main(["init", "my_images"]) == 0
        for i in range(10):
            save_image(workplace / f"predicted/{i}.png", np.full((40, 48), i % 2, np.uint8))
    if "clip.mp4" in text:
        save_clip(workplace / "clip.mp4")
    if "runs/folder/best.safetensors" in text and "danet train folder" not in text:
        (workplace / "runs/folder").mkdir(parents=True)
        (workplace / "runs/folder/best.safetensors").write_bytes(weights_file.DEFAULT.read_bytes())


@contextmanager
def served() -> Iterator[str]:
    """Run `danet serve` on a free port and yield its address."""
    command = [sys.executable, "-m", "danet", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().rstrip("/")
        finally:
            server.terminate()


def run_command(line: str) -> None:
    """Run a line of a page: danet and torchrun in this process, the client with a server of its own."""
    words = shlex.split(line, comments=True)
    installs = words[:2] in (["pip", "install"], ["uv", "sync"])
    if not words or installs or words == ["danet", "serve", "--port", "8000"]:
        return  # the README's two commands with pip are run by .ci/run
    if words[0] == "torchrun":
        words = [*words[words.index("danet") :], "--dry-run"]
    if words[:2] == ["python", "examples/client.py"]:
        with served() as address:
            subprocess.run([sys.executable, *words[1:], "--server", address], check=True, timeout=120)
        return
    assert words[0] == "danet", line
    if words[1:3] == ["train", "folder"]:
        words += ["--optim.epochs", "1"]
    words = ["10s" if word.endswith("m") and before == "--time-budget" else word for before, word in pairwise(words)]
    assert main(words) == 0, line


def run_page(page: Path, workplace: Path) -> dict:
    """Run the commands and snippets of a page in order, and return the names that the snippets define."""
    prepare(page, workplace)
    names: dict = {}
    for kind, text in steps(page):
        if kind == "command":
            run_command(text)
        else:
            exec(text, names)
    return names


def test_the_readme_runs_and_gives_the_shapes_it_names(workplace):
    names = run_page(ROOT / "README.md", workplace)
    assert names["out"].fused.shape == (2, 19, 97, 97)
    assert names["same_shape"].shape == (2, 64, 30, 40)
    assert (workplace / "overlay.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_commands_and_snippets_of_a_guide_page_run_in_order(page, workplace):
    run_page(page, workplace)


def test_all_guide_pages_are_linked_and_have_commands():
    index = (ROOT / "docs/index.md").read_text()
    for page in DOCS:
        assert page.name == "index.md" or f"({page.name})" in index, page.name
    counts = {page.name: len(steps(page)) for page in PAGES if page.name != "index.md"}
    assert counts["README.md"] >= 6
    assert min(counts.values()) >= 2
    assert sum(counts.values()) >= 40


def test_the_guides_snippets_give_what_they_name(workplace):
    names: dict = {}
    for page in ("attention", "robustness"):
        for snippet in blocks(ROOT / f"docs/{page}.md", "python"):
            exec(snippet, names)
    assert abs(names["row"].sum() - 1) < 1e-5
    assert abs(names["image_attention"].sum() - 1) < 1e-4
    assert names["image_attention"].shape == (427, 640)
    assert names["foggy"].shape == (720, 1280, 3)


def test_ci_runs_the_first_and_last_command_of_the_readme():
    first, *_, last = (block.strip() for block in blocks(ROOT / "README.md", "bash"))
    assert first == "pip install -q uv && uv run danet predict examples/street.jpg"
    assert last == "pip install -q uv && uv run --all-extras pytest"
    assert "pip install -q uv && uv run $1" in (ROOT / ".ci/run").read_text()


def test_the_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_dataset_yaml_of_the_guide_is_valid(workplace):
    (text,) = blocks(ROOT / "docs/own_data.md", "yaml")
    (workplace / "my_images/dataset.yaml").write_text(text)
    assert len(registry.load("folder", workplace / "my_images", "train")) == 8


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG", "examples/README")), *DOCS],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_files_and_modules_named_by_a_page_exist(page):
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}#{anchor}"
    for name in re.findall(r"`((?:danet|tests|benchmarks|examples|docs|\.ci)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (benchmarks(?:\.[a-z_]+)?)", text):
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert spec.submodule_search_locations or '__name__ == "__main__"' in Path(spec.origin or "").read_text(), (
            module
        )


INSTALLS = re.compile(r"uv sync(?: --extra \w+)+|pip install '?(?:danet\b|\.)(?:\[[\w,]+\])?'?")


def install_lines() -> set[str]:
    """The commands that docs, help and error messages tell users to install danet or its extras with."""
    files = [*(ROOT / "danet").rglob("*.py"), *PAGES, *DOCS, ROOT / "CONTRIBUTING.md", ROOT / "Dockerfile"]
    texts = [re.sub(r"\{extra\}", "geo", file.read_text()) for file in files]
    return {line for text in texts for line in INSTALLS.findall(text)}


def test_install_lines_name_extras_and_work_from_a_clone():
    """danet is not on PyPI: pip would answer that it finds no such package, or install another one."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = install_lines()
    assert {"uv sync --extra serve", "uv sync --extra geo", "pip install '.[serve]'"} <= lines
    assert [line for line in lines if "install danet" in line or "install 'danet" in line] == []
    assert {name for line in lines for name in re.findall(r"(?<=--extra )\w+|\w+(?=[,\]])", line)} <= set(extras)
    named = {extra for path in (ROOT / "danet").rglob("*.py") for extra in missing_extras(path)}
    assert {"geo", "serve", "export"} <= named <= set(extras)


def missing_extras(file: Path) -> list[str]:
    """The extras that a file passes to `missing_package` and `import_optional`."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    places = {"missing_package": 2, "import_optional": 1}
    found = [(call, places[name]) for call in calls if (name := getattr(call.func, "id", "")) in places]
    return [str(call.args[i].value) for call, i in found if isinstance(call.args[i], ast.Constant)]


@pytest.mark.stress
@pytest.mark.parametrize("line", sorted(install_lines()))
def test_each_install_line_can_be_resolved_in_a_copy(line, tmp_path):
    """Needs a package index, and installs nothing."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "danet", tmp_path / "danet", ignore=shutil.ignore_patterns("__pycache__"))
    words = ["uv", *shlex.split(line.removeprefix("uv "))]
    words = [*words, "--dry-run", *([] if words[1] == "sync" else ["--python", sys.executable])]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "does not have an extra" not in ended.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_users_first_command_installs_no_tools_for_development():
    """`uv run` installs the dependencies and the group dev if there is one; pip never installs an extra by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "dev" not in project["dependency-groups"]
    assert "default-groups" not in project["tool"]["uv"]
    assert "dev-dependencies" not in project["tool"]["uv"]
    tools = {re.split(r"[\[>]", line)[0] for line in project["project"]["optional-dependencies"]["dev"]}
    assert {"pytest", "ruff", "pyright", "playwright"} <= tools
    assert not tools & {re.split(r"[\[>]", line)[0] for line in project["project"]["dependencies"]}


def test_code_named_by_the_paper_page_exists():
    """Functions, classes and methods are in the file named with them; tests are anywhere."""
    page = (ROOT / "docs/paper.md").read_text()
    pointers = [(file, name) for file, name in line_links.LINK.findall(page) if file.startswith("danet/")]
    assert len(pointers) >= 18
    for file, name in pointers:
        line = (ROOT / file).read_text().splitlines()[line_links.line_of(ROOT / file, name) - 1]
        assert re.search(rf"\b{name.split('.')[-1]}\b", line), f"{file}:{name}"
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in tests, name
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / file).exists(), file


def test_links_to_lines_name_the_lines_of_the_definitions():
    """Update them with python docs/line_links.py."""
    outdated = [page.name for page in DOCS if line_links.updated(page.read_text()) != page.read_text()]
    assert not outdated
    with pytest.raises(LookupError, match=r"errors\.py: InputError\.nothing is not defined"):
        line_links.line_of(ROOT / "danet/errors.py", "InputError.nothing")


def test_tests_named_by_the_reliability_page_exist():
    """The test column holds `ROOM/test_FILE.py`, optionally `::test_name`."""
    page = (ROOT / "docs/reliability.md").read_text()
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)(?:::(test_\w+))?`", page)
    assert len(named) >= 20
    for file, name in named:
        assert (ROOT / "tests" / file).exists(), file
        assert not name or f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}: {name}"
