"""Recurrent PPO in pure JAX: CartPole without its velocities, and MemoryChain, with several cells and without any.

python -m experiments.control configs/control/quick.py [overrides]
python -m experiments.control curves RUN [RUN ...]     the learning curves of several seeds in one picture
python -m experiments.control animate RUN              an episode of CartPole with each net, as animation.gif

In both tasks what counts is not to be seen. The cart shows where it is and how the pole leans, but not how fast
either moves; the chain shows a bit at its beginning and asks for it at its end. The same agent is trained once with
each cell, and once with a dense layer in the place of the cell, which has no memory and must fail.

`environments` has the two tasks; `agent` the net, and how episodes are played; `ppo` how it learns: a
rollout, its advantages and all updates by it are one compiled step of the training loop. Validations draw actions from
the policy; the scores are those of the likeliest action at each step, over new episodes. Random actions and the
memoryless net tell what they are worth.
"""
