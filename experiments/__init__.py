"""Experiments on rnnx: one thin script per task, on a shared loop, checkpoints, logs and plots."""

import os

# Before anything imports numpy. BLAS is called for little but the QR of orthogonal initialisers, and on
# few cores its waiting threads compete with XLA's: an LSTM of width 384 took 7 s to initialise beside
# other work, against 0.02 s with one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
