"""The hooks that MkDocs calls during a build: they add formulas, cell pages, the bibliography and links to names."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from sitegen import bibliography, cell_pages, drawings, mathml, tables
from sitegen.docstrings import outside_code
from sitegen.names import linked

MADE = re.compile(r"^<!-- (drawing|table): (\w+) -->$", re.M)
MAKERS = {"drawing": drawings.draw, "table": tables.make}


@event_priority(100)  # before mkdocstrings, which renders docstrings with the same extensions
def on_config(config: Any) -> Any:
    options = config["mdx_configs"]
    options.setdefault("pymdownx.superfences", {})["custom_fences"] = [
        {"name": "math", "class": "math", "format": mathml.fence}
    ]
    options.setdefault("pymdownx.inlinehilite", {})["custom_inline"] = [
        {"name": "math", "class": "math", "format": mathml.inline}
    ]
    for section in config["nav"]:
        if "Cells" in section:
            section["Cells"] += cell_pages.navigation()
    return config


def on_files(files: Files, config: Any) -> Files:
    for name, text in (cell_pages.pages() | {"bibliography.md": bibliography.page()}).items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    made = MADE.sub(lambda match: MAKERS[match[1]](match[2]), markdown)
    return outside_code(made, linked)
