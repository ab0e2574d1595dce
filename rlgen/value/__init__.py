"""Value-based deep reinforcement learning."""
