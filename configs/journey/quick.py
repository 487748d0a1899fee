"""The journey of a hidden state: an Elman network of two units reads the corners of a square.

Command:  python -m experiments.journey configs/journey/quick.py [--animate]
Time:     18 seconds on one core, and about as long again for the animation
Score:    100 % of 4,096 test sequences classified right (seed 0); 40 of 64 restarts reach 99 % on validation
"""

from experiments.journey import Journey, Model

config = Journey(
    model=Model(nets=("elman",)),
)
