"""Run folders that came from somebody else must not redirect what danet writes, nor make a command wait."""

import os
from pathlib import Path

import pytest

from danet import recipes
from danet.cli import main
from danet.errors import InputError
from danet.recipes import Recipe
from danet.train import checkpoint, run_folder
from danet.train.skipped import SkippedImages
from danet.train.trackers import TrackerLog

LINKS = {"symbolic link": Path.symlink_to, "hard link": Path.hardlink_to}


@pytest.fixture
def precious(tmp_path) -> Path:
    file = tmp_path / "precious"
    file.write_text("mine\n")
    return file


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", LINKS)
def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(run, precious, kind):
    LINKS[kind](run / run_folder.LOCK, precious)
    with (
        pytest.raises(InputError, match=r"\.lock: cannot be opened \(it is a link to another file\); remove it"),
        run_folder.lock(run),
    ):
        pass
    assert precious.read_text() == "mine\n"


@pytest.mark.parametrize("kind", LINKS)
def test_a_list_of_skipped_images_that_is_a_link_is_refused(run, precious, kind):
    LINKS[kind](run / run_folder.SKIPPED, precious)
    with pytest.raises(InputError, match=r"bad\.txt: cannot be opened \(it is a link to another file\)"):
        SkippedImages(run, 9).add(InputError("a.png", "damaged", "copy it"))
    assert precious.read_text() == "mine\n"


def test_skipped_images_are_listed_once(run, capsys):
    skipped = SkippedImages(run, 2)
    for name in ("a.png", "b.png", "a.png"):
        skipped.add(InputError(name, "damaged", "copy it"))
    lines = (run / run_folder.SKIPPED).read_text().splitlines()
    assert lines == ["a.png\ta.png: damaged; copy it", "b.png\tb.png: damaged; copy it"]
    assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(InputError, match=r"c\.png: damaged \(2 already skipped"):
        skipped.add(InputError("c.png", "damaged", "copy it"))


def test_a_folder_of_events_that_is_a_link_is_refused(run, tmp_path):
    (run / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(InputError, match="tensorboard: is a link to another folder, which would be written to"):
        TrackerLog(["tensorboard"], run, {})


@pytest.mark.parametrize("name", [run_folder.LOCK, run_folder.RECIPE, checkpoint.LAST])
def test_a_pipe_in_a_run_folder_does_not_make_resume_wait(run, name, capsys):
    if name != run_folder.RECIPE:
        (run / run_folder.RECIPE).write_bytes(_recipe())
    os.mkfifo(run / name)
    assert main(["train", "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "it is not a regular file" in error


@pytest.mark.parametrize("name", [run_folder.RECIPE, run_folder.METRICS, run_folder.BEST])
def test_a_pipe_in_a_run_folder_does_not_make_report_wait(run, name, capsys):
    (run / run_folder.RECIPE).write_bytes(_recipe())
    columns = "step,epoch,lr,loss_total,miou,pixel_accuracy,images_per_second"
    (run / run_folder.METRICS).write_text(f"{columns}\n1,1,1,1,1,1,1\n")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not a regular file" in error or "not a file" in error


def _recipe(recipe: Recipe = recipes.TOY) -> bytes:
    return run_folder._to_yaml(recipe)
