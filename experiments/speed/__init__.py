"""How fast rnnx is beside other libraries: `python -m experiments.speed`.

**What is measured.** In `nets` every library runs the same nets (Elman, LSTM, GRU) on the same weights, taken over
from rnnx's by `rnnx.interop`, in float32 and without dropout: the forward pass, and the loss with its gradient by all
weights (not by the inputs), where the loss is the mean of the squares of all outputs. Besides, XLA's temporary memory
and the seconds of tracing, lowering and compiling of the latter. The other sections: `stream` (closed loop, one step
after the other), `linear` (h_t = a_t h_{t-1} + b_t, and its gradient by a, b and h_0), `growth` (time per step of
short and long sequences; the default beside plain autodiff), `memory` (`checkpoint_every`, where the loss reads the
last output), `compile` (a stack of equal layers beside one) and `devices` (a batch on two CPU devices).

**How.** All that a case compares is compiled first, in one process. Then come rounds: in each, every function is timed
once, in an order drawn anew, a timing being as many calls as fill 10 ms, each waited for. Tables have medians and, in
brackets, the quartiles; a ratio is the median of the ratios within the rounds, so that whatever else the machine does
weighs on both sides. Before that, the outputs and gradients of the very programs that are timed are held against
rnnx's plain scan (`agreement`); the program ends when they differ.

**What is the same and what is not.** Every library reads and writes `[batch, time, features]`. The JAX libraries run
under `jax.jit`, ahead-of-time compiled, with their default settings but where a file in `peers` says why not; torch
runs as it comes, its forward pass without recording for autograd. Haiku's GRU resets before the recurrent product and
its VanillaRNN has relu: they are held against rnnx with the same options, timed as they are, and marked. Equinox has
no simple recurrent cell.

**On a GPU.** `JAX_PLATFORMS=cuda python -m experiments.speed` measures all of that on the GPU, torch on cuDNN, but for
`devices`. Products are those of float32 everywhere (TF32, the default of both on newer GPUs, would not agree to the
tolerance). The bars are those of two CPU cores.

**torch and XLA on the same cores.** The threads of both are left as they come: OMP_WAIT_POLICY=passive, which would
keep torch's waiting ones quiet, slows torch itself. As the order is drawn anew in each round, what one call leaves
behind falls on all others alike.
"""
