"""Classifiers without a recurrent net, on the same training and test examples."""

import collections
from typing import Any

import numpy as np

from experiments.classify.data import Dataset, Examples, filled
from experiments.errors import UserError


def baselines(data: Dataset) -> dict[str, float]:
    """Test accuracies of the most frequent class, and of simple classifiers on hand-made features.

    The features of a text are counts of its n-grams of one to four characters; those of a series are the means,
    standard deviations, first and last values of its channels. The strength of regularisation is chosen by
    cross-validation on the training and validation sets of the net.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.naive_bayes import MultinomialNB
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, StandardScaler
    except ImportError:
        raise UserError("The classifiers to compare with come from scikit-learn: pip install scikit-learn") from None

    known = Examples(data.train.items + data.validation.items, data.train.labels + data.validation.labels)
    counts = collections.Counter(known.labels)
    majority = counts.most_common(1)[0][0]
    regularised = {"logisticregression__C": [0.01, 0.1, 1.0, 10.0, 100.0]}
    regression = LogisticRegression(max_iter=2000)
    if isinstance(known.items[0], str):
        ngrams = CountVectorizer(analyzer="char_wb", ngram_range=(1, 4))
        candidates = {
            "logistic_regression": (make_pipeline(ngrams, regression), regularised),
            "naive_bayes": (
                make_pipeline(ngrams, MultinomialNB()),
                {"multinomialnb__alpha": [0.01, 0.03, 0.1, 0.3, 1.0]},
            ),
        }
    else:
        pipeline = make_pipeline(FunctionTransformer(features), StandardScaler(), regression)
        candidates = {"logistic_regression": (pipeline, regularised)}
    scores = {"majority": float(np.mean([label == majority for label in data.test.labels]))}
    folds = min(5, *counts.values())
    for name, (pipeline, grid) in candidates.items():
        chosen = GridSearchCV(pipeline, grid, cv=folds) if folds > 1 else pipeline
        scores[name] = float(chosen.fit(known.items, known.labels).score(data.test.items, data.test.labels))
    return {f"{name}_accuracy": score for name, score in scores.items()}


def features(items: list[Any]) -> np.ndarray:
    """`[n, 4 channels]`: mean, deviation, first and last value of each channel; zero where a value is missing."""
    filled_items = [filled(item, "linear") for item in items]
    return np.stack([np.concatenate([x.mean(axis=0), x.std(axis=0), x[0], x[-1]]) for x in filled_items])
