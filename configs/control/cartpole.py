"""CartPole-v1 without its velocities, with three cells and without memory.

Command:  python -m experiments.seeds control configs/control/cartpole.py --seeds 0 1 2 --record
Time:     1.8 minutes for each seed on one core, all four nets together
Score:    mean return (the most is 500): gru, lstm and min_gru 500.0 with each of three seeds; memoryless 43.3.
          The best checkpoint of each is scored: validations fall back now and then; that of lstm, seed 1, ended at 269
"""

from experiments.control import Control, Data, Model, Run, Train

config = Control(
    data=Data(task="cartpole"),
    model=Model(cells=("gru", "lstm", "min_gru", "memoryless"), width=64),
    train=Train(
        envs=16,
        time=64,
        updates=400,
        epochs=4,
        minibatches=2,
        learning_rate=1e-3,
        discount=0.99,
        trace=0.95,
        reward_scale=0.01,
    ),
    run=Run(eval_every=10),
)
