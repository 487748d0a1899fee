"""The King James Bible: the run to begin with; it ends in readable verses.

Command:  python -m experiments.char_lm configs/char_lm/kjv.py
Time:     TODO-FIGURE on two cores
Score:    TODO-FIGURE nats per character on the last 5 % of the text (seed 0)
"""

from experiments.char_lm import CharLM

# Of a text this long a twentieth is a validation text long enough, and one stream of it is read in half the time.
config = CharLM(corpus="kjv", train_fraction=0.95)
