"""The catalogue of experiments: `catalogue.EXPERIMENTS` is the one table that everything reads."""
