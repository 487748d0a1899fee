"""What the next frame looks like, and a rollout of the 20 after it.

Scores are how many times smaller the mean squared error is than that of copying the last frame. Settings were chosen by
the validation clips.

Command:  python -m experiments.seeds video configs/video/predict.py --seeds 0 1 2 --record
Time:     8 to 12 minutes for each seed on one core of a busy machine, nearly half of which go into the net without
          memory
Score:    24.2 ± 1.0 times better than copying the last frame (mean and standard deviation of seeds 0 to 2); 4.5 times
          by repeating the last move, which errs at each bounce, and 1.8 times by the net without memory. A rollout
          of 20 frames, after 5 that it sees: 3.86 ± 0.07 times
"""

from experiments.video import Data, Run, Train, Video

config = Video(
    data=Data(tasks=("predict",)),
    train=Train(batch=16, steps=2400, learning_rate=4e-3),
    run=Run(eval_every=120),
)
