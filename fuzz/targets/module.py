"""Boot modules: their compression, their signature, programs, and the encrypted configuration."""

from __future__ import annotations

import gzip

from fuzz.exercise import Bounded, documented, exercise_archive, exercise_source
from fuzz.samples import TREE
from vmvisor_image.boot.envelope import decrypt, read_envelope
from vmvisor_image.boot.modules import Module
from vmvisor_image.errors import KeyUnavailable
from vmvisor_image.testing.forge_modules import (
    amd_microcode,
    encrypt,
    encryption_info,
    intel_microcode,
    kernel_elf,
    sign,
    tar_archive,
    vmtar_archive,
)


def seeds() -> list[bytes]:
    plain = [tar_archive(TREE), vmtar_archive(TREE), kernel_elf(b"VMware ESXi 6.5.0 build-4564106")]
    made = [gzip.compress(each, mtime=0) for each in plain]
    made += [gzip.compress(sign(plain[0]), mtime=0), sign(plain[2]), plain[2]]
    made += [intel_microcode(0x506E3, 1, size=1024), amd_microcode({1: 2, 3: 4}, size=64)]
    made += [kernel_elf(identity=("VMware ESXi", "6.7.0", "8169922"))]
    return [*made, encrypt(plain[0], encryption_info(b"1" * 32, b"2" * 32), initial=bytes(12))]


def one_input(data: bytes) -> None:
    source = Bounded(data)
    with documented():
        module = Module(source)
        assert module.kind
        with documented():
            assert module.signature is None or module.signature.key_id != ""
        with documented():
            assert module.kernel is None or module.kernel.bits in (32, 64)
        with documented():
            assert len(module.version) == 3
        with documented():
            assert all(update.size for update in module.microcode)
        with documented():
            exercise_source(module.content)
        with documented():
            exercise_archive(module.open_archive())
    with documented():
        envelope = read_envelope(source)
        assert envelope.explain()
        try:
            decrypt(source, bytes(32))
        except KeyUnavailable:
            return
