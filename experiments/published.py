"""Published figures that `experiments.report` shows beside our scores, and the source of each."""

from typing import NamedTuple


class Published(NamedTuple):
    figure: float
    source: str
    """Short enough for a table; it also says what differs from our set-up."""


PUBLISHED: dict[tuple[str, str, str], list[Published]] = {
    ("char_lm", "shakespeare_quick", "val_nats_per_char"): [
        Published(1.88, "nanoGPT's CPU recipe, same budget"),
    ],
    ("char_lm", "shakespeare", "val_nats_per_char"): [
        Published(1.4697, "nanoGPT's GPU baby model"),
        Published(1.548, "minGRU, arXiv 2410.01201"),
    ],
    ("classify", "japanese_vowels", "test_accuracy"): [
        Published(0.976, "MLSTM-FCN"),
        Published(0.954, "a BiLSTM of 100 units, MathWorks' example"),
    ],
    ("classify", "japanese_vowels", "ensemble_test_accuracy"): [
        Published(0.9886, "an ensemble of 11 LSTMs"),
    ],
    ("control", "cartpole", "gru_mean_return"): [
        Published(500, "RecurrentPPO (LSTM) of Stable Baselines 3, 1e5 steps, a model card"),
    ],
    ("control", "cartpole", "lstm_mean_return"): [
        Published(500, "RecurrentPPO (LSTM) of Stable Baselines 3, 1e5 steps, a model card"),
    ],
    ("forecast", "mackey_glass", "median_nrmse84"): [
        Published(1.2e-4, "H. Jaeger, GMD Report 148, 21,000 training steps"),
        Published(2.8e-4, "the same with 3,000"),
    ],
    ("memory", "parity", "lstm_parity_accuracy"): [
        Published(1.0, "an LSTM of 256 units, best of 10 seeds, arXiv 2207.02098"),
    ],
    ("memory", "copy", "lstm_copy_loss"): [
        Published(0.173, "the plateau 10 ln 8 / 120, where the LSTM of arXiv 1511.06464 stays"),
    ],
    ("memory", "adding", "lstm_adding_mse"): [
        Published(0.167, "always answering 1, arXiv 1511.06464"),
    ],
    ("memory", "arithmetic", "lstm_arithmetic_accuracy"): [
        Published(1.0, "an LSTM of 256 units, best of 10 seeds, arXiv 2207.02098"),
    ],
    ("memory", "selective_copy", "min_gru_selective_copy_accuracy"): [
        Published(0.995, "length 4096, 3 layers, arXiv 2410.01201; ours is scaled down to 128"),
    ],
    ("memory", "selective_copy", "min_lstm_selective_copy_accuracy"): [
        Published(0.96, "length 4096, 3 layers, arXiv 2410.01201; ours is scaled down to 128"),
    ],
    ("translate", "cmudict", "symbol_error_rate"): [
        Published(0.0545, "K. Yao and G. Zweig, Interspeech 2015, on another split, with far more compute"),
    ],
    ("translate", "cmudict", "error_rate"): [
        Published(0.2355, "the same"),
    ],
}
"""`(experiment, config, metric) -> figures`."""
