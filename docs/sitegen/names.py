"""The public names, and links to where each is documented."""

import functools
import importlib
import inspect
import re
from types import ModuleType

MODULES = ("rnnx", "rnnx.cells", "rnnx.online", "rnnx.interop", "rnnx.linen", "rnnx.nnx", "rnnx.testing")


@functools.cache
def public_names() -> tuple[str, ...]:
    """Every public function and class by its full name; a layer and its cell count as two."""
    found = []
    for module in MODULES:
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        found += [f"{module}.{name}" for name in exported(loaded) if not inspect.ismodule(getattr(loaded, name))]
    return tuple(found)


def exported(module: ModuleType) -> tuple[str, ...]:
    return tuple(module.__all__)


def linked(prose: str, own: str = "") -> str:
    """Markdown in which every public name in code, called or not, is a link, except `own`."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        return f"[{match[0]}][{name}]" if name in public_names() and name != own else match[0]

    return re.sub(r"(?<![\[`])`(rnnx\.[\w.]+)(?:\([^`\n]*\))?`(?![`\]])", link, prose)
