"""One symbol kept through 200 others: the minimal cells start with nearly closed input gates, the others do not.

Command:  python -m experiments.seeds memory configs/memory/recall.py --seeds 0 1 2
Time:     3 minutes for each seed, on one core
Score:    accuracy, chance 0.125; seeds 0 to 2: min_gru and min_lstm 1.000; lstm, gru, orthogonal and signed_min_gru
          between 0.105 and 0.133
"""

from experiments.memory import Data, Memory, Model, Train

config = Memory(
    data=Data(tasks=("recall",), recall_delay=200),
    model=Model(width=64),
    train=Train(batch=32, updates=2000, learning_rate=1e-2),
)
