"""Evaluators: each turns a cell into a Layer over a batch of sequences."""
