"""The 181 yearly series of the M1 competition, by one global model: the last six years of each.

Command:  python -m experiments.seeds forecast configs/forecast/m1_yearly.py --seeds 0 1 2
Time:     23 to 27 seconds of training on one core for each seed
Score:    MASE 3.202 ± 0.007 (seeds 0 to 2); drift 3.489, the base alone 3.475, naive 4.894
"""

from experiments.forecast import Data, Forecast, Model, Run, Train

config = Forecast(
    data=Data(
        data="m1_yearly",
        season=1,
        horizon=6,
        test=6,
        validation=6,
        stride=6,
        scaling="window",
        base="drift",
        context=20,
        shortest=3,
    ),
    model=Model(cell="lstm", members=8),
    train=Train(steps=500, learning_rate=5e-3),
    run=Run(eval_every=25),
)
