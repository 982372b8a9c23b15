"""Every command and every snippet of the README and of the guide is run, on small data."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from released import released_state

from danet import DANet, recipes
from danet.cli import main
from danet.data import registry
from danet.data.datasets import synthetic

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs/guide.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("danet ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """What the commands name: images with 0/255 masks, an image, a released checkpoint; and small recipes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(10):
        mask = np.where(np.arange(48)[None] > 6 * i, 255, 0).astype(np.uint8).repeat(40, 0)
        for folder, array in (("images", rng.integers(0, 256, (40, 48, 3), np.uint8)), ("masks", mask)):
            (tmp_path / "my_images" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "my_images" / folder / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / "street.jpg")
    (tmp_path / "examples").mkdir()
    for image in (ROOT / "examples").glob("*.jpg"):
        (tmp_path / "examples" / image.name).write_bytes(image.read_bytes())

    torch.save({"state_dict": released_state(DANet(19, "resnet50"))}, tmp_path / "DANet101.pth.tar")
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})
    for name in ("folder", "toy"):
        recipe = recipes.RECIPES[name]
        small = replace(recipe.network, backbone="test_resnet", output_stride=16, width=16, pretrained=False)
        crops = replace(recipe.data, crop=(32, 32), size=48)
        recipe = replace(recipe, network=small, data=crops, optim=replace(recipe.optim, epochs=1))
        monkeypatch.setitem(recipes.RECIPES, name, recipe)
    return tmp_path


@pytest.mark.parametrize("page", [PAGES[0], pytest.param(PAGES[1], marks=pytest.mark.slow)], ids=lambda p: p.name)
def test_the_commands_of_a_page_run_one_after_the_other(page, workplace, monkeypatch):
    found = commands(page)
    assert len(found) >= 4
    for args in found:
        if args[:2] == ["train", "folder"]:
            args = [*args, "--optim.epochs", "1"]
        assert main(list(args)) == 0, args


def test_the_readmes_python_runs(workplace):
    (snippet,) = blocks(ROOT / "README.md", "python")
    names: dict = {}
    exec(snippet, names)
    assert names["out"].fused.shape == (2, 19, 97, 97)
    assert names["same_shape"].shape == (2, 64, 30, 40)
    assert (workplace / "overlay.png").exists()


def test_the_guides_snippets_run(workplace):
    names: dict = {}
    for snippet in blocks(ROOT / "docs/guide.md", "python"):
        exec(snippet, names)
    assert abs(names["row"].sum() - 1) < 1e-5
    assert names["foggy"].shape == (720, 1280, 3)


def test_the_readmes_first_two_commands_are_what_ci_runs():
    first, second = (block.strip() for block in blocks(ROOT / "README.md", "bash")[:2])
    assert first == "pip install -q uv && uv run danet predict examples/street.jpg"
    assert second == "pip install -q uv && uv run --all-extras pytest"
    assert "pip install -q uv && uv run $1" in (ROOT / ".ci/run").read_text()


def test_the_guides_dataset_yaml_is_one(workplace):
    (text,) = blocks(ROOT / "docs/guide.md", "yaml")
    (workplace / "my_images/dataset.yaml").write_text(text)
    assert len(registry.load("folder", workplace / "my_images", "train")) == 8


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:danet|tests|benchmarks|examples)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


def test_every_test_that_the_paper_page_names_exists():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)(?:\.\.\.)?`", (ROOT / "docs/paper.md").read_text()):
        assert f"def {name}" in tests, name
