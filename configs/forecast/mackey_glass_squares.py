"""Mackey-Glass as in mackey_glass.py, with a readout that has the squares of the states too.

Command:  python -m experiments.forecast configs/forecast/mackey_glass_squares.py
Time:     not known yet
Score:    not known yet: the run on record is still to be made
"""

from experiments.forecast import MackeyGlass

config = MackeyGlass(squares=True)
