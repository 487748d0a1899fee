"""Forecasts of series by any cell, scored beside statistical baselines; Mackey-Glass by an echo-state network.

python -m experiments.forecast configs/forecast/quick.py [overrides]
python -m experiments.forecast configs/forecast/quick.py --data my.csv --column sales --season 12 --horizon 12
python -m experiments.forecast configs/forecast/mackey_glass.py
"""

from experiments.forecast.config import Data, Forecast, MackeyGlass, Model, Reservoir, Run, Train

__all__ = ["Data", "Forecast", "MackeyGlass", "Model", "Reservoir", "Run", "Train"]
