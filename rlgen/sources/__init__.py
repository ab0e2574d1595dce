"""Sources: pure functions that turn a policy into batches."""
