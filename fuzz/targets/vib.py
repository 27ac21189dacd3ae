"""VIBs: their description, their signature and their payloads."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented
from vmvisor_image import open_vib
from vmvisor_image.testing.forge_packages import archive_payload, descriptor, vib


def seeds() -> list[bytes]:
    payload = archive_payload("driver", {"etc/a": b"a", "bin/b": bytes(5000)})
    other = archive_payload("tool", {"opt/tool": b"tool"}, kind="tgz")
    text = descriptor("driver", [payload, other])
    return [vib(text, [payload, other]), vib(text, [payload], b"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n")]


def one_input(data: bytes) -> None:
    with documented():
        found = open_vib(Bounded(data))
        assert found.id
        for problem in found.problems:
            assert str(problem)
        with documented():
            assert not found.check_signature().is_verified
