"""Combinators: functions that take Layers (or Flax linen modules) and return a Layer."""
