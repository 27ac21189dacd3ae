"""Boot modules as they are in banks: compressed, compressed twice, signed, programs, archives, encrypted."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import lzma
import pickle
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.media import small_disk
from tests.support import REPOSITORY, require_oracle, require_tool, run
from vmvisor_image import CorruptImage, Image, KeyUnavailable, NotAnArchive, PathNotFound, open_archive
from vmvisor_image.boot import envelope
from vmvisor_image.boot.microcode import MicrocodeUpdate
from vmvisor_image.boot.modules import Module
from vmvisor_image.boot.state import open_state
from vmvisor_image.compressions.signed import find_signature
from vmvisor_image.files.file import File
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing import forge_modules as forge

NOISE = random.Random(2).randbytes(300_000)
FILES = {"etc/vmware/esx.conf": b"conf", "usr/lib/vmware/big": NOISE}
VMTAR = forge.vmtar_archive(FILES)
KEY = b"0123456789abcdef"


def xz(data: bytes) -> bytes:
    """As the installers of 6.x do it: a dictionary of 2 MiB, CRC-32."""
    command = [require_tool("xz"), "--check=crc32", "--lzma2=dict=2MiB", "-c"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def zipped(data: bytes) -> bytes:
    return subprocess.run([require_tool("gzip"), "-nc"], input=data, capture_output=True, check=True).stdout


WAYS: dict[str, tuple[tuple[str, ...], bool, Callable[[bytes], bytes]]] = {
    "plain": ((), False, lambda data: data),
    "gzip": (("gzip",), False, zipped),
    "gzip(signed)": (("gzip",), True, lambda data: zipped(forge.sign(data, key_id=KEY))),
    "gzip(xz signed)": (("gzip", "xz"), True, lambda data: zipped(forge.sign(xz(data), key_id=KEY))),
    "gzip(xz)": (("gzip", "xz"), False, lambda data: zipped(xz(data))),
    "gzip(zstd signed)": (
        ("gzip", "zstd"),
        True,
        lambda data: zipped(forge.sign(zstandard.compress(data), key_id=KEY)),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "inner",
    [VMTAR, forge.vmtar_archive(FILES, inline=True), forge.tar_archive(FILES)],
    ids=["vmtar", "inline vmtar", "tar"],
)
def test_an_archive_in_any_wrapping(way: str, inner: bytes) -> None:
    layers, is_signed, wrap = WAYS[way]
    module = Module(BytesSource(wrap(inner)))
    assert module.layers == layers
    assert module.kind == ("tar" if b"ustar" in inner[:512] else "vmtar")
    archive = module.open_archive()
    assert {file.path: file.read_bytes() for file in archive.values()} == FILES
    assert archive.problems == ()
    assert (module.signature is not None) == is_signed
    if module.signature is not None:
        assert (module.signature.schema, module.signature.key_id) == (2, KEY.decode())
        assert module.signature.length == 4 + 16 + 256 + 8 == 284
    assert module.content.read_at(0, module.content.size) == inner
    assert module.kernel is None


def test_only_what_is_wanted_is_decoded() -> None:
    """The directory of a vmtar comes first."""
    module = Module(BytesSource(zipped(forge.vmtar_archive({"first": b"1", **{f"n{n}": NOISE for n in range(30)}}))))
    archive = module.open_archive()
    assert archive["first"].read_bytes() == b"1"
    reader = archive["first"].home.disk
    assert reader.pieces_decoded == 1  # type: ignore[attr-defined]  # of 35


def test_what_is_before_the_cut_of_a_signed_module_is_read() -> None:
    noise = {str(number): random.Random(number).randbytes(9000) for number in range(9)}
    data = gzip.compress(forge.sign(lzma.compress(forge.tar_archive(noise), preset=0)))
    archive = open_archive(BytesSource(data[:70_000]))
    assert archive["0"].read_bytes() == noise["0"]
    assert [problem.structure for problem in archive.problems] == ["gzip member"]


def test_a_kernel() -> None:
    data = zipped(forge.sign(forge.kernel_elf(b"...VMware ESXi 4.1.0 build-260247..."), key_id=KEY))
    module = Module(BytesSource(data))
    assert module.kind == "elf"
    assert module.kernel is not None
    assert (module.kernel.bits, module.kernel.architecture) == (32, "x86")
    assert module.kernel.multiboot == 0x1000
    assert module.kernel.esx_boot_info is None
    assert module.version == ("VMware ESXi", "4.1.0", "260247")
    with pytest.raises(NotAnArchive, match="ELF"):
        module.open_archive()
    assert module.content.size == len(gzip.decompress(data)) - 284


IDENTITY = ("VMware ESXi", "6.7.0", "8169922")


def test_the_forged_identity_is_written_as_a_real_kernel_has_it(tmp_path: Path) -> None:
    """As strings(1) lists those of the decoded kernel of ESXi 6.7.0: three, and no one that holds two of them."""
    (tmp_path / "k").write_bytes(forge.kernel_elf(b"VMware ESX is no version", identity=IDENTITY))
    texts = run("strings", "-n", "5", tmp_path / "k").splitlines()
    assert texts[-3:] == ["6.7.0", "VMware ESXi", "Releasebuild-8169922"]
    assert {"Release", "release"} < set(texts)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", IDENTITY),
        (b"needs VMware ESX 4.0.0 or later\0Releasebuild-\x001.2.3\x00", IDENTITY),
        (b"VMware ESX 4.1.0 build-1234567", IDENTITY),
    ],
    ids=["alone", "decoys", "one string, of another version"],
)
def test_a_version_in_strings_of_their_own(text: bytes, found: tuple[str, str, str]) -> None:
    assert Module(BytesSource(zipped(forge.kernel_elf(text, identity=IDENTITY)))).version == found


def test_a_version_wherever_pieces_of_what_is_read_begin() -> None:
    """A kernel is read in pieces of 1 MiB: the strings lie before, on and behind the end of one."""
    whole = len(forge.kernel_elf(identity=IDENTITY))
    start = 0x1000 + 16 + 17 + 16
    for filler in ((1 << 20) - start - at for at in range(0, whole - start + 300, 5)):
        kernel = forge.kernel_elf(b"\xff" * filler, identity=IDENTITY)
        assert Module(BytesSource(kernel)).version == IDENTITY, filler


@pytest.mark.parametrize("at", range(1, 7))
def test_a_build_is_not_cut_where_a_piece_ends(at: int) -> None:
    text = b"VMware ESXi 4.1.0 build-260247"
    end = (1 << 20) - 0x1000 - 16
    kernel = forge.kernel_elf(b"\xff" * (end - len(text) + at) + text)
    assert Module(BytesSource(kernel)).version == ("VMware ESXi", "4.1.0", "260247")


def test_a_product_apart_from_version_and_build() -> None:
    text = forge.kernel_elf(b"\0VMware ESXi\0" + bytes(2 << 20), identity=("", "6.7.0", "8169922"))
    assert Module(BytesSource(text)).version == IDENTITY
    text = forge.kernel_elf(identity=("", "6.7.0", "8169922"))
    assert Module(BytesSource(text)).version == (None, "6.7.0", "8169922")


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0)], ids=["no bytes", "a gzip of nothing"])
def test_an_empty_module(data: bytes) -> None:
    module = Module(BytesSource(data))
    assert (module.kind, module.layers) == ("empty", ("gzip",) if data else ())
    assert (module.signature, module.kernel, module.microcode) == (None, None, ())
    assert module.content.size == 0
    with pytest.raises(NotAnArchive, match="it is empty"):
        module.open_archive()


INTEL = forge.intel_microcode(0x506E3, 0xC2) + forge.intel_microcode(0x306C3, 0x24, size=4096, released=0x11142017)
AMD = forge.amd_microcode({0x8012: 0x8001213, 0x8310: 0x8301025})


def test_microcode_of_intel() -> None:
    """As iucode_tool lists what the forge makes."""
    module = Module(BytesSource(zipped(INTEL)))
    assert module.kind == "microcode"
    assert module.microcode == (
        MicrocodeUpdate("Intel", 0x506E3, 0xC2, datetime.date(2018, 1, 2), 0, 2048),
        MicrocodeUpdate("Intel", 0x306C3, 0x24, datetime.date(2017, 11, 14), 2048, 4096),
    )
    with pytest.raises(NotAnArchive, match="microcode"):
        module.open_archive()


def test_microcode_of_intel_that_says_no_sizes() -> None:
    """Those before 2003 have 0 for the usual 2,048 bytes, of which 2,000 are data (Intel's manual)."""
    update = bytearray(forge.intel_microcode(0x665, 3))
    total = sum(struct.unpack_from("<II", update, 28))
    checksum = struct.unpack_from("<I", update, 16)[0] + total
    update[28:36] = bytes(8)
    struct.pack_into("<I", update, 16, checksum % (1 << 32))
    assert [found.size for found in Module(BytesSource(bytes(update) * 2)).microcode] == [2048, 2048]


def test_microcode_of_amd() -> None:
    """As the package amd-ucode-container lists what the forge makes; several containers follow each other."""
    module = Module(BytesSource(zipped(AMD + AMD)))
    assert module.kind == "microcode"
    made = datetime.date(2018, 1, 2)
    assert module.microcode[:2] == (
        MicrocodeUpdate("AMD", 0x8012, 0x8001213, made, 68, 960),
        MicrocodeUpdate("AMD", 0x8310, 0x8301025, made, 68 + 960 + 8, 960),
    )
    assert [update.offset - len(AMD) for update in module.microcode[2:]] == [68, 68 + 960 + 8]


def test_damaged_microcode() -> None:
    wrong = bytearray(INTEL)
    wrong[3000] ^= 1
    with pytest.raises(CorruptImage, match="add up") as found:
        _ = Module(BytesSource(bytes(wrong))).microcode
    assert found.value.offset == 2048
    for whole in (INTEL, AMD):
        for end in range(48, len(whole), 97):
            module = Module(BytesSource(whole[:end]))
            assert module.kind == "microcode"
            with contextlib.suppress(CorruptImage):
                assert len(module.microcode) < 2


@pytest.mark.parametrize("start", [b"\1\0\0\0", b"DMA\0", b"DMA\0" + bytes(4) + b"\7"])
def test_what_only_begins_like_microcode(start: bytes) -> None:
    assert Module(BytesSource(start.ljust(4096, b"\0") + NOISE)).kind == "unknown"


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000, 65535])
def test_every_program_header_counts(count: int) -> None:
    """The segment that is loaded lowest is that of the last of them."""
    whole = bytearray(forge.kernel_elf(0x1BADB005.to_bytes(4, "little")))
    segment, start = bytes(whole[52:84]), len(whole)
    body = bytes(whole[0x1000:])
    whole[28:32] = start.to_bytes(4, "little")
    whole[44:46] = count.to_bytes(2, "little")
    data = bytes(whole) + (b"\1" + bytes(31)) * (count - 1)
    lowest = segment[:4] + len(data + segment).to_bytes(4, "little") + bytes(8) + segment[16:]
    kernel = Module(BytesSource(data + lowest + body)).kernel
    assert kernel is not None
    assert kernel.esx_boot_info == len(data + lowest) + 16
    with pytest.raises(CorruptImage, match="bytes wanted"):
        _ = Module(BytesSource(data + lowest[:-1])).kernel
    whole[42:44] = (31).to_bytes(2, "little")
    with pytest.raises(CorruptImage, match=r"program_header_size.*at least 32, found 31"):
        _ = Module(BytesSource(bytes(whole))).kernel


def test_a_kernel_without_a_header_is_none_that_multiboot_loads() -> None:
    module = Module(BytesSource(forge.kernel_elf(multiboot=False)))
    assert module.kernel is not None
    assert module.kernel.multiboot is None


@pytest.mark.parametrize("bits", [32, 64])
def test_programs_that_gcc_made(bits: int, tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    magic = '__attribute__((aligned(8),section(".boot"),used)) const unsigned boot[] = {0x1BADB005, 0, 0};'
    source.write_text(magic + "void start(void) { for (;;); }")
    script = tmp_path / "script"
    script.write_text("ENTRY(start) SECTIONS { . = 0x200000; .a : { *(.boot) *(.text*) } }")
    run("gcc", f"-m{bits}", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-fno-asynchronous-unwind-tables",
        "-Wl,--build-id=none", "-T", script, source, "-o", tmp_path / "a")  # fmt: skip
    kernel = Module(BytesSource((tmp_path / "a").read_bytes())).kernel
    assert kernel is not None
    listed = run("readelf", "-hW", tmp_path / "a")
    assert f"Entry point address:               {kernel.entry:#x}" in listed
    assert (kernel.bits, kernel.architecture) == (bits, "x86" if bits == 32 else "x86-64")
    assert kernel.esx_boot_info is not None
    assert (tmp_path / "a").read_bytes()[kernel.esx_boot_info :][:4] == b"\x05\xb0\xad\x1b"


def test_lengths_of_signatures_that_make_no_sense() -> None:
    for length in (1 << 31, 70_000, 5000):
        data = bytes(3000) + length.to_bytes(4, "little") + (0x1ABE11ED).to_bytes(4, "little")
        with pytest.raises(CorruptImage, match="longer"):
            find_signature(BytesSource(data))
    assert find_signature(BytesSource(b"")) is None
    assert find_signature(BytesSource(bytes(100))) is None


def test_any_damage_to_a_program() -> None:
    whole = forge.kernel_elf(b"text")
    chosen = random.Random(1)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(3):
            data[chosen.randrange(0, 90)] = chosen.randrange(256)
        try:
            module = Module(BytesSource(data))
            assert module.kernel is None or module.kernel.bits in (32, 64)
        except CorruptImage:
            continue


def test_through_a_disk() -> None:
    tgz = gzip.compress(forge.tar_archive({"etc/vmware/x": b"inside"}))
    with Image.open(small_disk({"binmod.tgz": tgz})) as image:
        file = image.partitions["Hypervisor1"].files["binmod.tgz"]
        assert file.open_archive()["etc/vmware/x"].read_bytes() == b"inside"
        assert file.open_module().kind == "tar"
        assert image.partitions["Hypervisor0"].files["mboot.c32"].open_module().kind == "unknown"


class TestState:
    LOCAL = gzip.compress(forge.tar_archive({"etc/hosts": b"127.0.0.1", "etc/passwd": b"root"}), mtime=0)
    INFO = forge.encryption_info(b"the first secret", b"the second one..")

    def open(self, files: dict[str, bytes], name: str = "state.tgz", key: bytes | None = None) -> dict[str, bytes]:
        state = gzip.compress(forge.tar_archive(files))
        with Image.open(small_disk({name: state})) as image:
            archive = open_state(image.partitions["Hypervisor1"].files[name], key=key)
            return {file.path: file.read_bytes() for file in archive.values()}

    def test_plain(self) -> None:
        assert self.open({"local.tgz": self.LOCAL}) == {"etc/hosts": b"127.0.0.1", "etc/passwd": b"root"}
        assert self.open({"etc/hosts": b"x"}, "local.tgz") == {"etc/hosts": b"x"}
        with pytest.raises(PathNotFound):
            self.open({"other": b""})

    @pytest.mark.parametrize("name", ["encryption.info", ".#encryption.info"])
    def test_encrypted(self, name: str) -> None:
        encrypted = forge.encrypt(self.LOCAL, self.INFO)
        assert self.open({"local.tgz.ve": encrypted, name: self.INFO})["etc/passwd"] == b"root"

    @pytest.mark.parametrize("size", [65535, 65536, 70000])
    def test_what_the_key_is_derived_from_is_read_up_to_its_largest_size(self, size: int) -> None:
        encrypted = forge.encrypt(self.LOCAL, self.INFO)
        info = b"#".ljust(size - len(self.INFO) - 1) + b"\n" + self.INFO
        files = {"local.tgz.ve": encrypted, "encryption.info": info}
        if size <= 65536:
            assert self.open(files)["etc/passwd"] == b"root"
        else:
            with pytest.raises(CorruptImage, match="no key is in its first 65536 bytes, and no more are read"):
                self.open(files)

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 94_293])
    def test_what_is_forged_is_what_dissect_decrypts(self, size: int, tmp_path: Path) -> None:
        """94,293 bytes are the content of the real file whose layout this is; the padding of that is 4,011 bytes."""
        content = random.Random(size).randbytes(size)
        encrypted = forge.encrypt(content, self.INFO)
        assert len(encrypted) == 3 * 4096 + size + -size % 4096
        (tmp_path / "local.tgz.ve").write_bytes(encrypted)
        (tmp_path / "encryption.info").write_bytes(self.INFO)
        command = [require_oracle(), REPOSITORY / "tests" / "dissect_envelope.py"]
        files = [tmp_path / "local.tgz.ve", tmp_path / "encryption.info"]
        assert subprocess.run([*command, *files], capture_output=True, check=True).stdout == content
        assert envelope.decrypt(BytesSource(encrypted), envelope.key_of(self.INFO)) == content

    def test_the_last_block_is_random_but_for_its_last_512_bytes(self) -> None:
        """As in a real file: the record's magic begins 512 bytes before the end, the padding's length 8 bytes."""
        encrypted = forge.encrypt(b"content", self.INFO, initial=bytes(12))
        sealed = encrypted[4096:-4096] + encrypted[-4096 + 32 : -4096 + 48]
        key = envelope.key_of(self.INFO)
        plain = AESGCM(key).decrypt(bytes(12), sealed, encrypted[:4096] + b"ESXConfiguration")
        assert plain[-512:-487] == b"DataTransformCryptoFooter"
        assert (int.from_bytes(plain[-8:-4], "little"), int.from_bytes(plain[-4:], "little")) == (4089, 2)
        assert any(plain[-4096:-512])
        assert encrypted[0x1F8:0x200] == bytes.fromhex("000e000002000000")
        assert encrypted[-8:] == bytes.fromhex("1000000001000000")

    @pytest.mark.parametrize("padding", [4097, 8193, 0xFFFFFFFF])
    def test_a_last_block_that_tells_of_more_than_there_is(self, padding: int) -> None:
        key = envelope.key_of(self.INFO)
        header = forge.encrypt(b"", self.INFO, initial=bytes(12))[:4096]
        plain = bytes(4096 + 3584) + b"DataTransformCryptoFooter".ljust(504, b"\0")
        sealed = AESGCM(key).encrypt(
            bytes(12), plain + padding.to_bytes(4, "little") + b"\2\0\0\0", header + b"ESXConfiguration"
        )
        footer = b"DataTransformAeadFooter".ljust(32, b"\0") + sealed[-16:]
        damaged = header + sealed[:-16] + footer.ljust(4088, b"\0") + bytes.fromhex("1000000001000000")
        with pytest.raises(CorruptImage, match="how long the content is"):
            envelope.decrypt(BytesSource(damaged), key)

    def test_with_a_key(self) -> None:
        encrypted = forge.encrypt(self.LOCAL, self.INFO)
        assert self.open({"local.tgz.ve": encrypted}, key=envelope.key_of(self.INFO))["etc/passwd"] == b"root"
        with pytest.raises(KeyUnavailable, match="another key"):
            self.open({"local.tgz.ve": encrypted}, key=bytes(32))

    def test_the_key_is_in_a_tpm(self) -> None:
        encrypted = forge.encrypt(self.LOCAL, self.INFO)
        with pytest.raises(KeyUnavailable, match="TPM"):
            self.open({"local.tgz.ve": encrypted})
        sealed = forge.encryption_info(b"", b"", mode="TPM")
        with pytest.raises(KeyUnavailable, match="'TPM'"):
            self.open({"local.tgz.ve": encrypted, "encryption.info": sealed})

    def test_it_is_explained(self) -> None:
        encrypted = BytesSource(forge.encrypt(self.LOCAL, self.INFO))
        assert "AES-256-GCM" in envelope.read_envelope(encrypted).explain()
        module = Module(encrypted)
        assert module.kind == "envelope"
        with pytest.raises(NotAnArchive, match=r"local\.tgz\.ve"):
            open_archive(encrypted)
        with pytest.raises(NotAnArchive, match="encrypted"):
            module.open_archive()

    @pytest.mark.parametrize("over", [0, 1])
    def test_an_envelope_is_decrypted_up_to_the_largest_size(self, over: int, monkeypatch: pytest.MonkeyPatch) -> None:
        encrypted = forge.encrypt(self.LOCAL, self.INFO)
        key = envelope.key_of(self.INFO)
        monkeypatch.setattr(envelope, "_LARGEST", len(encrypted) - over)
        if not over:
            assert envelope.decrypt(BytesSource(encrypted), key) == self.LOCAL
        else:
            with pytest.raises(CorruptImage, match=f"more than the {len(encrypted) - 1} that are decrypted"):
                envelope.decrypt(BytesSource(encrypted), key)

    def test_any_damage(self) -> None:
        encrypted = forge.encrypt(self.LOCAL, self.INFO)
        key = envelope.key_of(self.INFO)
        assert envelope.decrypt(BytesSource(encrypted), key) == self.LOCAL
        chosen = random.Random(5)
        refused = 0
        places = [*range(0x200, 0x2F0), *(chosen.randrange(len(encrypted) - 4000) for _ in range(100))]
        for place in places:
            data = bytearray(encrypted)
            data[place] ^= 1 << chosen.randrange(8)
            with pytest.raises((CorruptImage, KeyUnavailable)):
                envelope.decrypt(BytesSource(data), key)
            refused += 1
        assert refused == len(places)
        for length in range(0, len(encrypted), 500):
            with pytest.raises(CorruptImage):
                envelope.decrypt(BytesSource(encrypted[:length]), key)

    def test_the_key_of_a_published_example(self) -> None:
        """Published with dissect.hypervisor: what a real host had, and the key that decrypts its configuration."""
        data = (
            "keyId=fmLOxWrvTX6Di8rjLu/SUQ%3d%3d:data1=Uz8MFZfqTbWN2jIHbFPhag%3d%3d:"
            "data2=IDcZE41aR+uxDv7Iz8zJSA%3d%3d:version=1"
        )
        info = f'.encoding = "UTF-8"\nincludeKeyCache = "FALSE"\nmode = "NONE"\nConfigEncData = "{data}"\n'
        expected = "ae29634dca8627013f7c7cf2d05b4d5cc444d42cd4e8acbaa4fb815dda3b3066"
        assert envelope.key_of(info.encode()).hex() == expected

    @pytest.mark.parametrize("info", [b"", b'mode = "NONE"', b'mode = "NONE"\nConfigEncData = "data1=%%:data2=x"\n'])
    def test_damaged_key_material(self, info: bytes) -> None:
        with pytest.raises((CorruptImage, KeyUnavailable)):
            envelope.key_of(info)


def test_an_open_module_travels() -> None:
    tgz = gzip.compress(lzma.compress(forge.tar_archive({"a": b"x"})))
    with Image.open(small_disk({"s.v00": tgz})) as image:
        data = image.disk.read_at(0, image.size)
    image = Image(data)
    inner = image.partitions["Hypervisor1"].files["s.v00"].open_archive()["a"]
    copy = pickle.loads(pickle.dumps(inner))
    assert isinstance(copy, File)
    assert copy.read_bytes() == b"x"
