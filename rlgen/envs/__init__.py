"""Environments, all of them gymnax environments; `adapter` alone steps them."""
