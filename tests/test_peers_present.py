"""What the tests compare with is there: else those that need it would be skipped without a word."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRA = re.findall(r'^  "([\w-]+)==([\w.]+)(.*?)",', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
PINNED = re.findall(
    r"^([\w-]+)==([\w.]+)()$", (ROOT / "tests" / "parity" / "peers.txt").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize(("name", "version", "marker"), EXTRA + PINNED)
def test_installed_as_readme_does(name, version, marker):
    if "python_version < '3.12'" in marker and sys.version_info >= (3, 12):
        return  # torch's CPU wheel, and what needs it
    assert importlib.metadata.version(name).split("+")[0] == version, "install with the test command of README"


def test_the_list_is_read():
    names = {name for name, _, _ in EXTRA + PINNED}
    assert {"torch", "keras", "dm-haiku", "equinox", "ncps", "fla-core", "xlstm", "g2p_en"} <= names
