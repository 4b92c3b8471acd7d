"""The page around the sections: style, head, safe text."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STYLE = Path(__file__).with_name("style.css")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page."""

    title: str
    body: str
    """HTML; text in it is escaped."""
    note: str = ""


def render(title: str, subtitle: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Build the page.

    Args:
        title: heading and window title.
        subtitle: one line under it.
        facts: the most wanted figures by name.
        sections: in order.
    """
    shown = "".join(
        f'<div class="fact"><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>'
        for name, value in facts.items()
    )
    body = "".join(
        f"<section><h2>{html.escape(one.title)}</h2>"
        + (f'<p class="note">{html.escape(one.note)}</p>' if one.note else "")
        + f"{one.body}</section>"
        for one in sections
    )
    # An empty icon: without it browsers ask the server for one and note the failure in their console.
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text()}</style></head><body><main>"
        f'<header><h1>{html.escape(title)}</h1><p class="sub">{html.escape(subtitle)}</p>'
        f'<div class="facts">{shown}</div></header>{body}</main></body></html>\n'
    )


def card(title: str, body: str) -> str:
    """Frame a chart."""
    return f'<div class="card"><h3>{html.escape(title)}</h3>{body}</div>'


def grid(*cards: str, kind: str = "grid2") -> str:
    """Put cards beside each other where there is room."""
    return f'<div class="{kind}">{"".join(cards)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Build a table that scrolls on narrow screens."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def folded(title: str, text: str) -> str:
    """Hide long text behind a line."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
