"""Attention figures as a self-contained HTML page. Used by `danet look --out F.html`."""

from collections.abc import Sequence

from PIL import Image

from danet.data.classes import Color
from danet.predict import overlay
from danet.visualize.html import Section, data_uri, document, encoded, escape, swatch
from danet.visualize.panels import Panel, PanelGroup, Sheet

_LENGTH = 300  # maximum characters of titles


def to_html(sheet: Sheet) -> bytes:
    """Return the sheet as an HTML page; on a phone, panels are below each other."""
    return document(sheet.title, "", [], [Section(group.title, _body(group)) for group in sheet.groups])


def _body(group: PanelGroup) -> str:
    kind, least = ("panels", 360) if len(group.panels) < 5 else ("panels many", 150)
    panels = "".join(_panel(panel) for panel in group.panels)
    legend = "".join(f"<span>{swatch(color)}{escape(name)}</span>" for name, color in group.legend)
    return (
        (f'<div class="{kind}" style="--least:{least}px">{panels}</div>' if panels else "")
        + (f'<p class="chips">{legend}</p>' if legend else "")
        + (f'<p class="note">{escape(group.text, 2 * _LENGTH)}</p>' if group.text else "")
    )


def _panel(panel: Panel) -> str:
    title = escape(panel.title, _LENGTH)
    parts = [f"<figcaption>{title}</figcaption>", f'<img alt="{title}" src="{_smaller_uri(panel.image)}">']
    if panel.scale is not None:
        bar = f'<img alt="from dark blue to light yellow" src="{_smaller_uri(overlay.heat_bar(256, 1))}">'
        parts.append(f'<div class="scale">{escape(panel.scale[0])}{bar}{escape(panel.scale[1])}</div>')
    if panel.note:
        parts.append(f'<div class="note">{escape(panel.note, _LENGTH)}</div>')
    if panel.bars:
        parts.append(_bars(panel.bars))
    return f'<figure style="max-width:{max(panel.image.width, 240)}px">{"".join(parts)}</figure>'


def _bars(bars: Sequence[tuple[str, Color, float]]) -> str:
    lines = [
        f'<dt>{escape(name)}<dd><i style="width:{75 * share:.1f}%;background:rgb{color}"></i>{share:.1%}'
        for name, color, share in bars
    ]
    return f'<dl class="shares">{"".join(lines)}</dl>'


def _smaller_uri(image: Image.Image) -> str:
    """Return the image as PNG or as high-quality JPEG, whichever is smaller."""
    return data_uri(min(encoded(image, "PNG"), encoded(image, "JPEG", quality=90, subsampling=0), key=len))
