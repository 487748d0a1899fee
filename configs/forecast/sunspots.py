"""Yearly sunspots, 1700 to 2008: the next ten years, from every second year of the last sixty, by nets that correct an
autoregression of their square roots.

Command:  python -m experiments.seeds forecast configs/forecast/sunspots.py --seeds 0 1 2
Time:     68 to 85 seconds of training on one core for each seed
Score:    MASE 1.039 ± 0.006 (seeds 0 to 2); AutoReg 1.037, the autoregression alone 1.040, seasonal-naive 1.361
          Scaled CRPS 0.776 ± 0.002; AutoReg 0.817
"""

from experiments.forecast import Data, Forecast, Model, Run, Train

config = Forecast(
    data=Data(
        data="sunspots",
        season=11,
        horizon=10,
        test=60,
        validation=60,
        stride=2,
        transform="sqrt",
        base="autoreg",
        lags=9,
        context=24,
        shortest=45,
    ),
    model=Model(dropout=0.2, output="gaussian", members=8),
    train=Train(refits=6, steps=200),
    run=Run(eval_every=10),
)
