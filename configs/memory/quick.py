"""Five of the tasks, short, over the six cells.

Command:  python -m experiments.memory configs/memory/quick.py
Time:     4.3 minutes on one core, 2.8 of them training
Score:    seed 0: adding (mean squared error, chance 0.167): lstm 0.0016; copy (nats per step, plateau 0.520): lstm
          0.508, orthogonal 0.133; parity up to 100, trained up to 20 (accuracy, chance 0.5): lstm 1.000, min_gru
          0.499, signed_min_gru 1.000; delayed recall (accuracy, chance 0.125): lstm 0.377, min_gru 1.000

A model here is one cell and a dense layer: selective copy needs more layers of a minimal cell.
"""

from experiments.memory import Data, Memory, Model, Run, Train

config = Memory(
    data=Data(
        tasks=("adding", "copy", "parity", "selective_copy", "recall"),
        adding_length=50,
        copy_delay=20,
        train_length=20,
        test_length=100,
        selective_length=32,
        selective_tokens=4,
        recall_delay=30,
    ),
    model=Model(width=32),
    train=Train(batch=32, updates=1000, updates_per_step=50, learning_rate=1e-2),
    run=Run(
        eval_every=4,
        judged_by=(
            "lstm_adding",
            "lstm_copy",
            "orthogonal_copy",
            "lstm_parity",
            "min_gru_parity",
            "signed_min_gru_parity",
            "lstm_recall",
            "min_gru_recall",
        ),
    ),
)
