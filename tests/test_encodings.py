"""Text is read and written as UTF-8, whatever the locale: every call says so."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def calls_without(source: str) -> list[int]:
    """Lines of calls that read or write text in the encoding of the locale."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        of, _, name = ast.unparse(node.func).rpartition(".")
        modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        binary = any(mode in ("rb", "wb", "ab") for mode in modes)
        of_a_file = name in ("read_text", "write_text") and of and of != "configs"
        if of_a_file or (name == "open" and of not in ("os", "Image") and not binary):
            lines.append(node.lineno)
    return lines


def test_every_file_is_opened_as_utf8() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in ("rnnx", "experiments", "configs")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := calls_without(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    wrong = "path.read_text()\nopen(p, 'w')\npath.open('rb')\nopen(p, encoding='utf-8')\nread_text(p)\npath.open()"
    assert calls_without(wrong) == [1, 2, 6]
