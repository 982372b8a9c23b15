"""Attention figures as a white page to print. Used by `danet look --out F.png`."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from danet.data.classes import Color
from danet.predict import overlay
from danet.predict.fonts import Font, choose_font
from danet.visualize.html import encoded
from danet.visualize.panels import GAP, Panel, PanelGroup, Sheet

_MARGIN, _SPACE, _NARROW, _GRAY = 47, 8, 240, (90, 90, 90)
_TITLE, _HEAD, _TEXT = 40, 30, 24  # sizes of text


def to_png(sheet: Sheet) -> bytes:
    """Return the sheet as PNG with 200 dots per inch; for a single image, it has the width of A4 paper.

    Groups are below each other; their panels are next to each other, and wrap at the sheet's width.
    """
    title = _paragraph(sheet.title, _TITLE, sheet.width)
    content = _stack([title, *(_group(group, sheet.width) for group in sheet.groups)], 2 * GAP)
    page = Image.new("RGB", (sheet.width + 2 * _MARGIN, content.height + 2 * _MARGIN), "white")
    page.paste(content, (_MARGIN, _MARGIN))
    return encoded(page, "PNG", dpi=(200, 200))


def _group(group: PanelGroup, width: int) -> Image.Image:
    rows: list[list[Image.Image]] = []
    titles = [_paragraph(panel.title, _TEXT, max(panel.image.width, _NARROW)) for panel in group.panels]
    height = max((title.height for title in titles), default=0)
    for title, panel in zip(titles, group.panels, strict=True):
        block = _panel(_extended(title, height), panel)
        if not rows or sum(one.width + GAP for one in rows[-1]) + block.width > width:
            rows.append([])
        rows[-1].append(block)
    blocks = [_paragraph(group.title, _HEAD, width), *map(_row, rows)]
    if group.legend:
        blocks.append(_legend(group.legend, width))
    if group.text:
        blocks.append(_paragraph(group.text, _TEXT, width))
    return _stack(blocks, 2 * _SPACE)


def _panel(title: Image.Image, panel: Panel) -> Image.Image:
    width = title.width
    blocks = [title, panel.image]
    if panel.scale is not None:
        blocks.append(_scale(*panel.scale, width))
    if panel.note:
        blocks.append(_paragraph(panel.note, _TEXT, width, _GRAY))
    if panel.bars:
        blocks.append(_bars(panel.bars, width))
    return _stack(blocks, _SPACE)


def _scale(low: str, high: str, width: int) -> Image.Image:
    """Draw the color scale between the numbers at its ends."""
    font = choose_font((low, high), _TEXT)
    left, right = (round(font.getlength(text)) + _SPACE for text in (low, high))
    block, bar = Image.new("RGB", (width, 28), "white"), overlay.heat_bar(width - left - right, 20)
    block.paste(bar, (left, 4))
    pen = ImageDraw.Draw(block)
    pen.text((0, 14), low, "black", font, "lm")
    pen.text((width, 14), high, "black", font, "rm")
    return block


def _bars(bars: Sequence[tuple[str, Color, float]], width: int) -> Image.Image:
    """Draw one line per bar: name, bar and share."""
    font = choose_font([name for name, _, _ in bars], _TEXT)
    names = [_cut(name, width // 2, font) for name, _, _ in bars]
    line, left, right = 31, round(max(map(font.getlength, names))) + 2 * _SPACE, 100
    longest = max(width - left - right, 1)
    block = Image.new("RGB", (width, line * len(bars)), "white")
    pen = ImageDraw.Draw(block)
    for i, (name, (_, color, share)) in enumerate(zip(names, bars, strict=True)):
        middle = (i + 0.5) * line
        end = left + share * longest
        pen.text((0, middle), name, "black", font, "lm")
        pen.rectangle((left, middle - 9, end, middle + 9), color, "black")
        pen.text((end + _SPACE, middle), f"{share:.1%}", "black", font, "lm")
    return block


def _cut(text: str, width: int, font: Font) -> str:
    """Return the text, truncated to `width` pixels."""
    if font.getlength(text) <= width:
        return text
    return next(text[:end] + "..." for end in range(len(text), -1, -1) if font.getlength(text[:end] + "...") <= width)


def _legend(entries: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Draw swatches and names in lines of at most `width` pixels."""
    font = choose_font([name for name, _ in entries], _TEXT)
    places, x, y, line = [], 0, 0, 34
    for name, _ in entries:
        wide = round(font.getlength(name)) + 58
        if x and x + wide > width:
            x, y = 0, y + line
        places.append((x, y))
        x += wide
    block = Image.new("RGB", (width, y + line), "white")
    pen = ImageDraw.Draw(block)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        pen.rectangle((left, top + 6, left + 22, top + 28), color, "black")
        pen.text((left + 30, top + line / 2), name, "black", font, "lm")
    return block


def _paragraph(text: str, size: int, width: int, color: str | Color = "black") -> Image.Image:
    """Draw text in lines of at most `width` pixels, unless a word is longer."""
    font, lines = choose_font([text], size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    height = round(1.6 * font.getbbox("Ag")[3])
    block = Image.new("RGB", (width, height * len(lines)), "white")
    pen = ImageDraw.Draw(block)
    for i, line in enumerate(lines):
        pen.text((0, (i + 0.5) * height), line, color, font, "lm")
    return block


def _extended(block: Image.Image, height: int) -> Image.Image:
    """Add white below, so that neighbors start at the same height."""
    page = Image.new("RGB", (block.width, height), "white")
    page.paste(block, (0, 0))
    return page


def _stack(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    """Draw blocks below each other."""
    size = max(block.width for block in blocks), sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    page, y = Image.new("RGB", size, "white"), 0
    for block in blocks:
        page.paste(block, (0, y))
        y += block.height + gap
    return page


def _row(blocks: Sequence[Image.Image]) -> Image.Image:
    """Draw blocks next to each other, aligned at their tops."""
    size = sum(block.width for block in blocks) + GAP * (len(blocks) - 1), max(block.height for block in blocks)
    page, x = Image.new("RGB", size, "white"), 0
    for block in blocks:
        page.paste(block, (x, 0))
        x += block.width + GAP
    return page
