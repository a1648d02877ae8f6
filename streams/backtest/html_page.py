"""What the pages that need no network are made of: one HTML file with plotly's script in it, tables and pictures.

Whatever a model, a contract or a file says is text here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
"""The palette of Okabe and Ito, which colour-blind people can tell apart, too; grey for black, which is lost on a dark
page."""
HEIGHT_PX = 380
_STYLE = """
:root{color-scheme:light dark;--text:#1a1a1a;--quiet:#444;--line:#ddd;--page:#fff}
@media(prefers-color-scheme:dark){:root{--text:#eee;--quiet:#bbb;--line:#444;--page:#16181d}}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:var(--text);
background:var(--page)}
h1{font-size:1.6rem;overflow-wrap:anywhere}h2{margin-top:2.5rem}p{color:var(--quiet);overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right}
.scroll{overflow-x:auto}.scroll th,.scroll td{white-space:nowrap}
.scroll th:nth-child(2),.scroll td:nth-child(2){text-align:left;white-space:normal;min-width:7rem}
.numbers .scroll th+th,.numbers .scroll td+td{text-align:right}
.numbers th:first-child,.numbers td:first-child{text-align:left}
.reasons .scroll td:last-child{white-space:normal;min-width:14rem}
.reasons td{overflow-wrap:anywhere}
.reasons td:first-child,.reasons th:first-child,.reasons td:last-child,.reasons th:last-child{text-align:left}
"""
_IN_COLORS_OF_THE_PAGE = """
const dark = matchMedia('(prefers-color-scheme: dark)');
function paint() {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue('--text'), line = style.getPropertyValue('--line');
  const page = style.getPropertyValue('--page');
  for (const picture of document.querySelectorAll('.js-plotly-plot')) {
    const colors = {'font.color': text, 'hoverlabel.bgcolor': page, 'hoverlabel.font.color': text};
    for (const axis of Object.keys(picture.layout).filter((key) => /^[xy]axis/.test(key))) {
      colors[axis + '.gridcolor'] = colors[axis + '.zerolinecolor'] = line;
    }
    Plotly.relayout(picture, colors);
  }
}
dark.addEventListener('change', paint);
paint();
"""
"""Plotly draws in colours of its own, so the pictures get those of the page, also when the scheme changes."""


def whole_page(title: str, parts: Iterable[str]) -> str:
    """The page of these parts."""
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body>{body}<script>{_IN_COLORS_OF_THE_PAGE}</script></body></html>\n"
    )


def heading(title: str, lines: Iterable[str]) -> str:
    """What stands on top."""
    return f"<h1>{escape(title)}</h1><p>{'<br>'.join(map(escape, lines))}</p>"


def section(title: str, text: str, content: str) -> str:
    """A part with its title, a sentence, and content that is HTML."""
    return f"<h2>{escape(title)}</h2><p>{escape(text)}</p>{content}"


def picture(figure: go.Figure, name: str) -> str:
    """A figure; `name` is its id in the page."""
    figure.update_layout(
        template="plotly_white",
        margin={"l": 60, "r": 10, "t": 10, "b": 10},
        hovermode="x unified",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    # A page as wide as a phone has no room beside a picture, so the legend stands below it.
    figure.update_xaxes(automargin=True)
    if figure.layout.height is None:
        figure.update_layout(height=HEIGHT_PX)
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
    )
    return html


def table(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def time_of(time_ms: int) -> str:
    """`2026-11-01 00:00 UTC`."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
