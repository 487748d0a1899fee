"""Experiments on rnnx: one thin script per task, on a shared loop, checkpoints, logs and plots."""

import os

# Set this before anything imports numpy. Little but the QR of orthogonal initialisers calls BLAS, and on
# few cores the waiting BLAS threads compete with XLA's: on a busy machine an LSTM of width 384 took 7 s to
# initialise, against 0.02 s with one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
