"""Translation with encoder, decoder and attention: spellings into phonemes, dates written many ways into ISO 8601.

python -m experiments.translate configs/translate/cmudict.py [overrides]
python -m experiments.translate configs/translate/dates.py [overrides]
"""

from experiments.translate.config import Data, Model, Run, Train, Translate

__all__ = ["Data", "Model", "Run", "Train", "Translate"]
