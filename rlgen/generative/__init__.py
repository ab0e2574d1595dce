"""Generative models on one optax loop."""
