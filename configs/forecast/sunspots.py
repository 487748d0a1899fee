"""Yearly sunspots, 1700 to 2008: the next ten years, from every second year of the last sixty.

Command:  python -m experiments.seeds forecast configs/forecast/sunspots.py --seeds 0 1 2
Time:     21 seconds of training on one core for each seed
Score:    MASE 1.353 ± 0.023 (seeds 0 to 2); AutoReg 1.037, seasonal-naive 1.361
"""

from experiments.forecast import Forecast

config = Forecast(
    data="sunspots",
    season=11,
    horizon=10,
    test=60,
    validation=50,
    stride=2,
    transform="sqrt",
    context=24,
    shortest=12,
    cell="gru",
    dropout=0.2,
    steps=300,
    eval_every=15,
)
