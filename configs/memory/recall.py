"""One symbol kept through 200 others: the minimal cells begin with gates that let in little, the others do not.

Command:  python -m experiments.memory configs/memory/recall.py
Time:     2.4 minutes on one core that had other work to do as well
Score:    accuracy, chance 0.125; seed 0: min_gru and min_lstm 1.000, after 250 updates; lstm, gru, orthogonal and
          signed_min_gru between 0.105 and 0.125 after 2000
"""

from experiments.memory.settings import Memory

config = Memory(
    tasks=("recall",),
    recall_delay=200,
    width=64,
    batch=32,
    updates=2000,
    learning_rate=1e-2,
)
