"""The benchmark of small datasets: its subsets, the loop of segmentation-models-pytorch, and its table."""

from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from benchmarks import small_data
from benchmarks.small_data import Options, Rows, make_subset, table, train_smp
from danet.data.classes import Classes
from danet.errors import InputError
from danet.weights.file import Card


def test_subsets_are_evenly_spaced_and_readable(few_streets, tmp_path):
    folder = make_subset(few_streets, tmp_path / "subset", 4, 2)
    assert folder is not None
    assert sorted(file.name for file in (folder / "images/train").iterdir()) == ["0.jpg", "3.jpg", "6.jpg", "9.jpg"]
    assert sorted(file.name for file in (folder / "labels/val").iterdir()) == ["0.png", "3.png"]
    assert "classes:" in (folder / "dataset.yaml").read_text()
    assert make_subset(few_streets, tmp_path / "larger", 11, 2) is None


def test_the_other_library_is_trained_from_the_same_backbone(few_streets, tmp_path, monkeypatch):
    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr(small_data, "SMP_CROP", 64)
    folder = make_subset(few_streets, tmp_path / "subset", 4, 2)
    assert folder is not None
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "backbone.safetensors")
    card = Card({"backbone": "resnet18"}, Classes.named(("road", "car")), (0.5,) * 3, (0.5,) * 3, size=64)
    options = Options(few_streets.parent, backbone_weights=tmp_path / "backbone.safetensors")
    assert 0 <= train_smp("Unet", card, folder, 2, options) <= 1


def test_only_runs_of_the_same_settings_are_continued(tmp_path):
    file = tmp_path / "rows.json"
    for miou in (0.5, 0.6):
        rows = Rows({"seed": 1, "validation": 60})
        rows.continue_from(tmp_path, file)
        rows.add({"miou": miou})
    assert [row["miou"] for row in rows.rows] == [0.5, 0.6]
    for out, other in ((tmp_path, tmp_path / "other.json"), (tmp_path / "out", file)):
        with pytest.raises(InputError, match=r"\.json: was made with seed 1; choose another `out` and `json`"):
            Rows({"seed": 2, "validation": 60}).continue_from(out, other)


def test_rows_are_not_written_while_json_is_printed(tmp_path, capsys):
    rows = Rows({})
    rows.continue_from(tmp_path, Path("-"))
    rows.add({"miou": 0.5})
    assert capsys.readouterr().out == ""


def test_table_has_a_row_per_subset_and_a_column_per_way():
    rows = [
        {"dataset": "streets", "images": 20, "way": way, "miou": miou, "minutes": 2.6, "seen": 80}
        for way, miou in (("danet", 0.512), ("Unet", 0.4))
    ]
    assert table({"rows": rows}).splitlines()[2] == "| streets | 20 | 51.2 (3 min) | 40.0 (3 min) |"
    rows[0]["minutes"] = None
    assert table({"rows": rows}).splitlines()[2] == "| streets | 20 | 51.2 | 40.0 (3 min) |"
