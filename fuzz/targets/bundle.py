"""Offline bundles: their metadata and their packages."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented
from vmvisor_image import open_bundle
from vmvisor_image.packages.descriptor import parse_descriptor
from vmvisor_image.testing.forge_packages import archive_payload, descriptor, image_profile, offline_bundle, vib


def seeds() -> list[bytes]:
    payload = archive_payload("driver", {"etc/a": b"a"})
    text = descriptor("driver", [payload])
    profile = image_profile("forged", {parse_descriptor(text).id: {"driver": "driver.v00"}})
    return [
        offline_bundle([vib(text, [payload])], [text], profile, is_stored=True),
        offline_bundle([vib(text, [payload])], [text]),
    ]


def one_input(data: bytes) -> None:
    with documented():
        bundle = open_bundle(Bounded(data))
        for problem in bundle.check():
            assert str(problem)
        assert isinstance({*bundle.profiles, *bundle.components, *bundle.bulletins}, set)
