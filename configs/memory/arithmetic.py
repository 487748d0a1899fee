"""Sums, differences and products modulo 5, trained on up to 40 symbols and tested on up to 500.

Command:  python -m experiments.seeds memory configs/memory/arithmetic.py --seeds 0 1 2
Time:     3 to 7 minutes for each seed, on one core
Score:    accuracy over lengths 41 to 500, chance 0.2; seeds 0 to 2: lstm 0.82, 0.71, 0.91, gru 0.47, 0.85, 0.52; elman,
          min_gru and signed_min_gru between 0.198 and 0.203
"""

from experiments.memory import Data, Memory, Model, Train

config = Memory(
    data=Data(tasks=("arithmetic",), train_length=40, test_length=500),
    model=Model(cells=("elman", "lstm", "gru", "min_gru", "signed_min_gru"), width=64),
    train=Train(batch=64, updates=6000, learning_rate=1e-2),
)
