"""The options of `Image.open` and of `scan_one`: each declared once, and known wherever they are handed on."""

from __future__ import annotations

import inspect
import io
import pickle
import pydoc
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import vmvisor_image
from vmvisor_image import Image, fleet, verify
from vmvisor_image.base.open_options import OpenOptions, ReadOptions
from vmvisor_image.testing.forge import fat_volume

_VOLUME = fat_volume({"inner.img": bytes(1024)}, sectors=2000)
DISK = _VOLUME.read_at(0, _VOLUME.size)


class Mine(Image):
    """An image of somebody's own."""


@pytest.mark.parametrize(
    ("function", "options", "first"),
    [(Image.open, OpenOptions, "source"), (fleet.scan_one, fleet.ScanOptions, "source")],
    ids=["open", "scan_one"],
)
def test_the_options_are_those_of_the_signature(function: Callable[..., Any], options: type, first: str) -> None:
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == first
    assert {name: parameter.kind for name, parameter in parameters.items() if name != first} == dict.fromkeys(
        get_type_hints(options), inspect.Parameter.KEYWORD_ONLY
    )
    hints = get_type_hints(function)
    assert {name: hints[name] for name in parameters if name != first} == get_type_hints(options)


def test_help_describes_every_option() -> None:
    text = pydoc.plain(pydoc.render_doc(Image.open))
    # From Python 3.13 on a long signature has a line for each parameter.
    assert "open(source: 'SourceLike', *, threads:" in " ".join(text.split()).replace("( ", "(")
    for name in OpenOptions.__optional_keys__:
        assert f"\n        {name}: " in text
    text = pydoc.plain(pydoc.render_doc(Image(DISK).open))
    assert "() -> 'io.BufferedReader'" in text


def test_of_the_class_it_makes_an_image_and_of_an_image_a_stream() -> None:
    for kind in (Image, Mine):
        with kind.open(source=DISK) as image:
            assert type(image) is kind
            with image.open() as stream:
                assert isinstance(stream, io.BufferedReader)
                assert stream.read() == DISK


@pytest.mark.parametrize(
    "call",
    [
        Image.open,
        Mine.open,
        Image,
        vmvisor_image.inspect,
        verify,
        fleet.scan_one,
        fleet.stream,
        fleet.scan,
        lambda source, **options: next(iter(Image(source).partitions)).files["inner.img"].open_image(**options),
    ],
)
def test_what_is_no_option_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'thread'"):
        call(DISK, thread=1)


@pytest.mark.parametrize("name", sorted(OpenOptions.__optional_keys__ - ReadOptions.__optional_keys__))
def test_verify_uses_nothing_that_was_kept(name: str) -> None:
    with pytest.raises(TypeError, match=rf"verify\(\) got an unexpected keyword argument '{name}'"):
        verify(DISK, **{name: None})  # type: ignore[arg-type]


def test_options_are_kept_by_a_pickle_but_for_progress() -> None:
    given: OpenOptions = {"threads": 1, "member": "a", "salvage": True, "progress": lambda done, total: None}
    copy = pickle.loads(pickle.dumps(Mine(DISK, **given)))
    assert type(copy) is Mine
    assert copy._options == {**given, "progress": None, "limits": vmvisor_image.Limits()}


def test_a_file_is_opened_with_any_option() -> None:
    limits = vmvisor_image.Limits(layers=3)
    with Image.open(DISK) as image:
        file = next(iter(image.partitions)).files["inner.img"]
        assert file.open_image(limits=limits).limits == limits
        assert file.open_image().limits is image.limits
