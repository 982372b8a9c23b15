"""Panels as one web page that needs nothing else. Used by `danet look --out F.html`."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from danet.data.classes import Color
from danet.predict import overlay
from danet.visualize.attention_panels import Panel, Section, Sheet

_STYLE = """
:root { color-scheme: light dark; } body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto;
padding: 0 1rem; } h2 { margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; } .panels { display: grid; gap: 1.5rem 1rem;
grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)); } figure { margin: 0; min-width: 0; }
figure > img { width: 100%; height: auto; display: block; } figcaption { font-weight: 600; } .many
figcaption { min-height: 3em; } .note { opacity: .75; }
.scale { display: flex; gap: .5rem; align-items: center; } .scale img { flex: 1; height: 1rem; min-width: 0; }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: 0 .7rem; align-items: center; margin: .5rem 0 0; }
.bars dd { margin: 0; display: flex; gap: .5rem; align-items: center; } .bars i, .legend i { border: 1px solid;
display: inline-block; height: .9em; } .legend { padding: 0; list-style: none; display: flex; flex-wrap: wrap;
gap: .2rem 1.5rem; } .legend i { width: .9em; margin-right: .5em; vertical-align: -.1em; }
"""


def to_html(sheet: Sheet) -> bytes:
    """UTF-8; images are data, no other address is named; light or dark as the reader's system, on a phone one panel
    below the other.
    """
    title = html.escape(sheet.title)
    body = "".join(_section(section) for section in sheet.sections)
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{_STYLE}</style>
<h1>{title}</h1>
{body}</html>
"""
    return page.encode()


def _section(section: Section) -> str:
    kind, least = ("panels", 360) if len(section.panels) < 5 else ("many panels", 150)
    panels = "".join(_panel(panel) for panel in section.panels)
    legend = "".join(f'<li><i style="background:{_css(c)}"></i>{html.escape(name)}' for name, c in section.legend)
    return (
        f'<h2>{html.escape(section.title)}</h2>\n<div class="{kind}" style="--least:{least}px">\n{panels}</div>\n'
        + (f'<ul class="legend">{legend}</ul>\n' if legend else "")
        + (f"<p>{html.escape(section.text)}</p>\n" if section.text else "")
    )


def _panel(panel: Panel) -> str:
    title = html.escape(panel.title)
    parts = [f"<figcaption>{title}</figcaption>", f'<img alt="{title}" src="{_data(panel.image)}">']
    if panel.scale is not None:
        bar = f'<img alt="from dark blue to light yellow" src="{_data(overlay.heat_bar(256, 1))}">'
        parts.append(f'<div class="scale">{html.escape(panel.scale[0])}{bar}{html.escape(panel.scale[1])}</div>')
    if panel.note:
        parts.append(f'<div class="note">{html.escape(panel.note)}</div>')
    if panel.bars:
        parts.append(_bars(panel.bars))
    return f'<figure style="max-width:{max(panel.image.width, 240)}px">{"".join(parts)}</figure>\n'


def _bars(bars: Sequence[tuple[str, Color, float]]) -> str:
    lines = [
        f'<dt>{html.escape(name)}<dd><i style="width:{75 * share:.1f}%;background:{_css(color)}"></i>{share:.1%}'
        for name, color, share in bars
    ]
    return f'<dl class="bars">{"".join(lines)}</dl>'


def _css(color: Color) -> str:
    return f"rgb({' '.join(map(str, color))})"


def _data(image: Image.Image) -> str:
    """The smaller of PNG and good JPEG."""
    files = io.BytesIO(), io.BytesIO()
    image.save(files[0], "PNG")
    image.save(files[1], "JPEG", quality=90, subsampling=0)
    kind, file = min(zip(("png", "jpeg"), files, strict=True), key=lambda entry: len(entry[1].getvalue()))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
