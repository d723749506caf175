"""The frame of every HTML page: one file, no network, light and dark, readable without scripts and on paper."""

from __future__ import annotations

from html import escape
from importlib.resources import files

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(title: str, body: str) -> str:
    """Return a self-contained page.

    Args:
        title: plain text.
        body: HTML whose texts are escaped.
    """
    assets = files("narrows.reporting")
    style = assets.joinpath("_page.css").read_text(encoding="utf-8")
    script = assets.joinpath("_page.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>\n{style}</style></head>\n<body><main>\n'
        f"{body}\n</main>\n<script>\n{script}</script></body></html>\n"
    )
