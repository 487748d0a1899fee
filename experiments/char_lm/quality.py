"""What can be said of a written text without reading it."""

import re

WORD = re.compile(r"\w+(?:['’]\w+)*")


def quality(text: str, training: str) -> dict[str, float]:
    """Of a written text, beside the text that was trained on.

    `known_words`: the share of its words that occur there (is the spelling right?). `distinct_words`: the share of
    different ones among them (does it repeat itself?). `longest_copy`: characters of the longest passage that stands
    there word for word (does it only recite?).
    """
    words, known = WORD.findall(text.lower()), set(WORD.findall(training.lower()))
    longest = 0
    for start in range(len(text)):
        while start + longest < len(text) and text[start : start + longest + 1] in training:
            longest += 1
    return {
        "known_words": sum(word in known for word in words) / max(len(words), 1),
        "distinct_words": len(set(words)) / max(len(words), 1),
        "longest_copy": longest,
    }
