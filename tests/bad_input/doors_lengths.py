"""Lengths that are no lengths."""

from bad_input import MEANT

CALLS = {
    "lengths": [
        ("U(XS, lengths=[5, 3])", MEANT),
        ("U(XS, lengths=np.array([1.0, 2.0]))", TypeError, "lengths", "integers", "float"),
        ("U(XS, lengths=np.array([1, 9]))", ValueError, "lengths", "9", "5 steps"),
    ],
}
