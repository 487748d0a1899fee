"""Six ways to learn from a stream to keep two bits in mind for five to ten steps.

Command:  python -m experiments.online configs/online/quick.py
Time:     2.5 minutes on one core, 1.4 of them for rtrl
Score:    nats per bit (chance: 0.693) and share of bits that were right, seed 0:
          rtrl 0.000, 100 %; snap1 0.000, 100 %; eprop 0.017, 99.6 %; uoro 0.431, 76.6 %;
          bptt (window 64) 0.024, 100 %; bptt_short (window 4) 0.693, 50.3 %
"""

from experiments.online import Data, Model, Online, Train

config = Online(
    data=Data(bits=2, shortest=5, longest=10),
    model=Model(width=16),
    train=Train(batch=16, chunk=64, steps=300, short_window=4, learning_rate=3e-3, eps=1e-3),
)
