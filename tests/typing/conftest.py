"""Programs for type checkers, not for pytest."""

collect_ignore_glob = ["*.py"]
