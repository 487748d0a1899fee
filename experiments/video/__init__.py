"""Moving digits under a ConvLSTM: which digit goes which way, and what the next frames look like.

python -m experiments.video configs/video/classify.py [overrides]
python -m experiments.video configs/video/predict.py [overrides]

A clip shows a digit of scikit-learn's images that moves by whole pixels and bounces off the walls. `classify` asks for
the digit and for the direction in which it moves into the last frame; a clip counts as right if both are. `predict`
asks for each next frame, and then for a rollout: the frames that follow, with its own frames as input. Each net is
trained a second time with convolutions without memory in place of its ConvLSTMs: they see one frame at a time.
"""

from experiments.video.config import Data, Model, Run, Train, Video

__all__ = ["Data", "Model", "Run", "Train", "Video"]
