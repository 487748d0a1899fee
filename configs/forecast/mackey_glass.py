"""Mackey-Glass, tau 17, by ten echo-state networks of 400 units, as in Jaeger's report.

Command:  python -m experiments.forecast configs/forecast/mackey_glass.py
Time:     46 seconds on one core
Score:    NRMSE after 84 steps, median of ten networks: 2.02e-4 (1.09e-4 to 7.30e-4)
"""

from experiments.forecast import MackeyGlass

config = MackeyGlass()
