"""Actor-critics for continuous control."""
