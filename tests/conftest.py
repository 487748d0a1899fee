"""For all tests: shapes must match exactly, nothing is broadcast to a higher rank unasked."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs():
    """Each takes memory mappings, of which a process may have 65,530: after some thousand programs XLA crashes."""
    yield
    jax.clear_caches()
