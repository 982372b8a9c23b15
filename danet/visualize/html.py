"""The frame of every report: one HTML page without script or outside address, readable in light and dark, on a phone
and printed.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Section(NamedTuple):
    """A part of a page; the title heads it and leads to it. The body is HTML."""

    title: str
    body: str


def document(title: str, lead: str, facts: Iterable[tuple[str, str]], sections: Sequence[Section]) -> bytes:
    """The whole page.

    Args:
        title: plain text, as the labels and numbers of the facts.
        lead: HTML of the sentences below the title.
        facts: what to see first, as (label, number).
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
        f'<h1>{escape(title)}</h1><p class="lead">{lead}</p><dl class="facts">{numbers}</dl>'
        f"<nav>{links}</nav>{parts}</body></html>\n"
    )
    return page.encode(errors="backslashreplace")


def escape(text: str, length: int = 80) -> str:
    """Plain text as HTML; only what can be shown, and at most so many characters of it."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(short(shown, length))


def short(text: str, length: int) -> str:
    """The text, or as much of its beginning as fits into so many characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def percent(fraction: float, digits: int = 1) -> str:
    """A number without its sign: of 0.5, "50.0"; "n/a" for nan."""
    return "n/a" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Cells are HTML; the first of a row is its head. It scrolls sideways where the page is narrow."""
    top = "".join(f'<th scope="col">{cell}' for cell in head)
    lines = "".join(f'<tr><th scope="row">{first}{"".join(f"<td>{cell}" for cell in rest)}' for first, *rest in rows)
    text = f'<p class="note">{caption}</p>' if caption else ""
    return f'{text}<div class="wide"><table><thead><tr>{top}</thead><tbody>{lines}</tbody></table></div>'


def pairs(entries: Iterable[tuple[str, str]]) -> str:
    """Plain names, each with its plain value."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}<td>{escape(value)}' for name, value in entries)
    return f'<table class="pairs">{rows}</table>'


def bar(fraction: float, digits: int = 1) -> str:
    """A bar and its number in percent; just n/a for nan."""
    if math.isnan(fraction):
        return '<span class="number">n/a</span>'
    return f'<i class="bar" style="--w:{fraction:.3f}"></i><span class="number">{percent(fraction, digits)}</span>'


def swatch(color: tuple[int, int, int]) -> str:
    """A small square of a class's color."""
    return f'<i class="swatch" style="background:rgb{color}"></i>'.replace(", ", ",")


# the colors of Okabe and Ito, told apart by every eye; in the dark the brighter ones come first
CHART_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--soft:#5c5c5c;--line:#8883;--card:#f5f5f3;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#aa4b82;--c4:#8a6100;--c5:#333;--strong:#fff}
@media screen and (prefers-color-scheme:dark){:root{--paper:#141517;--ink:#e8e8e6;--soft:#a4a4a0;--line:#9994;
--card:#1e2023;--c0:#56b4e9;--c1:#e8792a;--c2:#2fbf93;--c3:#cc79a7;--c4:#e69f00;--c5:#ddd;--strong:#000}}
svg text{font-size:11.5px;fill:var(--ink)}
svg .strong{fill:var(--strong)}svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line)}svg .axis{stroke:var(--soft)}
svg .halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
"""
_STYLE = (
    CHART_STYLE
    + """*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;max-width:74rem;margin:0 auto;
padding:1.5rem 1.25rem 4rem;background:var(--paper);color:var(--ink)}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.4rem 0 .8rem;padding-top:.6rem;border-top:1px solid var(--line)}
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
.wide{overflow-x:auto;margin:.4rem 0 1rem}.wide svg{max-width:none}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;font-weight:500}thead th{font-weight:600;vertical-align:bottom}
td.text,.pairs td{text-align:left}.pairs td{white-space:normal;overflow-wrap:anywhere}.best{font-weight:700}
.number{display:inline-block;min-width:2.8em;text-align:right}
.bar{display:inline-block;vertical-align:middle;width:10rem;height:.7em;border-radius:2px;
background:linear-gradient(var(--c0) 0 0) 0 0/calc(100%*var(--w)) 100% no-repeat var(--line)}
.beside{display:flex;flex-wrap:wrap;gap:0 3rem;align-items:flex-start}.beside>*{min-width:0}
.slim .bar{width:4rem;height:.45em}
.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.45em;border:1px solid var(--line);border-radius:2px;
vertical-align:-.05em}
.key{display:inline-block;width:1.5em;height:0;vertical-align:.25em;margin:0 .35em 0 .5em}
figcaption span{white-space:nowrap}
.shown{display:grid;grid-template-columns:repeat(3,1fr);gap:.8rem;margin-bottom:1.6rem}
.shown img{display:block;width:100%;height:auto;border-radius:3px;image-rendering:auto}
.shown .said{font-size:.86rem}.shown .said p{margin:0 0 .5rem}.chips{display:flex;flex-wrap:wrap;gap:.1rem .9rem}
.chips span{white-space:nowrap}
pre{font-size:.82rem;line-height:1.4;background:var(--card);border-radius:6px;padding:.8rem 1rem;overflow-x:auto;
columns:22rem}
@media (max-width:50rem){body{padding:1rem .8rem 3rem}.shown{grid-template-columns:repeat(2,1fr);gap:.6rem}
.shown .said,.shown figure:nth-of-type(5){grid-column:1/-1}.bar{width:5rem}.facts div{flex:1 0 7rem}}
@media print{*{print-color-adjust:exact;-webkit-print-color-adjust:exact}body{max-width:none;padding:0;font-size:11px}
nav{display:none}figure,tr,.shown{break-inside:avoid}h2,h3{break-after:avoid}.wide{overflow:visible}
.wide svg{max-width:100%}pre{white-space:pre-wrap}}
"""
)
