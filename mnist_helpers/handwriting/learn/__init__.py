"""What the reader's networks learn from, and their training."""
