"""Tabular methods."""
