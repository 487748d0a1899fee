"""Evaluators: each lifts a cell to a Layer over a batch of sequences."""
