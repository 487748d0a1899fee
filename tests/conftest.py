"""For all tests: shapes must match exactly, nothing is broadcast to a higher rank unasked."""

import atexit
import os
import shutil
import tempfile

# Processes that tests start compile the same programs again and again, and find them in a folder of this run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rnnx-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest

# Tests compile far more than they compute, and XLA's fusion emitters take two thirds of that on a CPU. The tests do
# without, but for those that ask for them and what runs in processes of its own. XLA reads this when JAX starts; a
# flag that it does not know, as in later versions, would end the process.
if "XLA_FLAGS" not in os.environ and jax.version.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    jax.devices()
    del os.environ["XLA_FLAGS"]

jax.config.update("jax_enable_compilation_cache", False)  # here, where the flag above would be no part of its keys
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles without most optimisations, which take half of the time; but the quick tests as users compile."""
    jax.config.update("jax_disable_most_optimizations", config.option.markexpr != "quick")


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
