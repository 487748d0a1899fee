"""Learning online: an update after every step of an endless stream, by each method with the same cell.

python -m experiments.online configs/online/quick.py [overrides]

The stream needs memory. A cue shows some bits, amid distractors; some steps later the bits are asked for; then the next
cue comes, without any reset. The input weights of the cell start at zero, so that at first nothing reaches it. They
leave zero only through credit that reaches from the query back to the cue: truncated back-propagation with a window no
longer than this gap leaves the weights of the cue at exactly zero, and the score at chance, however long it learns.
"""

from experiments.online.config import Data, Model, Online, Run, Train

__all__ = ["Data", "Model", "Online", "Run", "Train"]
