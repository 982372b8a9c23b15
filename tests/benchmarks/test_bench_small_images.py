"""The benchmark of many small images: damaged ones are counted, and missing results are noticed."""

from pathlib import Path

from benchmarks import small_images
from danet.predict.batch import Done


def test_all_images_are_checked(tiny_weights, monkeypatch):
    checked, original = [], small_images.check

    def check(batch, outcomes):
        wrong = original(batch, outcomes)
        out = Path(batch.settings.out.root)
        next(out.glob("*_labels.png")).unlink()  # what a check must notice
        checked.append((original(batch, outcomes), original(batch, [*outcomes, Done("x", 1, None)])))
        return wrong

    monkeypatch.setattr(small_images, "check", check)
    monkeypatch.setattr(small_images, "read_mask", lambda file: small_images.np.zeros(file.exists() * (96, 128)))
    result = small_images.run(small_images.Options(images=40, bad=0.1, weights=tiny_weights))
    local = result["engines"]["local"]
    assert (result["bad"], local["errors"], local["wrong"]) == (4, 4, 0)
    assert checked == [(1, 2)]
    assert "| local |" in small_images.table(result)
