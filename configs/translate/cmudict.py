"""Spelling into phonemes: the CMU pronouncing dictionary without stress.

Command:  python -m experiments.translate configs/translate/cmudict.py
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.translate.settings import Translate

config = Translate(data="cmudict", steps=12_000, eval_every=600)
