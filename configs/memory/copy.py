"""Ten symbols kept for 100 steps: an LSTM stays near the plateau, an orthogonal cell leaves it at once.

Command:  python -m experiments.seeds memory configs/memory/copy.py --seeds 0 1 2
Time:     5 minutes for each seed, on one core
Score:    nats per step, where the plateau is 10 ln 8 / 120 = 0.173; mean of seeds 0 to 2: lstm 0.160, orthogonal
          0.0089 (0.0077, 0.0144, 0.0046), min_gru 0.139
"""

from experiments.memory import Data, Memory, Model, Train

config = Memory(
    data=Data(tasks=("copy",), copy_delay=100),
    model=Model(cells=("lstm", "orthogonal", "min_gru"), width=128),
    train=Train(batch=32, updates=4000, learning_rate=3e-3),
)
