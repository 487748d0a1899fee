"""A language model of characters, bytes or words, trained by truncated back-propagation through time.

python -m experiments.char_lm configs/char_lm/kjv.py [overrides]
python -m experiments.char_lm sample RUN --prime "In the beginning" --length 500
python -m experiments.char_lm compare configs/char_lm/kjv.py --cells lstm gru min_gru [-- overrides]
"""

from experiments.char_lm.config import CharLM, Data, Model, Run, Train

__all__ = ["CharLM", "Data", "Model", "Run", "Train"]
