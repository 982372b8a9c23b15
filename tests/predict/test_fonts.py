"""Names of classes in other characters than ASCII are drawn with an installed font that has them."""

import numpy as np
import pytest
from PIL import ImageFont

from danet.data.classes import Classes
from danet.evaluate.confusion import Confusion
from danet.predict import fonts
from danet.predict.fonts import choose_font
from danet.predict.overlay import with_legend
from danet.visualize.confusion_png import confusion_png


@pytest.fixture(autouse=True)
def forget():
    for function in (fonts._choose, fonts._installed, fonts._note_boxes):
        function.cache_clear()
    yield
    for function in (fonts._choose, fonts._installed, fonts._note_boxes):
        function.cache_clear()


def boxes(font: fonts.Font, text: str) -> int:
    return len(fonts._lacking(font, text))


def test_ascii_is_drawn_in_the_font_of_pillow(monkeypatch):
    monkeypatch.setattr(fonts, "_choose", None)
    assert choose_font(["road", "sky  12.3%"], 20).getbbox("road") == ImageFont.load_default(20).getbbox("road")


@pytest.mark.parametrize("text", ["Straße", "forêt", "Дорога", "słońce"])
def test_an_installed_font_has_the_letters(text):
    if not any("DejaVu" in name or "Noto" in name for name in fonts._installed()):
        pytest.skip("no such font is installed")
    assert boxes(ImageFont.load_default(20), text) > 0
    assert boxes(choose_font(["road", text], 20), text) == 0
    assert choose_font([text], 20).getlength(text) > choose_font([text], 10).getlength(text)


def test_letters_that_no_font_has_are_noted_once(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_INSTALLED", ("absent.ttf",))
    for _ in range(2):
        image = with_legend(np.zeros((90, 90, 3), np.uint8), [("Straße", (1, 2, 3)), ("road", (4, 5, 6))])
        assert image.width > 90
    choose_font(["forêt"], 20)
    note = "note: no installed font has all characters of the classes' names, so that boxes are drawn; install one, "
    assert capsys.readouterr().err == f"{note}such as Noto Sans\n"


def test_the_font_with_most_of_the_letters_is_chosen(monkeypatch, capsys):
    have = {"a.ttf": "", "b.ttf": "道", "c.ttf": "道路"}
    monkeypatch.setattr(fonts, "_installed", lambda: tuple(have))
    monkeypatch.setattr(fonts, "_open", lambda name, _: name)
    monkeypatch.setattr(fonts, "_lacking", lambda font, text: [c for c in text if c not in have.get(font, "")])
    assert [fonts._choose(text) for text in ("道", "道路", "道路я", "я")] == ["b.ttf", "c.ttf", "c.ttf", None]
    assert "boxes are drawn" in capsys.readouterr().err


def test_marks_without_a_shape_of_their_own_are_not_missing():
    assert boxes(ImageFont.load_default(20), "e\N{COMBINING ACUTE ACCENT}\N{ZERO WIDTH JOINER}\N{NO-BREAK SPACE}") == 0


def test_the_confusion_matrix_has_names_of_any_letters():
    assert confusion_png(Confusion(2), Classes.named(("Straße", "道路"))).startswith(b"\x89PNG")
