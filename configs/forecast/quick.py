"""A noisy sine, beside the statistical methods that suit it.

Command:  python -m experiments.forecast configs/forecast/quick.py
Time:     73 seconds on one core, of which 30 are training
Score:    MASE 0.699 (seed 0); exponential smoothing 0.677, seasonal-naive 0.932
"""

from experiments.forecast import Data, Forecast, Model, Run, Train

config = Forecast(
    data=Data(data="sine", season=20, horizon=20, test=200, validation=200, stride=5, context=80, shortest=80),
    model=Model(cell="lru"),
    train=Train(steps=400),
    run=Run(eval_every=20),
)
