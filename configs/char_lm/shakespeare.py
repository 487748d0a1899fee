"""Tiny shakespeare at full length.

Command:  python -m experiments.char_lm configs/char_lm/shakespeare.py
Time:     TODO-FIGURE on two cores
Score:    TODO-FIGURE nats per character on the last 10 % of the text (seed 0)
"""

from experiments.char_lm import CharLM

config = CharLM(
    corpus="shakespeare",
    width=512,
    batch=16,
    time=128,
    dropout=0.4,
    steps=6000,
    eval_every=250,
)
