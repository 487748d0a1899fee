"""Parity, trained on at most 40 bits and tested on up to 500: nonlinear cells, and both kinds of linear ones.

Command:  python -m experiments.seeds memory configs/memory/parity.py --seeds 0 1 2 3 4
Time:     1.2 to 1.9 minutes for each seed, on one core
Score:    accuracy over lengths 41 to 500, chance 0.5; mean of five seeds (worst to best):
          lstm, gru and signed_min_gru 1.000 (1.000 to 1.000); min_gru 0.500 (0.499 to 0.500); min_lstm 0.500 (0.499
          to 0.501)
"""

from experiments.memory import Data, Memory, Model, Train

config = Memory(
    data=Data(tasks=("parity",), train_length=40, test_length=500),
    model=Model(cells=("lstm", "gru", "min_gru", "min_lstm", "signed_min_gru"), width=64),
    train=Train(batch=64, updates=2000, learning_rate=1e-2),
)
