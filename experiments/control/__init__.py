"""Recurrent PPO in pure JAX: CartPole without its velocities, and MemoryChain, with several cells and without any.

python -m experiments.control configs/control/quick.py [overrides]
python -m experiments.control curves RUN [RUN ...]     the learning curves of several seeds in one plot
python -m experiments.control animate RUN              an episode of CartPole with each net, as animation.gif

Both tasks are partially observed. The cart shows where it is and how the pole leans, but not how fast either moves;
the chain shows a bit at its beginning and asks for it at its end. The same agent is trained once with each cell, and
once with a dense layer in place of the cell, which has no memory and must fail.

`environments` has the two tasks, `model` the net, `rollouts` how it plays, `train` how it learns: a rollout, its
advantages and all updates from it are one compiled step of the training loop. Validations draw actions from the policy;
the final scores take the likeliest action at each step, over new episodes, and are shown beside random actions.
"""

from experiments.control.config import Control, Data, Model, Run, Train

__all__ = ["Control", "Data", "Model", "Run", "Train"]
