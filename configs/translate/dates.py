"""Dates written in many ways, into ISO 8601.

Command:  python -m experiments.seeds translate configs/translate/dates.py --seeds 0 1 2
Time:     2 to 6 minutes for each seed, on one core and beside other work
Score:    0.0 % of the test dates wrong, with one hypothesis and with five (seeds 0 to 2)
"""

from experiments.translate import Data, Model, Run, Train, Translate

config = Translate(
    data=Data(data="dates"),
    model=Model(width=64, embed=32, dropout=0.1),
    train=Train(steps=1500, learning_rate=4e-3),
    run=Run(eval_every=150),
)
