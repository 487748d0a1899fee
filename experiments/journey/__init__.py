"""The hidden state made visible: corners of a square in order or in reverse, distinguished by two hidden units.

python -m experiments.journey configs/journey/quick.py [overrides]
python -m experiments.journey configs/journey/quick.py --animate

A net reads the four corners of a square, one at each time step, and says at the end in which direction they came.
Its state has two numbers, so every state is a point of a plane, and each part of a step (the recurrent
transform, the input transform, the activation) is a move within it. Each run draws these moves: for an Elman network
arrow by arrow and by their effect on the whole plane, for GRU and LSTM with the gates, for two layers and for both
directions plane by plane. `--animate` adds an animation of the Elman network's plane; for a finished run, it is drawn
from the checkpoint.
"""

from experiments.journey.config import Data, Journey, Model, Run, Train

__all__ = ["Data", "Journey", "Model", "Run", "Train"]
