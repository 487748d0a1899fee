"""Each wrong call raises where it was made, by one sentence; what works all the same is meant to: see `bad_input`."""

import functools
import importlib
import pkgutil
import traceback
from pathlib import Path

import jax
import pytest

import bad_input
import rnnx

pytestmark = pytest.mark.bad_input

TABLES = [importlib.import_module(f"bad_input.{table.name}") for table in pkgutil.iter_modules(bad_input.__path__)]
ROWS = [(section, row) for table in TABLES for section, rows in table.CALLS.items() for row in rows]
OURS = Path(rnnx.__file__).parent


@functools.cache
def names():
    space = {}
    exec(bad_input.PRELUDE, space)
    return space


@pytest.fixture(autouse=True)
def whole_tracebacks():
    """Else JAX would cut its own frames out."""
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", filtering)


@pytest.mark.parametrize(
    ("code", "error", "words"), [(code, error, words) for _, (code, error, *words) in ROWS], ids=[r[0] for r in ROWS]
)
def test_wrong_call(code, error, words):
    if error is bad_input.MEANT:
        exec(code, dict(names()))
        return
    with pytest.raises(error) as raised:
        exec(code, dict(names()))
    assert raised.type is error  # not one of its kinds: JAX's own errors are TypeErrors too
    message = str(raised.value)
    assert all(word in message for word in words), message
    raiser = traceback.extract_tb(raised.tb)[-1].filename
    assert OURS in Path(raiser).parents, f"raised by {raiser}: {message}"
