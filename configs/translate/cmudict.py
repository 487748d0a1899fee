"""Spelling into phonemes: the CMU pronouncing dictionary without stress.

Command:  python -m experiments.translate configs/translate/cmudict.py
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.translate.settings import Translate

config = Translate(data="cmudict", width=128, dropout=0.1, steps=15_000, learning_rate=4e-3, eval_every=750)
