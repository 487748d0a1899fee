"""Cells beside each other: the King James Bible by characters, a small model of each cell under the same settings.

Command:  python -m experiments.char_lm compare configs/char_lm/cells.py
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.char_lm import CharLM

config = CharLM(
    corpus="kjv",
    train_fraction=0.95,
    width=256,
    embed=64,
    dropout=0.1,
    batch=10,
    time=64,
    reset_probability=0.1,
    steps=800,
    learning_rate=4e-3,
    warmup=50,
    final_lr_fraction=0.0,
    beta2=0.99,
    eval_every=100,
)
