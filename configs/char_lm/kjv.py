"""The King James Bible: the run to begin with; it ends in readable verses.

Command:  python -m experiments.char_lm configs/char_lm/kjv.py
Time:     2.3 minutes of training on two cores, 2.8 in all
Score:    1.348 ± 0.005 nats per character on the last 5 % of the text (mean and standard deviation of seeds 0 to 2)
"""

from experiments.char_lm import CharLM, Data, Model, Run, Train

config = CharLM(
    data=Data(
        corpus="kjv",
        train_fraction=0.95,  # a twentieth of a text this long is enough, and scoring it takes half the time
    ),
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
