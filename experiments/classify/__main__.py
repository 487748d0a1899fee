"""See `experiments/classify/__init__.py`."""

from experiments.classify.experiment import main

main()
