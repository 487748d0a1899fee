"""CO2 at Mauna Loa, monthly: the next year, from every half year of the last ten.

Command:  python -m experiments.seeds forecast configs/forecast/co2.py --seeds 0 1 2
Time:     33 seconds of training on one core for each seed
Score:    MASE 0.437 ± 0.002 (seeds 0 to 2); AutoReg 0.360, seasonal-naive 1.263
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
