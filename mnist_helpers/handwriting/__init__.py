"""A picture of handwritten digits, photograph or drawing, to digits in reading order."""

from .reading import Reading, draw_reading, read_digits
from .single import DigitReading, read_digit

__all__ = ["DigitReading", "Reading", "draw_reading", "read_digit", "read_digits"]
