"""For all tests: shapes must match exactly, nothing is broadcast to a higher rank unasked."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
