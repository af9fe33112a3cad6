"""A picture of handwritten digits, photograph or drawing, to digits in reading order."""

from .reading import Reading, draw_reading, read_digits

__all__ = ["Reading", "draw_reading", "read_digits"]
