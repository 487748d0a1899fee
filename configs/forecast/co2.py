"""CO2 at Mauna Loa, monthly: the next year, from every half year of the last ten.

Command:  python -m experiments.seeds forecast configs/forecast/co2.py --seeds 0 1 2
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.forecast import Forecast

config = Forecast(
    data="co2",
    fill="linear",
    season=12,
    horizon=12,
    test=120,
    validation=60,
    stride=6,
    scaling="window",
    base="seasonal",
    context=120,
    shortest=120,
    cell="lru",
    steps=200,
    eval_every=10,
)
