"""What a model answers, how sure a figure is, and where a network looks."""
