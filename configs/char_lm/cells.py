"""A comparison of cells: the King James Bible by characters, a small model of each cell under the same settings.

Command:  python -m experiments.char_lm compare configs/char_lm/cells.py
Time:     3 minutes for each seed, on one core
Score:    nats per character on the last 5 % of the text (mean and standard deviation of seeds 0 to 2): gru 1.583 ±
          0.004, mgu 1.620 ± 0.004, slstm 1.660 ± 0.008, elman 1.715 ± 0.003, lstm 1.719 ± 0.006, min_lstm 1.968 ±
          0.006, min_gru 1.982 ± 0.008
"""

from experiments.char_lm import CharLM, Data, Model, Run, Train

config = CharLM(
    data=Data(corpus="kjv", train_fraction=0.95),
    model=Model(width=256, embed=64, dropout=0.1),
    train=Train(
        batch=10,
        time=64,
        reset_probability=0.1,
        steps=800,
        learning_rate=4e-3,
        warmup=50,
        final_lr_fraction=0.0,
        beta2=0.99,
    ),
    run=Run(eval_every=100),
)
