"""The training loop, its history, taking it up again, and the checks before it."""
