"""Scalable pictures as text, inlined into pages; colours come from `stylesheets/extra.css`, for light and dark."""

from html import escape
from typing import Any


def element(tag: str, *inside: str, **attributes: Any) -> str:
    """`class_` is class, `text_anchor` is text-anchor."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(show(value))}"' for key, value in attributes.items()
    )
    return f"<{tag}{shown}>{''.join(inside)}</{tag}>"


def show(value: Any) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "middle", sub: str = "") -> str:
    low = element("tspan", escape(sub), dy=4, class_="sub") if sub else ""
    return element("text", escape(content), low, x=x, y=y, class_=class_, text_anchor=anchor)


def box(x: float, y: float, width: float, height: float, class_: str = "", radius: float = 6) -> str:
    """A box, given its centre."""
    return element("rect", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=radius, class_=class_)


def arrow(points: list[tuple[float, float]], class_: str = "edge") -> str:
    """A smooth curve through points from top to bottom, vertical at both ends."""
    slopes = [0.0] * len(points)  # dx / dy
    for i in range(1, len(points) - 1):
        (x0, y0), (x1, y1), (x2, y2) = points[i - 1 : i + 2]
        before, after = (x1 - x0) / (y1 - y0), (x2 - x1) / (y2 - y1)
        slopes[i] = 2 * before * after / (before + after) if before * after > 0 else 0.0  # monotone in between
    (x, y), path = points[0], f"M{numbers(*points[0])}"
    for (to_x, to_y), slope, to_slope in zip(points[1:], slopes, slopes[1:], strict=False):
        reach = (to_y - y) / 2 if not slope and not to_slope else (to_y - y) / 3
        path += f" C{numbers(x + slope * reach, y + reach, to_x - to_slope * reach, to_y - reach, to_x, to_y)}"
        x, y = to_x, to_y
    return element("path", d=path, class_=class_, marker_end="url(#arrow)")


def numbers(*values: float) -> str:
    return " ".join(show(float(value)) for value in values)


def line(x1: float, y1: float, x2: float, y2: float, class_: str = "edge", head: bool = True) -> str:
    marker = {"marker_end": "url(#arrow)"} if head else {}
    return element("path", d=f"M{numbers(x1, y1)} L{numbers(x2, y2)}", class_=class_, **marker)


ARROW = element(
    "defs",
    element(
        "marker",
        element("path", d="M0 0 L8 4 L0 8 z", class_="head"),
        id="arrow",
        viewBox="0 0 8 8",
        refX=7,
        refY=4,
        markerWidth=7,
        markerHeight=7,
        orient="auto",
    ),
)


def figure(parts: list[str], width: float, height: float, description: str, caption: str = "") -> str:
    """A figure that shrinks to the page; a large one scrolls sideways rather than become too small to read."""
    drawing = element(
        "svg",
        element("title", escape(description)),
        ARROW,
        *parts,
        viewBox=f"0 0 {show(float(width))} {show(float(height))}",
        width=float(width),
        role="img",
        style=f"min-width: min({show(float(width))}px, {show(max(330.0, 0.62 * width))}px)",
    )
    below = element("figcaption", caption) if caption else ""
    return element("figure", element("div", drawing, class_="scroll"), below, class_="drawing")
