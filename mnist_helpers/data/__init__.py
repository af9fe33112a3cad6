"""Digits: the files, tensors and loaders, and what brings pictures into this form or distorts them."""
