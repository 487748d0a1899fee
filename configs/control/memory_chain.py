"""MemoryChain at length 30: a bit seen at the beginning decides the last action.

Command:  python -m experiments.seeds control configs/control/memory_chain.py --seeds 0 1 2 --record
Time:     1.5 minutes for each seed on one core, all four nets together
Score:    mean return (the most is 1): gru, lstm and min_gru 1.000 with each of three seeds; memoryless -0.05
"""

from experiments.control import Control, Data, Model, Run, Train

config = Control(
    data=Data(task="memory_chain", memory_length=30),
    model=Model(cells=("gru", "lstm", "min_gru", "memoryless"), width=64),
    train=Train(
        envs=64,
        time=62,
        updates=80,
        epochs=4,
        minibatches=4,
        learning_rate=2e-3,
        discount=0.99,
        trace=0.95,
        reward_scale=1.0,
    ),
    run=Run(eval_every=2),
)
