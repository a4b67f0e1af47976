"""Markdown of text that others wrote: shown as it is, whatever signs are in it."""

import html
import re
from collections.abc import Sequence
from typing import Any


def text(content: Any) -> str:
    """Gives text in one line, without a meaning as Markdown, HTML or link."""
    line = " ".join(str(content).split())
    return re.sub(r"([\\`*_{}\[\]()#|~!])", r"\\\1", html.escape(line, quote=False))


def code(content: Any) -> str:
    """Gives text as code in a line, also for a table and with backticks in it."""
    line = " ".join(str(content).split()).replace("|", "\\|")
    if not line:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    gap = " " if "`" in line else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def fenced(language: str, content: str) -> str:
    """Gives lines of code, also with fences in them."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{language}\n{content}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Gives a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
