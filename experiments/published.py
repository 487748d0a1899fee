"""Published figures beside which `experiments.report` sets the scores, and where each of them stands."""

from typing import NamedTuple


class Published(NamedTuple):
    figure: float
    source: str
    """Short enough for a table; what differs from our set-up is said here."""


PUBLISHED: dict[tuple[str, str, str], list[Published]] = {
    ("char_lm", "shakespeare_quick", "val_nats_per_char"): [
        Published(1.88, "nanoGPT's CPU recipe, same budget"),
    ],
    ("char_lm", "shakespeare", "val_nats_per_char"): [
        Published(1.4697, "nanoGPT's GPU baby model"),
        Published(1.548, "minGRU, arXiv 2410.01201"),
    ],
}
"""`(experiment, config, metric) -> figures`."""
