"""The frame and the elements of every HTML page: no script, no external address, light and dark, phone and print."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from PIL import Image

from danet.data.classes import Color

LONG = 600
"""Characters of a value that may be a path, whose end matters."""


class Section(NamedTuple):
    """A section of a page, with a link to it at the top of the page. The body is HTML."""

    title: str
    body: str


def document(title: str, lead: str, facts: Iterable[tuple[str, str]], sections: Sequence[Section]) -> bytes:
    """Return a whole page.

    Args:
        title: plain text.
        lead: HTML of the sentences below the title.
        facts: the numbers to show first, as plain (label, number).
        sections: of the page.
    """
    numbers = "".join(f"<div><dt>{escape(label)}<dd>{escape(number)}</div>" for label, number in facts)
    links = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    parts = "".join(
        f'<section id="s{i}"><h2>{escape(section.title)}</h2>{section.body}</section>'
        for i, section in enumerate(sections)
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="lead">{lead}</p>'
        + (f'<dl class="facts">{numbers}</dl>' if numbers else "")
        + f"<nav>{links}</nav>{parts}</body></html>\n"
    )
    return page.encode(errors="backslashreplace")


def escape(text: str, length: int = 80) -> str:
    """Return plain text as HTML: printable characters only, and at most `length` of them."""
    visible = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(short(visible, length))


def short(text: str, length: int) -> str:
    """Return the text, cut to `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def percent(fraction: float, digits: int = 1, sign: str = "") -> str:
    """Return a fraction in percent: 0.5 gives "50.0", or "50.0%" if `sign` is "%"; nan gives "n/a"."""
    return "n/a" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}{sign}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table of HTML cells; the first cell of a row is its head. On narrow pages it scrolls sideways."""
    top = "".join(f'<th scope="col">{cell}' for cell in head)
    lines = "".join(f'<tr><th scope="row">{first}{"".join(f"<td>{cell}" for cell in rest)}' for first, *rest in rows)
    text = f'<p class="note">{caption}</p>' if caption else ""
    return f'{text}<div class="wide"><table><thead><tr>{top}</thead><tbody>{lines}</tbody></table></div>'


def pairs(entries: Iterable[tuple[str, str]]) -> str:
    """Return a table of plain names and values."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}<td>{escape(value, LONG)}' for name, value in entries)
    return f'<table class="pairs">{rows}</table>'


def bar(fraction: float, digits: int = 1, text: str | None = None) -> str:
    """Return a bar and its number in percent, or a plain text in its place; only "n/a" for nan."""
    if math.isnan(fraction):
        return '<span class="number">n/a</span>'
    number = percent(fraction, digits) if text is None else escape(text)
    return f'<i class="bar" style="--w:{fraction:.3f}"></i><span class="number">{number}</span>'


def swatch(color: Color) -> str:
    """Return a small square of a class's color."""
    return f'<i class="swatch" style="background:rgb{color}"></i>'.replace(", ", ",")


def data_uri(png_or_jpeg: bytes) -> str:
    """Return an image file's content as the address of an <img>."""
    kind = "png" if png_or_jpeg.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(png_or_jpeg).decode()}"


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode an image as "PNG" or "JPEG"."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# the colors of Okabe and Ito, which color-blind readers can distinguish; brighter variants for the dark theme
CHART_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--soft:#5c5c5c;--line:#8883;--card:#f5f5f3;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#aa4b82;--c4:#8a6100;--c5:#333}
@media screen and (prefers-color-scheme:dark){:root{--paper:#141517;--ink:#e8e8e6;--soft:#a4a4a0;--line:#9994;
--card:#1e2023;--c0:#56b4e9;--c1:#e8792a;--c2:#2fbf93;--c3:#cc79a7;--c4:#e69f00;--c5:#ddd}}
svg text{font-size:11.5px;fill:var(--ink)}
svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line)}svg .axis{stroke:var(--soft)}
svg .halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
"""
_STYLE = (
    CHART_STYLE
    + """*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;max-width:74rem;margin:0 auto;
padding:1.5rem 1.25rem 4rem;background:var(--paper);color:var(--ink)}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.4rem 0 .8rem;padding-top:.6rem;border-top:1px solid var(--line);overflow-wrap:anywhere}
h3{font-size:1rem;margin:1.6rem 0 .5rem;overflow-wrap:anywhere}
p{max-width:46rem;margin:.4rem 0 .8rem}.lead,.note,figcaption{color:var(--soft)}
.note,figcaption{font-size:.86rem}
a{color:var(--c0)}nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.92rem}
.facts{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
.facts div{background:var(--card);border-radius:6px;padding:.5rem .9rem;min-width:7.5rem}
.facts dt{font-size:.8rem;color:var(--soft)}.facts dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1.2rem 1.6rem}
figure{margin:0;min-width:0}figcaption b{color:var(--ink);font-weight:600}
svg{display:block;max-width:100%;height:auto;overflow:visible}
.wide{overflow-x:auto;margin:.4rem 0 1rem}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;font-weight:500}thead th{font-weight:600;vertical-align:bottom}
td.text,.pairs td{text-align:left}.warnings{margin:.4rem 0;padding-left:1.2rem;max-width:60rem}
.warnings li{margin:.3rem 0}.warnings li::marker{content:"! ";color:var(--c1);font-weight:700}
.pairs td{white-space:normal;overflow-wrap:anywhere}.best{font-weight:700}
.number{display:inline-block;min-width:3.4em;text-align:right}
.bar{display:inline-block;vertical-align:middle;width:10rem;height:.7em;border-radius:2px;
background:linear-gradient(var(--c0) 0 0) 0 0/calc(100%*var(--w)) 100% no-repeat var(--line)}
.beside{display:flex;flex-wrap:wrap;gap:0 3rem;align-items:flex-start}
.beside>*{min-width:0}.beside .note{max-width:24rem}
.slim .bar{width:4rem;height:.45em}
.preview img{display:block;max-width:100%;height:auto;border-radius:3px}
.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.45em;border:1px solid var(--line);border-radius:2px;
vertical-align:-.05em}
.key{display:inline-block;width:1.5em;height:0;vertical-align:.25em;margin:0 .35em 0 .5em}
figcaption span{white-space:nowrap}
.drawings{display:grid;grid-template-columns:repeat(3,1fr);gap:.8rem;margin-bottom:1.6rem}
.drawings img{display:block;width:100%;height:auto;border-radius:3px;image-rendering:auto}
.drawings .scores{font-size:.86rem}.drawings .scores p{margin:0 0 .5rem}
.chips{display:flex;flex-wrap:wrap;gap:.1rem .9rem}
.chips span{white-space:nowrap}
.panels{display:grid;gap:1.5rem 1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--least)),1fr))}
.panels figcaption{color:var(--ink);font-weight:600}.panels.many figcaption{min-height:3em}
.panels figure>img{width:100%;height:auto;display:block;border-radius:3px}
.scale{display:flex;gap:.5rem;align-items:center;font-size:.86rem}.scale img{flex:1;height:1rem;min-width:0}
.shares{display:grid;grid-template-columns:max-content 1fr;gap:0 .7rem;align-items:center;margin:.5rem 0 0}
.shares dd{margin:0;display:flex;gap:.5rem;align-items:center}
.shares i{display:inline-block;height:.9em;border:1px solid var(--line)}
pre{font-size:.82rem;line-height:1.4;background:var(--card);border-radius:6px;padding:.8rem 1rem;columns:22rem;
column-gap:2rem;white-space:pre-wrap;overflow-wrap:anywhere}
@media (max-width:50rem){body{padding:1rem .8rem 3rem}.drawings{grid-template-columns:repeat(2,1fr);gap:.6rem}
.drawings .scores,.drawings figure:nth-of-type(5){grid-column:1/-1}.bar{width:5rem}.facts div{flex:1 0 7rem}}
@media print{*{print-color-adjust:exact;-webkit-print-color-adjust:exact}body{max-width:none;padding:0;font-size:11px}
nav{display:none}figure,tr,.drawings{break-inside:avoid}h2,h3{break-after:avoid}.wide{overflow:visible}}
"""
)
