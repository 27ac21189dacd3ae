"""`Shown`: base of values with a display of their own in notebooks and terminals."""

from __future__ import annotations

import importlib
from typing import Any


class Shown:
    """Base of types that notebooks and rich display through a module of `faces`, which registers a display for each.

    That module is imported by name at the first display: it may import everything here, and rich may not be installed.
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        html: str = _face("notebook").html(self)
        return html

    def __rich__(self) -> Any:
        return _face("terminal").renderable(self)


def _face(name: str) -> Any:
    return importlib.import_module(f"vmvisor_image.faces.{name}")
