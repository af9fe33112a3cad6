"""Errors in a widget's callbacks: front ends swallow them, so they are kept and shown in the page."""

import functools
import html
from collections.abc import Callable
from typing import Any

import ipywidgets

from ..plots import RED


class Faults:
    """The errors of one widget's callbacks: `errors`, a list, and `view`, which shows the latest."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.view = ipywidgets.HTML()
        self.view.add_class("mnist-fault")  # by which `notebooks.hidden_errors` finds it

    def guard(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Return `callback` wrapped so that an error in it ends up here."""

        @functools.wraps(callback)
        def guarded(*arguments):
            try:
                callback(*arguments)
            except Exception as error:
                self.add(error)
            else:
                if self.view.value:
                    self.view.value = ""

        return guarded

    def add(self, error: Exception) -> None:
        """Keep an error and show it."""
        self.errors.append(error)
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self.view.value = f'<b style="color:{RED}">{html.escape(text)}</b>'
