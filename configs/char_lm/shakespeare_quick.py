"""Tiny shakespeare within a budget of 1.5 million training characters.

Command:  python -m experiments.char_lm configs/char_lm/shakespeare_quick.py
Time:     TODO-FIGURE on two cores
Score:    TODO-FIGURE nats per character on the last 10 % of the text (seed 0)
"""

from experiments.char_lm import CharLM

config = CharLM(corpus="shakespeare", width=384, batch=16, time=64, steps=1400)
