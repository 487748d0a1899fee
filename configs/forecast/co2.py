"""CO2 at Mauna Loa, monthly: the next year, from every third month of the last ten, by nets that correct an
autoregression.

Command:  python -m experiments.seeds forecast configs/forecast/co2.py --seeds 0 1 2
Time:     41 seconds of training on one core for each seed
Score:    MASE 0.388 ± 0.001 (seeds 0 to 2); AutoReg 0.374, the autoregression alone 0.403, seasonal-naive 1.270
"""

from experiments.forecast import Data, Forecast, Model, Run, Train

config = Forecast(
    data=Data(
        data="co2",
        fill="linear",
        season=12,
        horizon=12,
        test=120,
        validation=72,
        stride=3,
        scaling="window",
        base="autoreg",
        lags=36,
        context=36,
        shortest=120,
    ),
    model=Model(dropout=0.2),
    train=Train(refits=5, steps=160),
    run=Run(eval_every=10),
)
