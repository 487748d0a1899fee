"""The drawings of the pages, by name."""


def draw(name: str) -> str:
    return ""
