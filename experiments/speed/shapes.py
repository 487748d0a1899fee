"""What is measured, and at which sizes."""

from typing import NamedTuple

from experiments.errors import UserError


class Shape(NamedTuple):
    """The shape of a batch of sequences, and of the net that reads it."""

    batch: int
    time: int
    features: int
    width: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


class LinearShape(NamedTuple):
    """The shape of a linear recurrence."""

    time: int
    batch: int
    width: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


SECTIONS = ("nets", "stream", "linear", "growth", "memory", "compile", "devices")
CELLS = ("elman", "lstm", "gru")
GATES = {"elman": 1, "lstm": 4, "gru": 3}
SHAPES = (
    Shape(32, 128, 64, 128),
    Shape(64, 100, 128, 512),
    Shape(16, 256, 8, 32),
    Shape(128, 200, 1, 32),
    Shape(1, 1000, 64, 256),
)
LINEAR = (LinearShape(16384, 1, 32), LinearShape(1024, 8, 128), LinearShape(256, 64, 256))
ON_TWO_DEVICES = (Shape(32, 128, 64, 128), Shape(128, 200, 1, 32))

QUICK_SECTIONS = ("nets", "linear")
QUICK_CASES = (("lstm", SHAPES[2]), ("elman", SHAPES[3]))


class Plan(NamedTuple):
    """What is to be measured, and for how long."""

    sections: tuple[str, ...]
    nets: tuple[tuple[str, Shape], ...]
    cells: tuple[str, ...]
    libraries: tuple[str, ...]
    linear: tuple[LinearShape, ...]
    budget: float
    rounds: int


def parse(text: str) -> Shape:
    """`"32,128,64,128"` as a Shape."""
    numbers = text.split(",")
    if len(numbers) != 4 or not all(n.strip().isdigit() and int(n) > 0 for n in numbers):
        raise UserError(
            f"--shapes takes batch,time,features,width, four numbers above 0 as in {SHAPES[0]}, not {text!r}"
        )
    return Shape(*map(int, numbers))


def matrix_flops(cell: str, shape: Shape) -> tuple[int, int]:
    """Floating-point operations of the matrix products alone: of the forward pass, and of the loss with its gradient.

    Per step the gates are one product with x and h together. The backward pass has one product for the gradient of h
    (none for x), and one for that of both weights.
    """
    b, t, i, h = shape
    gates = GATES[cell] * h
    forward = 2 * b * t * (i + h) * gates
    return forward, 2 * forward + 2 * b * t * h * gates
