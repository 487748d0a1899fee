"""Five nets of two units each: Elman, GRU, LSTM, two Elman layers, an Elman network in both directions.

Command:  python -m experiments.seeds journey configs/journey/full.py --seeds 0 1 2
Time:     1.5 minutes for each seed on one core, the animation (--animate) included
Score:    share of 4,096 test sequences classified right, mean of seeds 0, 1 and 2: elman 99.95 % (100, 100, 99.85), all
          others 100 %. Of 64 restarts of elman 40, 44 and 41 reach 99 % on the validation sequences, of the others
          at least 62
"""

from experiments.journey import Journey, Model

config = Journey(
    model=Model(nets=("elman", "gru", "lstm", "stacked", "bidirectional")),
)
