"""The King James Bible, word by word: the 8,000 most frequent words and symbols, with the space before them.

Command:  python -m experiments.char_lm configs/char_lm/kjv_words.py
Time:     4 minutes for each seed, on one core
Score:    4.708 ± 0.004 nats per word on the last 5 % of the text (mean and standard deviation of seeds 0 to 2)
"""

from experiments.char_lm import CharLM, Data, Model, Run, Train

config = CharLM(
    data=Data(corpus="kjv", level="word", words=8000, train_fraction=0.95),
    model=Model(width=256, embed=128, dropout=0.3),
    train=Train(
        batch=10,
        time=64,
        reset_probability=0.1,
        steps=1200,
        learning_rate=4e-3,
        warmup=50,
        final_lr_fraction=0.0,
        beta2=0.99,
    ),
    run=Run(eval_every=200, eval_chars=20_000, sample_length=200),
)
