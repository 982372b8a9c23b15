"""The benchmark of small datasets: its subsets, the loop of segmentation-models-pytorch, and its table."""

import pytest
import timm
from safetensors.torch import save_file

from benchmarks import small_data
from benchmarks.small_data import Options, make_subset, table, train_smp
from danet.data.classes import Classes
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


def test_table_has_a_row_per_subset_and_a_column_per_way():
    rows = [
        {"dataset": "streets", "images": 20, "way": way, "miou": miou, "minutes": 2.6, "seen": 80}
        for way, miou in (("danet", 0.512), ("Unet", 0.4))
    ]
    assert table({"rows": rows}).splitlines()[2] == "| streets | 20 | 51.2 (3 min) | 40.0 (3 min) |"
