"""Installers made of bundles: names and order of the modules, ``boot.cfg``, payloads and the image database."""

from __future__ import annotations

from fuzz.exercise import Bounded, documented
from vmvisor_image import open_bundle
from vmvisor_image.boot.installer import bundled_installer
from vmvisor_image.packages.descriptor import parse_descriptor
from vmvisor_image.packages.package_file import PackageFile
from vmvisor_image.testing.forge_packages import (
    ForgedPayload,
    archive_payload,
    descriptor,
    image_profile,
    offline_bundle,
    vib,
)


def seeds() -> list[bytes]:
    kernel, loader = (ForgedPayload(name, b"data", b"data", kind) for name, kind in (("b", "boot"), ("mboot.c32", "x")))
    driver = archive_payload("driver", {"etc/a": b"a"})
    texts = [descriptor("esx-base", [kernel, loader], version="8.0.3-0.0.1"), descriptor("driver", [driver])]
    vibs = [vib(texts[0], [kernel, loader]), vib(texts[1], [driver])]
    profile = image_profile("forged", {parse_descriptor(text).id: {} for text in texts})
    return [offline_bundle(vibs, texts, profile, is_stored=True), *vibs]


def one_input(data: bytes) -> None:
    with documented():
        package = PackageFile(Bounded(data))
        for payload in package.descriptor.payloads:
            with documented():
                assert sum(map(len, package.payload(payload, payload.name, 0).chunks())) == payload.size
    with documented(), open_bundle(Bounded(data)) as bundle:
        for name in bundle.profiles:
            with documented():
                made = bundled_installer(bundle, name)
                assert made.bootable.configuration is not None
                assert len(made.bootable.order) == len(made.selection.loaded) + 1
                for content in made.made.values():
                    assert all(content())
                for file in made.bootable.files.values():
                    with documented():
                        assert sum(map(len, file.chunks())) == file.size
