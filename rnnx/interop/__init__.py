"""Converts weights from and to other libraries: `from_torch(module)` returns `(layer, params)`, `to_torch` inverts it.

Importing this package imports none of those libraries: it recognises their objects by class name.
"""

from rnnx.interop.equinox import from_equinox, to_equinox
from rnnx.interop.flax import from_flax, to_flax
from rnnx.interop.haiku import from_haiku, to_haiku
from rnnx.interop.keras import from_keras, to_keras
from rnnx.interop.torch import from_torch, from_torch_arrays, to_torch, to_torch_arrays

__all__ = [
    "from_equinox",
    "from_flax",
    "from_haiku",
    "from_keras",
    "from_torch",
    "from_torch_arrays",
    "to_equinox",
    "to_flax",
    "to_haiku",
    "to_keras",
    "to_torch",
    "to_torch_arrays",
]
