"""The wheel: reproducible, contains only the package. The version floors of SECURITY.md are those of pyproject.toml."""

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from danet.weights import runtimes
from danet.weights.card import DEFAULT_EXPORT, peek

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
]


def test_version_floors_of_security_md_are_the_required_ones():
    table = (ROOT / "SECURITY.md").read_text().split("## Version floors")[1]
    floors = re.findall(
        r"([\w-]+ >= [\d.]+)", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)
    )
    assert len(floors) >= 8
    for floor in floors:
        name = floor.split()[0]
        assert {line for line in REQUIREMENTS if re.match(rf"{name}\b(?!-)", line)} == {floor.replace(" ", "")}


def test_groups_without_torch_require_what_the_package_requires():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    light = [line for name in ("runtime", "runtime-serve") for line in groups[name] if isinstance(line, str)]
    assert [line for line in light if line not in REQUIREMENTS] == []
    assert not {"torch", "torchvision", "timm"} & {re.split(r"\W", line)[0] for line in light}
    assert set(PROJECT["optional-dependencies"]["serve"]) <= set(light)


def test_a_bundled_export_is_that_of_the_bundled_weights():
    if not DEFAULT_EXPORT.is_file():
        pytest.skip("no default.onnx in this clone")
    assert runtimes.load(DEFAULT_EXPORT)[1].sha256 == peek(None).sha256


def build(folder: Path, mode: int) -> Path:
    """Build a wheel of a copy of the project in a folder; all files get this mode, and a time that depends on it."""
    shutil.copytree(ROOT / "danet", folder / "danet", copy_function=shutil.copyfile)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)
            os.utime(file, (mode * 1e6, mode * 1e6))
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", folder / "dist", folder], check=True, timeout=200)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.mark.stress
def test_two_builds_are_identical_and_contain_only_the_package(tmp_path):
    """Built in two folders, from files of different times and modes. Needs a package index for hatchling."""
    first, second = (build(tmp_path / name, mode) for name, mode in (("one", 0o644), ("another place", 0o600)))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        names = wheel.namelist()
        assert [name for name in names if not re.match(r"danet(-[\d.]+\.dist-info)?/", name)] == []
        assert [name for name in names if re.search(r"test|pyc|\.git|shared|runs", name)] == []
        weights = [info for info in wheel.infolist() if info.filename.endswith(".safetensors")]
        assert [info.filename for info in weights] == ["danet/default.safetensors"]
        sources = {str(file.relative_to(ROOT)) for file in (ROOT / "danet").rglob("*") if file.is_file()}
        assert {name for name in names if name.startswith("danet/")} == {s for s in sources if "__pycache__" not in s}
        for name in names:
            assert not re.search(rb"/(home|root|Users|work)/\w", wheel.read(name)), (
                f"{name} contains a path of this machine"
            )
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("METADATA"))
        assert f"Requires-Python: {PROJECT['requires-python']}" in metadata
