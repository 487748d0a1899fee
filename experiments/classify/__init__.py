"""Classifying sequences of different lengths: series of numbers, or texts by their characters.

python -m experiments.classify configs/classify/japanese_vowels.py [overrides]
python -m experiments.classify configs/classify/japanese_vowels.py --data MY_TRAIN.ts
python -m experiments.classify configs/classify/names.py --data names.tsv

A `.ts` file of the UCR and UEA archives is read from its path, and its test set from MY_TEST.ts beside it or from
--test-data. Lines of `label<TAB>text` are split by the seed, each class separately, unless --test-data is given. The
trained network reads the test set twice: with padding after each sequence, and with several sequences packed into a
row. Both must give the same results.
"""

from experiments.classify.config import Classify, Data, Model, Run, Train

__all__ = ["Classify", "Data", "Model", "Run", "Train"]
