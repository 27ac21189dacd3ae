"""Image databases, without their compression."""

from __future__ import annotations

import gzip

from fuzz.exercise import Bounded, documented
from vmvisor_image import open_image_database
from vmvisor_image.packages.descriptor import parse_descriptor
from vmvisor_image.testing.forge_packages import archive_payload, descriptor, image_database, image_profile


def seeds() -> list[bytes]:
    payload = archive_payload("driver", {"etc/a": b"a"})
    text = descriptor("driver", [payload])
    profile = image_profile("forged", {parse_descriptor(text).id: {"driver": "driver.v00"}})
    return [gzip.decompress(image_database(profile, [(text, b"MAA=")])), gzip.decompress(image_database(None, []))]


def one_input(data: bytes) -> None:
    with documented():
        database = open_image_database(Bounded(data))
        for problem in database.problems:
            assert str(problem)
        for vib, payload in database.payloads.values():
            assert vib.id
            assert payload.name
