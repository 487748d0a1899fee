"""The software and hardware that a run used, recorded with its results."""

import importlib.metadata
import os
import platform

import jax


def environment() -> dict[str, str | int | None]:
    packages = ("rnnx", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # rnnx run from its checkout
        return None
