"""Choose a font for text in images: Pillow's own has ASCII characters only, and names of classes may have others."""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from danet.errors import print_note

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_INSTALLED = (  # Latin, Greek, Cyrillic, Arabic
    *("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf"),
    # Chinese, Japanese, Korean
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "wqy-microhei.ttc"),
    *("wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "msyh.ttc", "PingFang.ttc"),
    *("Hiragino Sans GB.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf", "AppleSDGothicNeo.ttc"),
    *("NotoSansKR-Regular.otf", "NanumGothic.ttf"),
    # other scripts
    *("Nirmala.ttf", "NotoSansDevanagari-Regular.ttf", "leelawui.ttf", "NotoSansThai-Regular.ttf"),
    *("NotoSansHebrew-Regular.ttf", "NotoSansArabic-Regular.ttf", "FreeSans.ttf", "Unifont.ttf", "unifont.otf"),
)
_NO_CHARACTER = "\U0010fffe"


def choose_font(texts: Iterable[str], size: float) -> Font:
    """Return Pillow's font, or the first installed one that has all characters of the texts.

    If there is none, the one with the most of them is returned, and a note is printed once.

    Args:
        texts: what will be drawn.
        size: of the font, in pixels.
    """
    characters = "".join(sorted({char for text in texts for char in text if not char.isascii()}))
    return _open(_choose(characters) if characters else None, size)


@lru_cache(maxsize=256)
def _choose(characters: str) -> str | None:
    """Return the file of a font that has the characters, or else most of them; None: Pillow's font."""
    fewest, chosen = _lacking(_open(None, 16), characters), None
    for name in _installed():
        lacking = _lacking(_open(name, 16), characters)
        if len(lacking) < len(fewest):
            fewest, chosen = lacking, name
        if not fewest:
            return chosen
    if fewest:
        _note_boxes()
    return chosen


@lru_cache(maxsize=1)
def _note_boxes() -> None:
    what = "no installed font has all characters of the classes' names, so that boxes are drawn"
    print_note(f"note: {what}; install one, such as Noto Sans")


def _open(name: str | None, size: float) -> Font:
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    return tuple(_find_installed())


def _find_installed() -> Iterator[str]:
    for name in _INSTALLED:
        try:
            _open(name, 16)
        except OSError:
            continue
        yield name


def _lacking(font: Font, characters: str) -> list[str]:
    """Return the characters for which a font draws a box, or nothing."""
    missing = _drawn(font, _NO_CHARACTER), _drawn(font, " ")
    visible = (char for char in characters if unicodedata.category(char)[0] not in "CMZ")
    return [char for char in visible if _drawn(font, char) in missing]


def _drawn(font: Font, char: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((4, 4), char, 255, font)
    return image.tobytes()
