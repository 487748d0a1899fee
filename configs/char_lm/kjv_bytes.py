"""The King James Bible, byte by byte.

Command:  python -m experiments.char_lm configs/char_lm/kjv_bytes.py
Time:     2 minutes for each seed, on one core
Score:    1.406 ± 0.002 nats per byte on the last 5 % of the text (mean and standard deviation of seeds 0 to 2)
"""

from experiments.char_lm import CharLM, Data, Model, Run, Train

config = CharLM(
    data=Data(corpus="kjv", level="byte", train_fraction=0.95),
    model=Model(width=384, embed=64, dropout=0.1),
    train=Train(
        batch=10,
        time=64,
        reset_probability=0.1,
        steps=2000,
        learning_rate=8e-3,
        warmup=50,
        final_lr_fraction=0.0,
        beta2=0.99,
    ),
    run=Run(eval_every=400),
)
