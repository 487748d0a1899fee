"""Layers made of layers. Each takes Layers (or Flax linen modules) and returns a Layer."""
