"""Sums, differences and products modulo 5, trained on up to 40 symbols and tested on up to 500.

Command:  python -m experiments.memory configs/memory/arithmetic.py
Time:     7.0 minutes on one core that had other work to do as well
Score:    accuracy over lengths 41 to 500, chance 0.2; seed 0: lstm 0.817, gru 0.471; elman 0.202, min_gru 0.202 and
          signed_min_gru 0.200
"""

from experiments.memory.settings import Memory

config = Memory(
    tasks=("arithmetic",),
    cells=("elman", "lstm", "gru", "min_gru", "signed_min_gru"),
    train_length=40,
    test_length=500,
    width=64,
    batch=64,
    updates=6000,
    learning_rate=1e-2,
)
