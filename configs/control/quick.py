"""CartPole-v1 without its velocities, with a GRU and without memory.

Command:  python -m experiments.control configs/control/quick.py
Time:     0.6 minutes of training on one core of a busy machine, 1.2 in all
Score:    mean return of seed 0 (the most is 500): gru 500.0, memoryless 42.6
"""

from experiments.control import Control, Data, Model, Run, Train

config = Control(
    data=Data(task="cartpole"),
    model=Model(cells=("gru", "memoryless"), width=64),
    train=Train(
        envs=16,
        time=64,
        updates=100,
        epochs=4,
        minibatches=2,
        learning_rate=1e-3,
        discount=0.99,
        trace=0.95,
        reward_scale=0.01,
    ),
    run=Run(eval_every=5),
)
