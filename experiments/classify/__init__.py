"""Classifying sequences of different lengths: series of numbers, or texts by their characters.

python -m experiments.classify configs/classify/japanese_vowels.py [overrides]
python -m experiments.classify configs/classify/japanese_vowels.py --data MY_TRAIN.ts
python -m experiments.classify configs/classify/names.py --data names.tsv

A `.ts` file of the UCR and UEA archives is read from its path, with MY_TEST.ts beside it or as --test-data; lines of
`label<TAB>text` are split by the seed, in each class by itself, unless --test-data is given. The trained network reads
the test twice: with pads after each sequence, and with several sequences packed into a row. Both must give the same.
"""

from experiments.classify.config import Classify, Data, Model, Run, Train

__all__ = ["Classify", "Data", "Model", "Run", "Train"]
