"""For all tests: shapes must match exactly, nothing is broadcast to a higher rank unasked."""

import os

import jax
import pytest

# Tests compile far more than they compute, and XLA's fusion emitters take two thirds of that on a CPU. The tests do
# without, but for those that ask for them and what runs in processes of its own. XLA reads this when JAX starts; a
# flag that it does not know, as in later versions, would end the process.
if "XLA_FLAGS" not in os.environ and jax.version.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    jax.devices()
    del os.environ["XLA_FLAGS"]

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The examples in docstrings are quick: what is public has one."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("quick")


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs():
    """Each takes memory mappings, of which a process may have 65,530: after some thousand programs XLA crashes."""
    yield
    jax.clear_caches()
