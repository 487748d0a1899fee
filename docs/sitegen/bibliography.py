"""One list of the works that docstrings cite, and of where they are cited."""

import functools
import importlib
import inspect
import re
import unicodedata
from collections.abc import Iterator

import rnnx
from sitegen.names import public_names

PARAGRAPH = re.compile(r"^References?: (.*?)(?:\n\n|\Z)", re.M | re.S)
ARXIV = re.compile(r"arXiv\s(\d{4}\.\d{4,5})")
DATED = re.compile(r".*(?:arXiv \d{4}\.\d{4,5}|\b(?:19|20)\d\d\b(?!\.\d))(?: \(\d{4}\))?\)?", re.S)


def page() -> str:
    lines = [
        "# Bibliography",
        "",
        "What the docstrings refer to, collected from them, with the names whose docstrings do.",
        "",
    ]
    for entry, names in sorted(entries().items(), key=lambda item: surname(item[0])):
        links = " ".join(f"[`{name}`][{name}]" for name in names)
        linked = ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", entry)
        lines.append(f"- {linked}.<br>{links}")
    return "\n".join(lines) + "\n"


@functools.cache
def entries() -> dict[str, list[str]]:
    """The names that cite each entry. Layers are left out: a layer has the docstring of its cell."""
    found: dict[str, list[str]] = {}
    for name in public_names():
        module, _, last = name.rpartition(".")
        if module == "rnnx" and last in rnnx.cells.__all__:
            continue
        for entry in references(inspect.getdoc(getattr(importlib.import_module(module), last)) or ""):
            found.setdefault(entry, []).append(name)
    return merged(found)


def merged(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """One entry for each arXiv number: the longest one."""
    fullest: dict[str, str] = {}
    for entry in found:
        number = ARXIV.search(entry)
        key = number[1] if number else entry
        fullest[key] = max(fullest.get(key, ""), entry, key=len)
    result: dict[str, list[str]] = {}
    for entry, names in found.items():
        number = ARXIV.search(entry)
        result.setdefault(fullest[number[1] if number else entry], []).extend(names)
    return result


def references(docstring: str) -> Iterator[str]:
    """Each work in the paragraph of references: authors, title in italics, where and when."""
    for paragraph in PARAGRAPH.findall(docstring):
        text = " ".join(paragraph.split())
        for piece in re.split(r"; |(?<=[a-z\d)])\. (?=[A-Z])", text):
            dated = DATED.match(re.sub(r"^(?:and )?[\w \-]+: (?=[A-Z]\. ?[A-Z\w])", "", piece))
            if dated:
                yield dated[0] + ")" * (dated[0].count("(") - dated[0].count(")"))


def surname(entry: str) -> str:
    """The first author's surname, in lower case without accents."""
    author = re.split(r",| and | et al", entry)[0].split()[-1]
    return unicodedata.normalize("NFKD", author).encode("ascii", "ignore").decode().lower()
