"""Spelling into phonemes in a few minutes: a small model, few updates.

Command:  python -m experiments.translate configs/translate/quick.py
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.translate.settings import Translate

config = Translate(data="cmudict", width=128, dropout=0.1, steps=1500, learning_rate=4e-3, eval_every=500)
