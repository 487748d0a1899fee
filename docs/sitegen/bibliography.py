"""One list of what the docstrings refer to."""


def page() -> str:
    return "# Bibliography\n"
