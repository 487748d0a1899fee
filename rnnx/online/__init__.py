"""Online learning: computes gradients forward in time, step by step, in memory that does not grow with time.

A learner is a pair of pure functions, as in Optax: `learner.init(params, x) -> state` and `learner.update(params,
state, x, target) -> (state, (loss, gradient, y))`, one time step of a batch. It takes any `Cell`.
"""

from rnnx.online.eprop import eprop
from rnnx.online.learner import OnlineLearner, OnlineOutput, OnlineState
from rnnx.online.ownership import columns
from rnnx.online.rtrl import rtrl
from rnnx.online.snap import snap1
from rnnx.online.uoro import uoro

__all__ = ["OnlineLearner", "OnlineOutput", "OnlineState", "columns", "eprop", "rtrl", "snap1", "uoro"]
