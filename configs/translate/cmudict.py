"""Spelling into phonemes: the CMU pronouncing dictionary without stress.

Command:  python -m experiments.translate configs/translate/cmudict.py
Time:     18 minutes on two cores
Score:    7.3 % of the phonemes wrong, 30.4 % of the words (seed 0, five hypotheses)
"""

from experiments.translate import Data, Model, Run, Train, Translate

config = Translate(
    data=Data(data="cmudict"),
    model=Model(width=128, dropout=0.1),
    train=Train(steps=12_000, learning_rate=4e-3),
    run=Run(eval_every=600),
)
