"""`Shown`: values that look like something in a notebook and in a terminal."""

from __future__ import annotations

import importlib
from typing import Any


class Shown:
    """Base of what a notebook and rich show by a face of its own, which registers how the type looks.

    A face is imported by name when it is first asked: it lies above everything, and rich is only there when rich asks.
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        html: str = _face("notebook").html(self)
        return html

    def __rich__(self) -> Any:
        return _face("terminal").renderable(self)


def _face(name: str) -> Any:
    return importlib.import_module(f"vmvisor_image.faces.{name}")
