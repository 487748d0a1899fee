"""Lists the experiments.

python -m experiments
"""

import ast
from collections.abc import Sequence
from pathlib import Path

from experiments import command

HERE = Path(__file__).parent


def experiments() -> dict[str, str]:
    """Name -> first line of the docstring, for each package here that has configs."""
    lines = {}
    for path in sorted(HERE.glob("*/__init__.py")):
        name = path.parent.name
        if (HERE.parent / "configs" / name).is_dir() or name == "speed":
            lines[name] = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
    return lines


def main(args: Sequence[str]) -> None:
    for name, line in experiments().items():
        files = sorted(str(path.relative_to(HERE.parent)) for path in (HERE.parent / "configs" / name).glob("*.py"))
        print(f"python -m experiments.{name:<10} {line}")
        for file in files:
            print(f"    {file}")
    print("\nTo start a run, give its config; --help lists all settings:")
    print("    python -m experiments.char_lm configs/char_lm/kjv.py --help")
    print("One config with several seeds: python -m experiments.seeds; all results: python -m experiments.report")


if __name__ == "__main__":
    command.run(main)
