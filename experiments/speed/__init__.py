"""How fast rnnx is beside other libraries: `python -m experiments.speed`.

**What is measured.** In `nets` every library runs the same nets (Elman, LSTM, GRU) on the same weights, converted
from rnnx's by `rnnx.interop`, in float32 and without dropout: the forward pass, and the loss with its gradient by all
weights (not by the inputs), where the loss is the mean of the squares of all outputs. For the latter, XLA's temporary
memory and the seconds of tracing, lowering and compiling are measured too. The other sections: `stream` (closed loop,
one step after the other), `linear` (h_t = a_t h_{t-1} + b_t, and its gradient by a, b and h_0), `growth` (time per step
of short and long sequences; the default beside plain autodiff), `memory` (`checkpoint_every`, where the loss reads the
last output), `compile` (a stack of equal layers beside one) and `devices` (a batch on two CPU devices).

**How.** Everything that a case compares is compiled first, in one process. Then come rounds: each round times every
function once, in a new random order; a timing makes as many calls as fill 10 ms, and waits for each. Tables have
medians and, in brackets, the quartiles; a ratio is the median of the ratios within the rounds, so that other work on
the machine affects both sides. Before timing, the outputs and gradients of the same compiled programs are compared with
rnnx's plain scan (`agreement`); the program ends if they differ.

**What is the same and what is not.** Every library reads and writes `[batch, time, features]`. The JAX libraries run
under `jax.jit`, ahead-of-time compiled, with their default settings unless a file in `peers` says why not; torch runs
eagerly, its forward pass without recording for autograd. Haiku's GRU resets before the recurrent product and its
VanillaRNN has relu: they are checked against rnnx with the same options, timed as they are, and marked. Equinox has no
simple recurrent cell.

**On a GPU.** `JAX_PLATFORMS=cuda python -m experiments.speed` measures all of that on the GPU, torch on cuDNN, except
`devices`. Matrix products are in full float32 everywhere (TF32, the default of both on newer GPUs, would not agree
within the tolerance). The bars are for two CPU cores.

**torch and XLA on the same cores.** The threads of both keep their default settings: OMP_WAIT_POLICY=passive, which
would keep torch's waiting threads idle, slows torch itself. As each round has a new random order, the after-effects of
a call fall on all others equally.
"""
