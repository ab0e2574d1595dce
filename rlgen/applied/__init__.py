"""Policy gradients outside games, and the models that judge others."""
