"""A noisy sine, by nets that correct a line and a seasonal pattern fitted to twenty periods.

Command:  python -m experiments.seeds forecast configs/forecast/sine.py --seeds 0 1 2
Time:     81 to 86 seconds of training on one core for each seed
Score:    MASE 0.691 ± 0.001 (seeds 0 to 2); exponential smoothing 0.677, the pattern alone 0.688, seasonal-naive 0.932
"""

from experiments.forecast import Data, Forecast, Model, Run, Train

config = Forecast(
    data=Data(
        data="sine",
        season=20,
        horizon=20,
        test=200,
        validation=200,
        stride=5,
        base="seasonal",
        context=400,
        shortest=200,
    ),
    model=Model(cell="lru"),
    train=Train(refits=2, steps=120),
    run=Run(eval_every=20),
)
