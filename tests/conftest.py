"""For all tests: shapes must match exactly, and what was compiled by an earlier run is not read back."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)
