"""Ten symbols kept for 100 steps: an LSTM stays near the plateau, which an orthogonal cell leaves at once.

Command:  python -m experiments.memory configs/memory/copy.py
Time:     4.6 minutes on one core
Score:    nats per step, where the plateau is 10 ln 8 / 120 = 0.173; seed 0: lstm 0.154, orthogonal 0.0077,
          min_gru 0.138
"""

from experiments.memory.settings import Memory

config = Memory(
    tasks=("copy",),
    cells=("lstm", "orthogonal", "min_gru"),
    copy_delay=100,
    width=128,
    batch=32,
    updates=4000,
    learning_rate=3e-3,
)
