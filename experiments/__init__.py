"""Experiments on rnnx: one thin script per task, on a shared loop, checkpoints, logs and plots."""
