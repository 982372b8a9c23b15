"""The Python example runs as it is."""

import runpy
from pathlib import Path

from danet.data.images.read import read_image

FILE = Path(__file__).parents[1] / "examples/quickstart.py"


def test_the_quickstart_segments_and_shows_attention(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(FILE)])
    names = runpy.run_path(str(FILE))
    assert abs(names["attention"].sum() - 1) < 1e-4
    assert read_image("quickstart/attention.png").shape == (427, 640, 3)
    assert read_image("quickstart/china_overlay.png").shape[1] > 640
    first, second, *shares = capsys.readouterr().out.splitlines()
    assert first.startswith("quickstart/china_overlay.png: ")
    assert second.startswith("pixel x=426, y=142 is ")
    assert 95 <= sum(int(line.split()[1].rstrip("%")) for line in shares) <= 105
    assert len(FILE.read_text().splitlines()) <= 35
