"""What is published: the wheel, which two folders make equal to the byte, and the version floors and their reasons."""

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
]


def test_every_version_floor_with_a_reason_is_the_one_that_is_asked_for():
    table = (ROOT / "SECURITY.md").read_text().split("## Version floors")[1]
    floors = re.findall(
        r"([\w-]+ >= [\d.]+)", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)
    )
    assert len(floors) >= 8
    for floor in floors:
        name = floor.split()[0]
        assert {one for one in REQUIREMENTS if re.match(rf"{name}\b(?!-)", one)} == {floor.replace(" ", "")}


def build(folder: Path, mode: int) -> Path:
    """A wheel of a copy of the project in that folder, all of its files of today and of this mode."""
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
def test_two_builds_are_equal_to_the_byte_and_hold_the_package_alone(tmp_path):
    """From two folders, with files of different ages and modes. Needs a package index for hatchling."""
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
            assert not re.search(rb"/(home|root|Users|work)/\w", wheel.read(name)), f"{name} names a place of a machine"
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("METADATA"))
        assert f"Requires-Python: {PROJECT['requires-python']}" in metadata
