"""Widgets for notebooks: a browser of digits, a monitor of training, a pad to draw on. They need ipywidgets."""

from .browser import DigitBrowser
from .monitor import TrainingMonitor
from .pad import DrawingPad

__all__ = ["DigitBrowser", "DrawingPad", "TrainingMonitor"]
