"""Both tasks at once, small: which digit goes which way, and what the next frames look like.

Command:  python -m experiments.video configs/video/quick.py
Time:     4 minutes on one core, 2.6 of them training
Score:    0.75 of the test clips have digit and direction right (seed 0): 0.999 of the directions, 0.751 of the digits;
          without memory 0.141. The next frame is predicted 3.8 times better than by copying the last
          one; repeating the last move, 4.5 times
"""

from experiments.video import Model, Run, Train, Video

config = Video(
    model=Model(dropout=0.2),
    train=Train(batch=16, steps=400, learning_rate=4e-3, warp=0.1),
    run=Run(eval_every=100, val_clips=500, test_clips=1000),
)
