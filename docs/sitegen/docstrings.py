"""Docstrings as the Markdown of the site: Sphinx's `math`, literal blocks, Google's sections, names as links.

Griffe, which reads the sources for mkdocstrings, loads `Docstrings` as an extension. Griffe itself handles `Args:` and
`Attributes:`, and adds types and defaults.
"""

import re
import textwrap
import unicodedata
from typing import Any

import griffe

from sitegen.cell_table import GLANCE
from sitegen.names import linked

BLOCK = r"(?P<body>(?:(?P=indent) +[^\n]*\n|[ \t]*\n)+)"
MATH = re.compile(rf"^(?P<indent> *)\.\. math::[ \t]*\n{BLOCK}", re.M)
LITERAL = re.compile(rf"^(?P<indent> *)(?P<text>[^\n]*[^\s:.])::[ \t]*\n{BLOCK}", re.M)
SECTION = re.compile(rf"^(?P<indent> *)(?P<title>Returns|Raises|Example):[ \t]*\n{BLOCK}", re.M)
PARAGRAPH = re.compile(r"^(References?|Example[^:\n]*|Other libraries|Noise):", re.M)
GREEK = {name.lower(): chr(code) for code in range(0x3B1, 0x3CA) for name in [unicodedata.name(chr(code)).split()[-1]]}
GREEK |= {name.capitalize(): letter.upper() for name, letter in GREEK.items()}
GREEK["lambda"], GREEK["Lambda"] = "λ", "Λ"  # which Unicode spells lamda


class Docstrings(griffe.Extension):
    """Rewrites all docstrings of a package, before they are parsed."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        rewrite(pkg)
        for module in pkg.modules.values():
            show_what_is_imported(module)


def rewrite(of: griffe.Object) -> None:
    if of.docstring:
        of.docstring.value = markdown(of.docstring.value, own=of.path)
    for member in of.members.values():
        if isinstance(member, griffe.Object):
            rewrite(member)


def show_what_is_imported(package: griffe.Module) -> None:
    """`from rnnx.cells.lstm import lstm` hides the module `rnnx.cells.lstm`; Griffe would show the module."""
    for name, target in package.imports.items():
        member = package.members.get(name)
        if isinstance(member, griffe.Module) and target == f"{member.path}.{name}":
            package.members[name] = griffe.Alias(name, member.members[name], parent=package)


def markdown(docstring: str, own: str = "") -> str:
    """The docstring of `own`, without links to itself."""
    text = GLANCE.sub("", docstring.rstrip() + "\n")  # the page says it elsewhere
    text = MATH.sub(lambda m: fenced(m, "math"), text)
    text = SECTION.sub(section, text)
    text = LITERAL.sub(
        lambda m: f"{m['indent']}{m['text']}:\n\n" + fenced(m, "pycon" if ">>>" in m["body"] else ""), text
    )
    text = re.sub(r":math:`([^`]+)`", lambda m: f"`#!math {' '.join(m[1].split())}`", text)
    text = each_alone(text)
    text = PARAGRAPH.sub(r"**\1**:", text)
    return outside_code(text, lambda prose: linked(greek(prose), own))


def each_alone(text: str) -> str:
    """Splits arguments that are explained together: each gets the first sentence, the last gets all of them."""

    def alone(match: re.Match[str]) -> str:
        *others, last = match["names"].split(", ")
        first = re.split(r"(?<=\.)\s", match["body"], maxsplit=1)[0].rstrip()
        return "".join(f"    {name}: {first}\n" for name in others) + f"    {last}: {match['body']}"

    return re.sub(r"^ {4}(?P<names>\w+(?:, \w+)+): (?P<body>[^\n]*\n(?: {5,}[^\n]*\n)*)", alone, text, flags=re.M)


def fenced(match: re.Match[str], language: str) -> str:
    body = textwrap.dedent(match["body"]).strip("\n")
    return textwrap.indent(f"```{language}\n{body}\n```\n", match["indent"]) + "\n"


def section(match: re.Match[str]) -> str:
    body = textwrap.dedent(match["body"]).strip("\n")
    if match["title"] == "Raises":
        body = re.sub(r"^((?:\w+, )*\w+): (?=\S)", lambda m: f"`{m[1]}`: ".replace(", ", "`, `"), body, flags=re.M)
        body = re.sub(r"\n(?=`\w+)", "\n\n", body)
    return textwrap.indent(f"**{match['title']}**: {body}\n", match["indent"]) + "\n"


def greek(prose: str) -> str:
    r"""In prose, writes letters such as `\lambda` in Unicode and functions such as `\log` by name; skips code."""
    pieces = re.split(r"(`[^`]*`)", prose)
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"\\([A-Za-z]+)", lambda m: GREEK.get(m[1], m[1]), pieces[i])
    return "".join(pieces)


def outside_code(text: str, change: Any) -> str:
    """Applies `change` to the text outside of fences."""
    pieces = re.split(r"(^ *```.*?^ *```[ \t]*$)", text, flags=re.M | re.S)
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))
