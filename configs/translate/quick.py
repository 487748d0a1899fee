"""Spelling into phonemes in a few minutes: a small model, few updates.

Command:  python -m experiments.translate configs/translate/quick.py
Time:     3 minutes on two cores
Score:    9.9 % of the phonemes wrong, 39.9 % of the words (seed 0, five hypotheses)
"""

from experiments.translate import Data, Model, Run, Train, Translate

config = Translate(
    data=Data(data="cmudict"),
    model=Model(width=128, dropout=0.1),
    train=Train(steps=1500, learning_rate=4e-3),
    run=Run(eval_every=500),
)
