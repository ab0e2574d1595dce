"""Shared numerics.  Every function takes arrays of any leading shape that its docstring allows."""
