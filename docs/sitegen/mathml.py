"""LaTeX as MathML, which browsers draw without a script: fences of `math`, and `#!math ...` within a line."""

from typing import Any

from latex2mathml.converter import convert


def fence(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **rest: Any) -> str:
    """A display formula, for `pymdownx.superfences`."""
    return f'<div class="formula">{convert(aligned(source), display="block")}</div>'


def inline(source: str, language: str, css_class: str, md: Any) -> str:
    """An inline formula, for `pymdownx.inlinehilite`."""
    return convert(source)


def aligned(source: str) -> str:
    """Several lines are aligned at their `&`, as Sphinx's `math` directive does."""
    if r"\\" not in source and "&" not in source:
        return source
    return rf"\begin{{split}}{source}\end{{split}}"
