"""Pages of Markdown whose Python is run, block after block."""

import re
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def python_blocks(markdown: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", markdown, flags=re.DOTALL)


def run_blocks(markdown: str, name: str) -> dict[str, Any]:
    """Runs the Python of a page in order, and gives the names that it leaves."""
    with jax.numpy_rank_promotion("allow"):  # pages speak to users, whose JAX promotes ranks
        namespace: dict[str, Any] = {"__name__": name}
        exec(compile("\n".join(python_blocks(markdown)), name, "exec"), namespace)
    return namespace
