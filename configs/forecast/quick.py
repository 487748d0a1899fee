"""A noisy sine, beside the statistics that were made for it.

Command:  python -m experiments.forecast configs/forecast/quick.py
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.forecast import Forecast

config = Forecast(
    data="sine",
    season=20,
    horizon=20,
    test=200,
    validation=200,
    stride=5,
    context=80,
    shortest=80,
    cell="lru",
    steps=400,
    eval_every=20,
)
