"""Mackey-Glass as in mackey_glass.py, with a readout that also gets the squares of the states.

Command:  python -m experiments.forecast configs/forecast/mackey_glass_squares.py
Time:     76 seconds on one core
Score:    NRMSE after 84 steps, median of ten networks: 2.75e-05
"""

from experiments.forecast import MackeyGlass, Reservoir

config = MackeyGlass(model=Reservoir(squares=True))
