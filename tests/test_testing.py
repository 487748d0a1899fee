"""`rnnx.testing`: correct cells and layers pass, and each broken one gets the sentence of its law."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
import rnnx.testing
from broken import (
    a_linearized_step_with_a_wrong_push,
    a_product_of_its_own,
    a_step_of_another_rate,
    carry_like_the_input,
    combine_in_the_other_order,
    counts_the_time_within_the_call,
    leaky,
    leaky_sum,
    leaves_outputs_in_the_pads,
    masks_by_a_product,
    mixes_rows,
    needs_a_known_number_of_steps,
    noise_of_its_own,
    only_reverse_mode,
    resets_by_a_product,
    resets_to_zeros,
    scales_with_lengths_alone,
    sums_in_half_precision,
    unused_parameter,
    weakly_typed_carry,
    wrong_batching_rule,
    wrong_derivative,
)
from rnnx.testing import ASSOCIATIVE_CELL_LAWS, CELL_LAWS, LAYER_LAWS, LawBroken, check_cell, check_layer, checks_of

XS = jax.random.normal(jax.random.key(0), (4, 7, 3))


def broken_laws(subject: Any, **options: Any) -> dict[str, str]:
    """The sentence of each law that does not hold."""
    broken = {}
    for name, check in checks_of(subject, XS, **options).items():
        try:
            check()
        except LawBroken as error:
            broken[name] = str(error)
    return broken


STEPWISE = ("chunk", "padding", "reset")  # all three compare with single steps

# What is broken, the first law that says so, its sentence, and which other laws break with it.
BROKEN = [
    (mixes_rows, "batch", r"output at row 0, step 0 is off by .* from the same row in a batch of its copies", STEPWISE),
    (
        counts_the_time_within_the_call,
        "chunk",
        r"output at row 0, step 1 is off by .* the row alone, one step at a time, whose .* \(the time",
        ("padding", "reset", "ensemble"),
    ),
    (
        leaves_outputs_in_the_pads,
        "padding",
        r"with 0 in the pads, output at row 1, step 4 is off by 1 from the zeros",
        (),
    ),
    (masks_by_a_product, "padding", r"with nan in the pads, output at row 1, step 4 is nan where the z", ("reverse",)),
    (
        resets_to_zeros,
        "reset",
        r"output at row 0, step 0 is off by .* zeros \(or the carry times 1 - reset",
        ("ensemble",),
    ),
    (resets_by_a_product, "reset", r"with nan in the inputs before a reset, output at row 0, step 4 is nan", ()),
    (
        scales_with_lengths_alone,
        "defaults",
        r"with resets=None, output at row 0, step 0 is off by .* from full lengths",
        (),
    ),
    (
        carry_like_the_input,
        "dtypes",
        r"with bfloat16 inputs and float32 params, the final carry is bfloat16, but it should be f",
        (),
    ),
    (sums_in_half_precision, "precision", r"with bfloat16 inputs, output at row \d, step \d is off by", ()),
    (
        weakly_typed_carry,
        "compiles_once",
        r"apply was compiled again .* first for weakly typed float32\[4, 3\], then for float32\[4, 3\]",
        ("dtypes",),
    ),
    (unused_parameter, "gradients", r"the parameter 'scale' gets no gradient: the largest number in it is 0", ()),
    (wrong_derivative, "derivatives", r"the first derivative in reverse mode, .* but central differences give", ()),
    (only_reverse_mode, "derivatives", r"it raised TypeError: can't apply forward-mode .* custom_vjp", ()),
    (noise_of_its_own, "noise", r"with the same key, output of the second run at row 0, step 0 is off by", ()),
    (wrong_batching_rule, "ensemble", r"under jax.vmap, result\[1\] at member 0, row 0, step 0 is off by 0.5", ()),
    (
        needs_a_known_number_of_steps,
        "export",
        r"it raised .* Python that needs the batch size or the number of ste",
        (),
    ),
    (combine_in_the_other_order, "associative", r"act\(carry, combine\(a, b\)\) at row 0 is off", ("evaluator",)),
    (
        a_step_of_another_rate,
        "step",
        r"the carry of step at row 0 is off by .* from act\(carry, lift\(",
        ("evaluator",),
    ),
    (a_product_of_its_own, "step", r"product\(a, carry\) \+ b at row 0 is off by .* from act\(carry,", ("evaluator",)),
    (
        a_linearized_step_with_a_wrong_push,
        "evaluator",
        r"with fused_scan, gradient with respect to params\['bias'\] is off by",
        (),
    ),
]


@pytest.mark.parametrize(("make", "law", "sentence", "others"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_what_is_broken_is_named(make, law, sentence, others):
    broken = broken_laws(make())
    assert set(broken) == {law, *others}
    assert re.match(f"{law}: {sentence}", broken[law])


def test_every_law_can_break():
    reverse = {"reverse"}  # the next test
    assert {law for _, law, _, _ in BROKEN} | reverse == set(ASSOCIATIVE_CELL_LAWS)
    assert set(LAYER_LAWS) < set(CELL_LAWS) < set(ASSOCIATIVE_CELL_LAWS)


def test_reverse_is_held_against_the_flipped_inputs(monkeypatch):
    """What breaks this law alone is a fault of `rnnx.reverse`: one that turns nothing around."""
    monkeypatch.setattr("rnnx.testing.sequences.reverse_layer", lambda layer: layer)
    with pytest.raises(
        LawBroken, match=r"reverse: output at row 0, step 0 is off by .* from the layer on flipped inputs"
    ):
        LAYER_LAWS["reverse"](rnnx.testing.prepare(rnnx.scan(leaky()), XS))


def counter() -> rnnx.Cell:
    """A cell whose carry holds an integer, over inputs of which one is an integer."""

    def init(key, x):
        return {"rate": jnp.zeros(x["x"].shape)}

    def initial_carry(params, x, key):
        return jnp.zeros_like(params["rate"]), jnp.zeros((), jnp.int32)

    def step(params, carry, x):
        h, n = carry
        h = jax.nn.sigmoid(params["rate"]).astype(x["x"].dtype) * h + x["x"] / (1 + n + x["token"]).astype(x["x"].dtype)
        return (h, n + 1), h

    return rnnx.cell(init, initial_carry, step)


@pytest.mark.parametrize(
    ("make", "xs"),
    [
        (leaky, XS),
        (leaky_sum, XS),
        (lambda: rnnx.cells.gru(4), XS),
        (lambda: rnnx.cells.lru(3), XS),
        (counter, {"x": XS, "token": jnp.arange(28).reshape(4, 7)}),
    ],
    ids=["leaky", "leaky_sum", "gru", "lru", "counter"],
)
def test_correct_cells_pass(make, xs):
    check_cell(make(), xs, export=True)


def test_correct_layers_pass():
    check_layer(rnnx.stack(rnnx.bidirectional(rnnx.gru(2)), rnnx.dropout(0.5)), XS)
    check_layer(rnnx.scan(leaky()), XS, params={"rate": jnp.ones(3), "start": jnp.ones(3)})


def test_spikes_are_not_held_to_differences():
    layer = rnnx.alif(4, threshold=0.4, beta=0.3, tau=5.0)
    assert set(broken_laws(layer)) == {"derivatives"}
    check_layer(layer, XS, smooth=False)


def test_a_parameter_may_be_named_that_gets_no_gradient():
    check_layer(unused_parameter(), XS, no_gradient=["scale"])
    with pytest.raises(
        LawBroken, match=r"no_gradient names \['scal'\], but the params are \['rate', 'scale', 'start'\]"
    ):
        checks_of(unused_parameter(), XS, no_gradient=["scal"])["gradients"]()


def test_the_first_law_is_raised_and_laws_can_be_skipped():
    with pytest.raises(LawBroken, match="batch: ") as error:
        check_layer(mixes_rows(), XS)
    assert error.value.law == "batch"
    check_layer(mixes_rows(), XS, skip=["batch", *STEPWISE])
    with pytest.raises(ValueError, match=r"skip names \['speed'\], but the laws are \['noise'"):
        check_layer(mixes_rows(), XS, skip=["speed"])


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"check_layer takes a Layer, but got .*leaky.*; check_cell takes a Cell"):
        check_layer(leaky(), XS)
    with pytest.raises(TypeError, match=r"check_cell takes a Cell or an AssociativeCell, but"):
        check_cell(rnnx.gru(4), XS)
    with pytest.raises(TypeError, match=r"checks_of takes a Layer, a Cell or an AssociativeCell, but got 3"):
        checks_of(3, XS)
    with pytest.raises(ValueError, match=r"xs has \[batch, time\] = \(2, 7\), but the laws need at least \(3, 4\)"):
        check_cell(leaky(), XS[:2])


def test_assert_close_says_what_differs():
    zeros = {"a": np.zeros((2, 3)), "b": np.ones(2)}
    rnnx.testing.assert_close(zeros, zeros)
    for leaf, sentence in (
        (np.full((2, 3), np.nan), r"the result\['a'\] is nan where the expected result has 0: not finite"),
        (np.zeros(2), r"the result\['a'\] has shape \(2,\), but the expected result has \(2, 3\)"),
        (np.eye(2, 3), r"the result\['a'\] is off by 1 from the expected result, whose largest number is 0"),
    ):
        with pytest.raises(AssertionError, match=sentence):
            rnnx.testing.assert_close({**zeros, "a": leaf}, zeros)
    with pytest.raises(AssertionError, match="the result has the structure"):
        rnnx.testing.assert_close({}, zeros)
    later = np.array([[0, 0, 0.5], [0, 2, 0]])
    with pytest.raises(
        AssertionError, match=r"at row 0, step 2 is off by 0.5 .*; the largest error is 2 at row 1, step 1"
    ):
        rnnx.testing.assert_close(later, zeros["a"], axes=("row", "step"))


def test_it_is_imported_only_for_those_who_ask():
    code = "import sys, rnnx; print('rnnx.testing' in sys.modules, rnnx.testing.check_cell.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "check_cell"]


def test_the_page_runs_and_shows_the_real_sentence(capsys):
    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    namespace: dict[str, Any] = {}
    exec(compile(code, "testing.md", "exec"), namespace)
    assert capsys.readouterr().out.split() == re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)[0].split()
    listed = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    assert set(listed) == set(ASSOCIATIVE_CELL_LAWS) == {*namespace["CHECKS"], "associative", "step"}
