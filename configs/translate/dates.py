"""Dates written in many ways, into ISO 8601.

Command:  python -m experiments.translate configs/translate/dates.py
Time:     6 minutes on two cores that had much other work
Score:    0.0 % of the test dates wrong, with one hypothesis and with five (seed 0)
"""

from experiments.translate.settings import Translate

config = Translate(data="dates", width=64, embed=32, dropout=0.1, steps=1500, learning_rate=4e-3, eval_every=150)
