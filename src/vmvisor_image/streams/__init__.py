"""Runs of bytes: sources of them, views of a part of a source, and the opening of a caller's path, file or object."""

from vmvisor_image.streams.buffered import open_stream
from vmvisor_image.streams.reading import read_up_to
from vmvisor_image.streams.source import ReadAt, Source
from vmvisor_image.streams.sources import BytesSource, FileSource
from vmvisor_image.streams.views import Pieced, Slice, View

__all__ = ["BytesSource", "FileSource", "Pieced", "ReadAt", "Slice", "Source", "View", "open_stream", "read_up_to"]
