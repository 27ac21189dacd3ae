"""VIBs, bundles, image databases and signatures; judges are ``openssl``, ``ar``, ``unzip``, ``xmllint`` and others."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import lzma
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support import require_tool
from vmvisor_image import CorruptImage, Image, InvalidArgument, NotAnArchive, fleet, verify
from vmvisor_image.boot.provenance import Verdict
from vmvisor_image.compressions.gzip import GzipDecoder
from vmvisor_image.faces.cli.main import main
from vmvisor_image.packages.bundle import open_bundle
from vmvisor_image.packages.certificates import Certificate, open_certificates
from vmvisor_image.packages.descriptor import parse_descriptor
from vmvisor_image.packages.payload_pass import hash_payload
from vmvisor_image.packages.signatures import SignatureState, check_module, check_signed_data, module_hashes
from vmvisor_image.packages.vib import Fit, Vib, check_payload, fit_of, open_vib
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_iso import iso_volume
from vmvisor_image.testing.forge_modules import kernel_elf, sign, tar_archive, vmtar_archive
from vmvisor_image.testing.forge_packages import (
    ForgedPayload,
    archive_payload,
    descriptor,
    image_database,
    image_profile,
    offline_bundle,
    vib,
)

FILES = {"usr/lib/vmware/vmkmod/driver": b"\x7fELF" + bytes(9000), "etc/vmware/driver.map.d/driver.map": b"a map\n"}
KEY_ID = b"vmware_esx67".ljust(16, b"\0")


def openssl(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """``openssl`` with these arguments."""
    return subprocess.run([require_tool("openssl"), *arguments], input=stdin, capture_output=True, check=False)


@dataclass(frozen=True)
class Signer:
    """A key, and its certificate, made by ``openssl``."""

    folder: Path
    name: str

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    @property
    def pem(self) -> Path:
        return self.folder / f"{self.name}.pem"

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        return open_certificates(self.pem)

    def signed_data(self, content: bytes, *more: str | Path) -> bytes:
        """A detached signature in PEM, as VIBs have it."""
        command = ("smime", "-sign", "-binary", "-outform", "PEM", "-md", "sha256", *more)
        done = openssl(*command, "-signer", self.pem, "-inkey", self.key, stdin=content)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def raw(self, content: bytes) -> bytes:
        """An RSA signature with SHA-512, as modules have it."""
        done = openssl("dgst", "-sha512", "-sign", self.key, stdin=content)
        assert done.returncode == 0, done.stderr
        return done.stdout


def make_signer(
    folder: Path,
    name: str,
    *,
    exponent: int = 65537,
    above: Signer | None = None,
    ca: bool = True,
    digest: str = "sha512",
) -> Signer:
    """A key of 2048 bits and its certificate, signed with itself or with the key of `above`."""
    signer = Signer(folder, name)
    options = ("-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", f"rsa_keygen_pubexp:{exponent}")
    assert openssl("genpkey", "-algorithm", "RSA", *options, "-out", signer.key).returncode == 0
    extension = ("-addext", f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}")
    request = (
        "req",
        "-new",
        "-x509",
        "-key",
        signer.key,
        "-subj",
        f"/O=Forged/CN={name}",
        "-days",
        "3650",
        f"-{digest}",
    )
    by = () if above is None else ("-CA", above.pem, "-CAkey", above.key)
    done = openssl(*request, *extension, *by, "-out", signer.pem)
    assert done.returncode == 0, done.stderr
    return signer


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """A key with exponent 3, as VMware's are."""
    return make_signer(tmp_path_factory.mktemp("vendor"), "vendor", exponent=3)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def payload() -> ForgedPayload:
    return archive_payload("driver", FILES)


def judged(content: bytes, signature: bytes, trusted: Path, folder: Path, *options: str | Path) -> bool:
    """Whether ``openssl`` takes a signature for one that a trusted certificate stands behind."""
    (folder / "content").write_bytes(content)
    (folder / "signature").write_bytes(signature)
    command = ("smime", "-verify", "-inform", "PEM", "-binary", "-purpose", "any", "-no_check_time")
    files = ("-in", folder / "signature", "-content", folder / "content", "-CAfile", trusted, "-out", folder / "out")
    return openssl(*command, *files, *options).returncode == 0


def test_a_vib_is_what_ar_and_xmllint_read(payload: ForgedPayload, tmp_path: Path) -> None:
    text = descriptor("driver", [payload])
    (tmp_path / "a.vib").write_bytes(vib(text, [payload], b"a signature"))
    listed = subprocess.run([require_tool("ar"), "t", tmp_path / "a.vib"], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["descriptor.xml", "sig.pkcs7", "driver"]
    for name, data in (("descriptor.xml", text), ("sig.pkcs7", b"a signature"), ("driver", payload.data)):
        assert subprocess.run(["ar", "p", tmp_path / "a.vib", name], capture_output=True, check=True).stdout == data
    done = subprocess.run([require_tool("xmllint"), "--noout", "-"], input=text, check=False)
    assert done.returncode == 0
    query = (
        "--xpath",
        "string(/vib/payloads/payload/checksum[@checksum-type='sha-256' and not(@verify-process)])",
        "-",
    )
    named = subprocess.run(["xmllint", *query], input=text, capture_output=True, check=True).stdout.strip()
    summed = subprocess.run([require_tool("sha256sum")], input=payload.data, capture_output=True, check=True).stdout
    assert named == summed.split()[0]
    (tmp_path / "tgz").write_bytes(archive_payload("t", FILES, kind="tgz").data)
    assert subprocess.run([require_tool("gzip"), "-t"], input=payload.data, check=False).returncode == 0
    names = subprocess.run([require_tool("tar"), "tzf", tmp_path / "tgz"], capture_output=True, text=True, check=True)
    assert set(names.stdout.split()) >= set(FILES)


def test_a_vib_is_read(payload: ForgedPayload) -> None:
    found = open_vib(vib(descriptor("driver", [payload]), [payload]))
    assert found.id == "VMW_bootbank_driver_1.0-1vmw.800.0.0.1"
    assert (found.name, found.version) == ("driver", "1.0-1vmw.800.0.0.1")
    assert found.descriptor.acceptance_level == "certified"
    assert [str(each) for each in found.descriptor.replaces] == ["older << 1.0"]
    assert found.descriptor.platforms == ("embeddedEsx 8.0",)
    assert {path: file.read_bytes() for path, file in found.files.items()} == FILES
    assert set(found.descriptor.files) == set(FILES)
    assert found.files.origin("etc/vmware/driver.map.d/driver.map") == "driver"
    assert [each.is_right for each in found.payloads["driver"].check()] == [True, True, True]
    assert found.problems == ()
    assert found.check_signature().state is SignatureState.UNSIGNED
    assert repr(found) == "<Vib VMW_bootbank_driver_1.0-1vmw.800.0.0.1>"


def test_a_payload_that_can_t_be_opened_is_a_problem_at_once() -> None:
    other = ForgedPayload("driver", b"no archive", b"no archive")
    found = open_vib(vib(descriptor("driver", [other]), [other])).problems
    assert any("'driver' can't be opened" in str(problem) for problem in found)


def changed_payload(payload: ForgedPayload) -> bytes:
    inner = vmtar_archive(FILES | {"etc/vmware/driver.map.d/driver.map": b"A map\n"})
    return gzip.compress(inner, mtime=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data, _: data.replace(b"certified", b"community"), None),
        (lambda data, _: data[: data.index(b"sig.pkcs7")], "'driver' is not there"),
        (
            lambda data, _: data + data[data.index(b"driver  ") :].replace(b"driver  ", b"another "),
            "'another' is not described",
        ),
        (lambda data, _: data.replace(b"<file>etc", b"<file>opt"), "it lists 'opt/vmware/driver.map.d/driver.map'"),
        (
            lambda data, _: data.replace(b"<file>etc", b"<file>opt"),
            "a payload has 'etc/vmware/driver.map.d/driver.map'",
        ),
        (lambda data, _: data[:-4] + b"\0\0\0\0", "other than by the description|another checksum|can't be decoded"),
    ],
)
def test_what_does_not_fit_a_description_is_a_problem(
    payload: ForgedPayload, change: Callable[[bytes, bytes], bytes], said: str | None
) -> None:
    text = descriptor("driver", [payload])
    found = open_vib(change(vib(text, [payload]), text))
    problems = "\n".join(map(str, found.problems))
    if said is None:
        assert problems == ""
    else:
        assert any(part in problems for part in said.split("|")), problems


def test_checksums_that_can_be_forged_do_not_make_a_payload(payload: ForgedPayload) -> None:
    """SHA-1 alone is no proof; a module that was compressed anew is the same payload."""
    anew = gzip.compress(payload.decoded, compresslevel=1, mtime=7)
    other = changed_payload(payload)
    described = open_vib(vib(descriptor("driver", [payload]), [payload])).payloads["driver"].description
    weak = descriptor("driver", [payload]).replace(b'"sha-256" verify-process="gunzip"', b'"md5" verify-process="x"')

    def fit(data: bytes, text: bytes | None = None) -> Fit:
        one = ForgedPayload("driver", data, b"")
        of = described if text is None else parse_descriptor(text).payloads[0]
        held = open_vib(vib(descriptor("holder", [one]), [one]))
        file = held.payloads["driver"].file
        assert file is not None
        return fit_of(check_payload(file, of))

    assert (fit(payload.data), fit(anew), fit(other)) == (Fit.STORED, Fit.DECODED, Fit.OTHER)
    assert (fit(payload.data, weak), fit(anew, weak)) == (Fit.STORED, Fit.OTHER)


def test_signatures_are_as_openssl_says(
    payload: ForgedPayload, vendor: Signer, stranger: Signer, tmp_path: Path
) -> None:
    text = descriptor("driver", [payload])
    signature = vendor.signed_data(text)
    states = {}
    for name, content, by in (("whole", text, vendor), ("changed", text + b" ", vendor), ("unknown", text, stranger)):
        check = check_signed_data(content, signature, by.certificates)
        assert check.is_verified == judged(content, signature, by.pem, tmp_path), name
        states[name] = check.state
    assert states == {
        "whole": SignatureState.VERIFIED,
        "changed": SignatureState.WRONG,
        "unknown": SignatureState.UNKNOWN_SIGNER,
    }
    check = open_vib(vib(text, [payload], signature)).check_signature(vendor.certificates)
    assert check.is_verified
    assert check.signer == check.trusted == vendor.certificates[0]
    assert check.signed_at is not None
    without = vendor.signed_data(text, "-noattr")
    assert check_signed_data(text, without, vendor.certificates).is_verified
    assert check_signed_data(text, vendor.signed_data(text, "-nocerts"), vendor.certificates).is_verified
    assert check_signed_data(text, vendor.signed_data(text, "-nocerts"), ()).state is SignatureState.NOT_CHECKED
    assert check_signed_data(text, signature, ()).state is SignatureState.UNKNOWN_SIGNER


@pytest.mark.parametrize("delivers", [True, False])
def test_no_changed_signature_is_taken(
    *, delivers: bool, payload: ForgedPayload, vendor: Signer, tmp_path: Path
) -> None:
    """What openssl refuses is never verified, except where only a certificate in it, which is not needed, is bad."""
    text = descriptor("driver", [payload])
    pem = vendor.signed_data(text, *(() if delivers else ("-nocerts",)))
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    [trusted] = vendor.certificates
    refused = 0
    source = random.Random(22)
    for _ in range(120):
        at = source.randrange(len(der))
        changed = bytearray(der)
        changed[at] ^= 1 << source.randrange(8)
        wrapped = b"-----BEGIN PKCS7-----\n" + base64.encodebytes(bytes(changed)) + b"-----END PKCS7-----\n"
        try:
            check = check_signed_data(text, wrapped, vendor.certificates)
        except CorruptImage:
            refused += 1
            continue
        if not check.is_verified:
            refused += 1
        elif delivers:
            assert check.signer == check.trusted == trusted, f"bit of byte {at}"
        else:
            options = ("-nointern", "-certfile", vendor.pem)
            assert judged(text, wrapped, vendor.pem, tmp_path, *options), f"bit of byte {at}"
    assert refused > 40
    for cut in range(0, len(pem), 97):
        try:
            assert not check_signed_data(text, pem[:cut], vendor.certificates).is_verified
        except CorruptImage:
            continue


def cube_root(key_bytes: int, prefix: bytes) -> bytes:
    """A number whose cube begins with `prefix`: a signature for whoever does not compare the end (CVE-2006-4339)."""
    wanted = int.from_bytes(prefix.ljust(key_bytes, b"\xff"), "big")
    low, high = 0, 1 << (8 * key_bytes // 3 + 2)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= wanted else (low, middle - 1)
    assert (low**3).to_bytes(key_bytes, "big").startswith(prefix)
    return low.to_bytes(key_bytes, "big")


SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""DigestInfo before a digest of SHA-256 (RFC 8017, section 9.2)."""


@pytest.mark.parametrize("padding", [b"\0\1" + b"\xff" * 8 + b"\0", b"\0\1\0", b"\0\1\xff\0"])
def test_a_cube_root_is_no_signature(padding: bytes, payload: ForgedPayload, vendor: Signer, tmp_path: Path) -> None:
    text = descriptor("driver", [payload])
    der = base64.b64decode(b"".join(vendor.signed_data(text, "-noattr").splitlines()[1:-1]))
    root = cube_root(256, padding + SHA256_INFO + hashlib.sha256(text).digest())
    wrapped = b"-----BEGIN PKCS7-----\n" + base64.encodebytes(der[:-256] + root) + b"-----END PKCS7-----\n"
    assert check_signed_data(text, wrapped, vendor.certificates).state is SignatureState.WRONG
    assert not judged(text, wrapped, vendor.pem, tmp_path)
    vendor_256 = make_signer(tmp_path, "vendor256", exponent=3, digest="sha256")
    data = b"a module that nobody signed"
    covered = hashlib.sha256(data + (4).to_bytes(4, "little")).digest()
    forged = sign(data, key_id=KEY_ID, schema=4, make=lambda _: cube_root(256, padding + SHA256_INFO + covered))
    assert state_of(forged, vendor_256.certificates) is SignatureState.NOT_CHECKED


def state_of(module: bytes, certificates: tuple[Certificate, ...]) -> SignatureState:
    """State of the signature of a module."""
    one = ForgedPayload("b", gzip.compress(module, mtime=0), module)
    return open_vib(vib(descriptor("b", [one]), [one])).payloads["b"].check_signature(certificates).state


def test_modules_are_verified(vendor: Signer, stranger: Signer) -> None:
    signed = sign(kernel_elf(), key_id=KEY_ID, schema=4, make=vendor.raw)
    both = (*stranger.certificates, *vendor.certificates)
    assert state_of(signed, both) is SignatureState.VERIFIED
    assert state_of(signed, stranger.certificates) is SignatureState.NOT_CHECKED
    assert state_of(signed, ()) is SignatureState.NOT_CHECKED
    assert state_of(kernel_elf(), both) is SignatureState.UNSIGNED
    for at in (0, len(kernel_elf()) - 1, len(kernel_elf())):  # the last is the schema, which is covered
        changed = bytearray(signed)
        changed[at] ^= 1
        assert state_of(bytes(changed), both) is SignatureState.NOT_CHECKED, at


def test_a_chain_ends_at_a_trusted_certificate(payload: ForgedPayload, tmp_path: Path) -> None:
    root = make_signer(tmp_path, "root")
    below = make_signer(tmp_path, "below", above=root)
    leaf = make_signer(tmp_path, "leaf", above=below, ca=False)
    astray = make_signer(tmp_path, "astray", above=leaf)  # a certificate that was not allowed to issue one
    text = descriptor("driver", [payload])
    for signer, delivered, right in ((leaf, [below], True), (leaf, [], False), (astray, [leaf, below], False)):
        chain = tmp_path / "chain"
        chain.write_bytes(b"".join(each.pem.read_bytes() for each in delivered))
        more = ("-certfile", chain) if delivered else ()
        signature = signer.signed_data(text, *more)
        check = check_signed_data(text, signature, root.certificates)
        assert check.is_verified is right, check
        assert check.is_verified == judged(text, signature, root.pem, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b'<!DOCTYPE vib [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><vib>&b;</vib>',
        b'<!DOCTYPE vib [<!ENTITY file SYSTEM "file:///etc/passwd">]><vib><name>&file;</name></vib>',
        b'<!DOCTYPE vib SYSTEM "http://127.0.0.1:9/vib.dtd"><vib/>',
        b"<vib>" * 100_000,
        b"<vib><name>cut",
        b'<?xml version="1.0" encoding="no-such-code"?><vib/>',
        b"<other/>",
        b"<vib/>",
        b"\0\1\2",
    ],
)
def test_xml_that_nobody_vouches_for(text: bytes) -> None:
    with pytest.raises(CorruptImage):
        parse_descriptor(text)
    with pytest.raises(CorruptImage):
        open_vib(vib(text, []))


def test_bundles(payload: ForgedPayload, tmp_path: Path) -> None:
    text = descriptor("driver", [payload])
    package = vib(text, [payload])
    profile = image_profile("ESXi-forged-standard", {parse_descriptor(text).id: {"driver": "driver.v00"}})
    (tmp_path / "bundle.zip").write_bytes(offline_bundle([package], [text], profile))
    folder = tmp_path / "depot"
    subprocess.run([require_tool("unzip"), "-q", tmp_path / "bundle.zip", "-d", folder], check=True)
    subprocess.run([require_tool("xmllint"), "--noout", folder / "index.xml", folder / "vendor-index.xml"], check=True)
    assert subprocess.run(["xmllint", "--noout", "-"], input=profile, check=False).returncode == 0
    for source in (tmp_path / "bundle.zip", folder, folder / "index.xml", (folder / "index.xml").as_uri()):
        with open_bundle(source) as bundle:
            assert list(bundle.vibs) == [parse_descriptor(text).id]
            assert list(bundle.components) == ["forged-1"]
            assert bundle.components["forged-1"].vib_ids == tuple(bundle.vibs)
            assert bundle.profiles["ESXi-forged-standard"].vib_ids == tuple(bundle.vibs)
            assert bundle.check() == ()
            [listed] = bundle.vibs.values()
            assert listed.descriptor == parse_descriptor(text)
            assert {path: file.read_bytes() for path, file in listed.open().files.items()} == FILES


def test_a_bundle_says_what_does_not_fit(payload: ForgedPayload, tmp_path: Path) -> None:
    text = descriptor("driver", [payload])
    package = vib(text, [payload])
    other = vib(text.replace(b">driver<", b">intruder<"), [payload])
    whole = offline_bundle([package], [text])
    (tmp_path / "bundle.zip").write_bytes(whole)
    folder = tmp_path / "depot"
    subprocess.run([require_tool("unzip"), "-q", tmp_path / "bundle.zip", "-d", folder], check=True)
    [path] = folder.rglob("*.vib")
    path.write_bytes(other)
    with open_bundle(folder) as bundle:
        said = "\n".join(map(str, bundle.check()))
        assert "not that of the metadata" in said
        assert "is 'VMW_bootbank_intruder_1.0-1vmw.800.0.0.1'" in said
    path.unlink()
    with open_bundle(folder) as bundle:
        assert "can't be read" in "\n".join(map(str, bundle.check()))
    for place in ("../../../etc/passwd", "/etc/passwd", "c:\\windows", "a/../../b"):
        bad = (folder / "vendor-index.xml").read_text().replace("metadata.zip", place)
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "index.xml").write_bytes((folder / "index.xml").read_bytes())
        (tmp_path / "bad" / "vendor-index.xml").write_text(bad)
        with open_bundle(tmp_path / "bad") as bundle:
            assert not bundle.vibs
            assert "would leave" in str(bundle.problems) or "path separator" in str(bundle.problems)
    with pytest.raises(NotAnArchive, match="depot"):
        open_bundle(tmp_path)
    with pytest.raises(NotAnArchive, match="no bundle"):
        open_bundle(package)


def test_base_images_and_add_ons(payload: ForgedPayload) -> None:
    """Each key may be missing; what is no such document loses no other, and what is of no known kind is named."""
    text = descriptor("driver", [payload])
    base = {
        "releaseID": "ESXi 8.0.3-0.0.24022510",
        "baseImageSpec": {"version": "8.0.3-0.0.24022510", "uiString": "8.0 U3"},
        "vendor": "VMware, Inc.",
        "releaseDate": "2024-06-25T00:00:00+00:00",
        "components": {"ESXi": "8.0.3-0.0.24022510", "forged": "1"},
    }
    add_on = {
        "addonSpec": {"name": "OEM-Addon", "version": "803.1", "uiString": "OEM for 8.0 U3"},
        "components": [{"name": "forged", "version": "1"}, "other", 7, {}],
        "removedComponents": ["ESXi-drivers"],
    }
    more = {
        "baseimages/one.json": json.dumps(base).encode(),
        "addons/two.json": json.dumps(add_on).encode(),
        "addons/three.json": b'{"components": null}',
        "addons/list.json": b"[1]",
        "addons/deep.json": b"[" * 100_000,
        "addons/bytes.json": b"\xff",
        "manifests/hardware.json": b"{}",
        "notes.txt": b"",
    }
    with open_bundle(offline_bundle([vib(text, [payload])], [text], more=more)) as bundle:
        [image] = bundle.base_images.values()
        assert (image.id, image.version, image.title) == (base["releaseID"], "8.0.3-0.0.24022510", "8.0 U3")
        assert (image.vendor, str(image.released)) == ("VMware, Inc.", "2024-06-25 00:00:00+00:00")
        assert dict(image.components) == base["components"]
        assert list(bundle.add_ons) == ["OEM-Addon 803.1", "three"]
        found = bundle.add_ons["OEM-Addon 803.1"]
        assert dict(found.components) == {"forged": "1", "other": ""}
        assert found.removed == ("ESXi-drivers",)
        assert [problem.message.split(": ")[1] for problem in bundle.problems] == [
            *("addons/list.json", "addons/deep.json", "addons/bytes.json")
        ]
        assert bundle.unread == ("metadata.zip: manifests/hardware.json", "metadata.zip: notes.txt")
        assert len(bundle.vibs) == 1


def test_a_document_that_can_t_be_read_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    many = archive_payload("many", {f"bin/a-rather-long-name-{number}": b"" for number in range(200)})
    few = archive_payload("few", FILES)
    texts = [descriptor("first", [many]), descriptor("second", [few])]
    bundle = offline_bundle([vib(texts[0], [many]), vib(texts[1], [few])], texts)
    monkeypatch.setattr("vmvisor_image.packages.bundle.LARGEST", len(texts[0]) - 1)
    found = open_bundle(bundle)
    described = {listed.id.split("_")[2]: listed.descriptor is not None for listed in found.vibs.values()}
    assert described == {"first": False, "second": True}
    assert ["vibs/first-1.xml" in str(problem) for problem in found.problems] == [True]


def test_certificates(vendor: Signer, stranger: Signer, tmp_path: Path) -> None:
    both = vendor.pem.read_bytes() + stranger.pem.read_bytes()
    (tmp_path / "both.pem").write_bytes(vendor.key.read_bytes() + both)
    der = openssl("x509", "-in", vendor.pem, "-outform", "DER").stdout
    (tmp_path / "one.cer").write_bytes(der)
    (tmp_path / "readme.txt").write_text("not one")
    found = open_certificates(tmp_path)
    assert found == (*vendor.certificates, *stranger.certificates)
    printed = openssl("x509", "-in", vendor.pem, "-noout", "-fingerprint", "-sha256", "-serial").stdout.decode().lower()
    assert found[0].sha256 == printed.partition("fingerprint=")[2].splitlines()[0].replace(":", "")
    assert found[0].serial == printed.partition("serial=")[2].strip().lstrip("0")
    for bad in (b"no certificate", b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(InvalidArgument, match="certificate"):
            open_certificates(bad)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match="no certificate in the folder"):
        open_certificates(tmp_path / "empty")


@dataclass(frozen=True)
class Host:
    """A CD of ESXi with packages, of which one module can be changed."""

    vendor: Signer

    def image(self, **changed: bytes) -> Image:
        """The CD; `changed` are the bytes of modules, by name with an underscore for the dot."""
        payload = archive_payload("driver", FILES)
        anew = archive_payload("anew", {"bin/anew": b"compressed anew by the installer"})
        alien = gzip.compress(tar_archive({"bin/alien": b"of no package"}), mtime=0)
        kernel = sign(kernel_elf(identity=("VMware ESXi", "8.0.0", "1")), key_id=KEY_ID, schema=4, make=self.vendor.raw)
        boot = ForgedPayload("b", gzip.compress(kernel, mtime=0), kernel, "boot")
        community = archive_payload("tool", {"opt/tool": b"of a community package"}, kind="tgz")
        texts = [
            descriptor("esx-base", [boot, payload, anew]),
            descriptor("tool", [community], vendor="someone", acceptance_level="community"),
        ]
        ids = [parse_descriptor(text).id for text in texts]
        files = {
            ids[0]: {"b": "b.b00", "driver": "driver.v00", "anew": "anew.v00"},
            ids[1]: {"tool": "tool.t00"},
        }
        signatures = [self.vendor.signed_data(texts[0]), b""]
        database = image_database(image_profile("forged", files), [*zip(texts, signatures, strict=True)])
        modules = {
            "b.b00": boot.data,
            "driver.v00": payload.data,
            "anew.v00": gzip.compress(anew.decoded, compresslevel=1, mtime=1),
            "tool.t00": community.data,
            "alien.v00": alien,
            "imgdb.tgz": database,
            "state.tgz": gzip.compress(tar_archive({"local.tgz": gzip.compress(tar_archive({"etc/x": b"y"}))})),
        }
        modules |= {name.replace("_", "."): data for name, data in changed.items()}
        names = " --- ".join(name for name in modules if name != "b.b00")
        config = f"bootstate=0\ntitle=Loading\nkernel=b.b00\nkernelopt=\nmodules={names}\nbuild=8.0.0-1\nupdated=1\n"
        return Image.open(iso_volume({"boot.cfg": config.encode(), **modules}))


@pytest.fixture(scope="module")
def host(vendor: Signer) -> Host:
    return Host(vendor)


def verdicts(image: Image, certificates: tuple[Certificate, ...] = ()) -> dict[str, str]:
    return {each.name: each.verdict.value for each in image.system().provenance(certificates).modules}


def test_where_modules_come_from(host: Host) -> None:
    with host.image() as image:
        assert verdicts(image, host.vendor.certificates) == {
            "b.b00": "verified",
            "driver.v00": "verified",
            "anew.v00": "verified",
            "tool.t00": "belongs",
            "alien.v00": "unsigned",
            "imgdb.tgz": "unsigned",
            "state.tgz": "unsigned",
        }
        assert verdicts(image) == {
            "b.b00": "belongs",
            "driver.v00": "belongs",
            "anew.v00": "belongs",
            "tool.t00": "belongs",
            "alien.v00": "unsigned",
            "imgdb.tgz": "unsigned",
            "state.tgz": "unsigned",
        }
        found = image.system().provenance(host.vendor.certificates)
        assert {each.id.split("_")[2]: each.verdict for each in found.vibs} == {
            "esx-base": Verdict.VERIFIED,
            "tool": Verdict.UNSIGNED,
        }
        assert [each.modules for each in found.vibs] == [("b.b00", "driver.v00", "anew.v00"), ("tool.t00",)]
        assert found.owners["opt/tool"] == found.vibs[1].id
        assert "bin/alien" in found.unowned
        assert not set(found.unowned) & {"opt/tool", "etc/x", *FILES}
        assert found.problems == ()
        assert "compressed anew" in found.modules[2].message
        json.dumps(found.to_dict())


def test_one_changed_module_is_found(host: Host) -> None:
    intruder = archive_payload("driver", FILES | {"bin/backdoor": b"#!/bin/sh"}).data
    with host.image(driver_v00=intruder) as image:
        for certificates in ((), host.vendor.certificates):
            found = image.system().provenance(certificates)
            assert [each.name for each in found.altered] == ["driver.v00"]
            assert "other checksums" in found.altered[0].message


@pytest.mark.parametrize("name", ["b.b00", "driver.v00", "anew.v00"])
def test_bytes_behind_the_end_of_a_compression_are_covered_by_nothing(host: Host, name: str) -> None:
    """``gzip`` warns of them, and decodes to the same bytes, so that signatures and checksums of these are right."""
    with host.image() as image:
        [data] = [each.file.read_bytes() for each in image.system().modules if each.name == name and each.file]
    more = data + b"hidden"
    done = subprocess.run([require_tool("gzip"), "-dc"], input=more, capture_output=True, check=False)
    assert done.stdout == gzip.decompress(data)
    assert b"trailing garbage ignored" in done.stderr
    with host.image(**{name.replace(".", "_"): more}) as image:
        for certificates in ((), host.vendor.certificates):
            [found] = image.system().provenance(certificates).altered
            assert found.name == name
            assert "bytes follow the last member" in found.message
            assert found.trusted is None
    two = gzip.compress(gzip.decompress(data)[:100]) + gzip.compress(gzip.decompress(data)[100:])
    with host.image(**{name.replace(".", "_"): two}) as image:  # what is covered is what all members hold
        assert verdicts(image, host.vendor.certificates)[name] == "verified"
        more = two + gzip.compress(b"hidden")
    with host.image(**{name.replace(".", "_"): more}) as image:
        assert verdicts(image, host.vendor.certificates)[name] == "altered"


def test_a_signed_module_in_another_or_with_more_behind_it_is_not_verified(vendor: Signer) -> None:
    signed = sign(kernel_elf(), key_id=KEY_ID, schema=4, make=vendor.raw)
    assert state_of(signed + b"\0", vendor.certificates) is SignatureState.UNSIGNED
    trailer = signed[len(kernel_elf()) :]
    assert state_of(signed + trailer, vendor.certificates) is SignatureState.NOT_CHECKED
    assert state_of(b"more" + signed, vendor.certificates) is SignatureState.NOT_CHECKED
    twice = sign(signed, key_id=KEY_ID, schema=4, make=vendor.raw)  # the outer one covers the inner one
    assert state_of(twice, vendor.certificates) is SignatureState.VERIFIED


def test_a_database_that_was_changed_with_the_module(host: Host) -> None:
    """Who changes a module can describe it anew, and can't sign that."""
    intruder = archive_payload("driver", FILES | {"bin/backdoor": b"#!/bin/sh"})
    text = descriptor("esx-base", [intruder])
    old = host.vendor.signed_data(descriptor("esx-base", [archive_payload("driver", FILES)]))
    profile = image_profile("forged", {parse_descriptor(text).id: {"driver": "driver.v00"}})
    database = image_database(profile, [(text, old)])
    with host.image(driver_v00=intruder.data, imgdb_tgz=database) as image:
        found = image.system().provenance(host.vendor.certificates)
        assert {each.name: each.verdict for each in found.modules}["driver.v00"] is Verdict.BELONGS
        assert [each.verdict for each in found.vibs] == [Verdict.ALTERED]
        assert [each.is_level_supported for each in found.vibs] == [False]


def test_levels_that_a_signature_supports(host: Host) -> None:
    with host.image() as image:
        for certificates, expected in (((), {None, True}), (host.vendor.certificates, {True})):
            found = image.system().provenance(certificates)
            assert {each.is_level_supported for each in found.vibs} == expected
            assert {each.is_level_supported for each in found.vibs if each.acceptance_level == "community"} == {True}
    payload = archive_payload("driver", FILES)
    text = descriptor("driver", [payload])  # which says that it is certified
    profile = image_profile("forged", {parse_descriptor(text).id: {"driver": "driver.v00"}})
    with host.image(driver_v00=payload.data, imgdb_tgz=image_database(profile, [(text, b"")])) as image:
        [found_vib] = image.system().provenance(host.vendor.certificates).vibs
        assert (found_vib.acceptance_level, found_vib.is_level_supported) == ("certified", False)


def test_without_a_database(host: Host) -> None:
    with host.image(imgdb_tgz=gzip.compress(tar_archive({}))) as image:
        found = image.system().provenance(host.vendor.certificates)
        assert {each.name: each.verdict for each in found.modules}["b.b00"] is Verdict.VERIFIED
        assert {each.name: each.verdict for each in found.modules}["driver.v00"] is Verdict.UNSIGNED


def test_a_vib_has_to_be_one(payload: ForgedPayload) -> None:
    for other in (tar_archive(FILES), b"!<arch>\n", offline_bundle([], [])):
        with pytest.raises(NotAnArchive, match="no VIB"):
            open_vib(other)
    assert isinstance(open_vib(vib(descriptor("driver", [payload]), [])), Vib)


def test_the_command(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said_by(*options: str | Path, **changed: bytes) -> tuple[int, str]:
        path = tmp_path / "cd.iso"
        with host.image(**changed) as image:
            path.write_bytes(image.disk.read_at(0, image.disk.size))
        status = main(["provenance", str(path), *map(str, options)])
        captured = capsys.readouterr()
        assert captured.err == ""
        return status, captured.out

    status, shown = said_by("--certificate", host.vendor.pem, "--files")
    assert status == 0
    assert "7 modules: 3 verified, 1 belongs, 3 unsigned" in shown
    assert "bin/alien" in shown
    assert "no certificate was given" not in shown
    status, shown = said_by()
    assert (status, "no certificate was given" in shown) == (0, True)
    intruder = archive_payload("driver", FILES | {"bin/backdoor": b"#!/bin/sh"}).data
    status, shown = said_by("--certificate", host.vendor.pem, driver_v00=intruder)
    assert (status, "1 altered" in shown, "other checksums" in shown) == (1, True, True)
    status, shown = said_by("--json", "--certificate", host.vendor.pem, driver_v00=intruder)
    assert status == 1
    assert {each["name"]: each["verdict"] for each in json.loads(shown)["modules"]}["driver.v00"] == "altered"


@pytest.mark.parametrize("size", [0, 100, 24 << 20])
def test_a_module_is_decoded_once_for_all_takers(size: int, vendor: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the decoded data that is kept, so that a second taker would decode it again."""
    signed = sign(bytes(range(256)) * (size // 256) + bytes(size % 256), key_id=KEY_ID, schema=4, make=vendor.raw)
    stored = gzip.compress(signed, compresslevel=1, mtime=0)
    decoded = read = 0
    decode = GzipDecoder.read
    read_up_to = BytesSource.read_up_to

    def counting(self: GzipDecoder, length: int) -> bytes:
        nonlocal decoded
        data = decode(self, length)
        decoded += len(data)
        return data

    def counting_reads(self: BytesSource, offset: int, length: int) -> bytes:
        nonlocal read
        data = read_up_to(self, offset, length)
        read += len(data)
        return data

    monkeypatch.setattr(GzipDecoder, "read", counting)
    monkeypatch.setattr(BytesSource, "read_up_to", counting_reads)
    forms = dict.fromkeys((None, "gunzip1", "gunzip"), ("sha256", "sha1"))
    found = hash_payload(BytesSource(stored), forms, module_hashes(vendor.certificates), finds_signature=True)
    assert decoded == len(signed)
    assert read < len(stored) + 2000
    assert found.checksums[None] == {name: hashlib.new(name, stored).hexdigest() for name in ("sha256", "sha1")}
    assert found.checksums["gunzip"] == found.checksums["gunzip1"]
    assert found.checksums["gunzip"]["sha256"] == hashlib.sha256(signed).hexdigest()
    assert check_module(found.signed, found.signature, vendor.certificates).is_verified


@pytest.mark.parametrize("outside", [gzip.compress, bytes])
@pytest.mark.parametrize("inside", [lzma.compress, gzip.compress, bytes])
def test_each_form_has_its_hash(
    outside: Callable[[bytes], bytes], inside: Callable[[bytes], bytes], vendor: Signer
) -> None:
    content = tar_archive(FILES)
    signed = sign(inside(content), key_id=KEY_ID, schema=4, make=vendor.raw)
    found = hash_payload(
        BytesSource(outside(signed)),
        dict.fromkeys((None, "gunzip1"), ("sha256",)),
        module_hashes(vendor.certificates),
        finds_signature=True,
    )
    assert found.checksums[None]["sha256"] == hashlib.sha256(outside(signed)).hexdigest()
    if outside is gzip.compress:
        assert found.checksums["gunzip1"]["sha256"] == hashlib.sha256(signed).hexdigest()
        assert check_module(found.signed, found.signature, vendor.certificates).is_verified
    if outside is gzip.compress and inside is not bytes:
        found = hash_payload(BytesSource(outside(signed)), {"gunzip": {"sha256"}})
        assert found.checksums["gunzip"]["sha256"] == hashlib.sha256(content).hexdigest()


def write_host(host: Host, path: Path, **changed: bytes) -> Path:
    with host.image(**changed) as image:
        path.write_bytes(image.disk.read_at(0, image.disk.size))
    return path


INTRUDER = archive_payload("driver", FILES | {"bin/backdoor": b"#!/bin/sh"}).data


def test_verify_says_where_modules_come_from(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_host(host, tmp_path / "host.iso")
    trusted = host.vendor.certificates
    for certificates, verified in (((), 0), (trusted, 3)):
        report = verify(path, certificates=certificates)
        assert report.is_sound
        assert report.origins is not None
        assert report.origins.count(Verdict.VERIFIED) == verified
        with Image.open(path) as image:  # the judge is the command that was there before
            expected = {each.name: each.verdict.value for each in image.system().provenance(certificates).modules}
        assert {each.name: each.verdict for each in report.origins.modules} == expected
        assert pickle.loads(pickle.dumps(report)) == report
        says_so = any("takes certificates of their keys" in text for text in report.not_checked)
        assert says_so == (not certificates)
    write_host(host, path, driver_v00=INTRUDER)
    assert main(["verify", str(path), "--certificate", str(host.vendor.pem)]) == 1
    shown = capsys.readouterr().out
    assert "driver.v00  ALTERED: it is not a payload of" in shown
    assert "boot module: 'driver.v00' is altered" in shown
    assert main(["verify", str(path), "--json"]) == 1
    modules = json.loads(capsys.readouterr().out)["origins"]["modules"]
    assert [each["name"] for each in modules if each["verdict"] == "altered"] == ["driver.v00"]


def test_verify_without_crypto_says_what_was_not_checked(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_host(host, tmp_path / "host.iso")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    report = verify(path)
    assert report.is_sound
    assert any("vmvisor-image[crypto]" in text and "1 package" in text for text in report.not_checked)
    assert report.origins is not None
    assert report.origins.count(Verdict.BELONGS) == 4


def test_rows_with_provenance(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_host(host, tmp_path / "good.iso")
    bad = write_host(host, tmp_path / "bad.iso", driver_v00=INTRUDER)
    assert fleet.scan_one(good)["modules_altered"] is None
    row = fleet.scan_one(good, certificates=[host.vendor.pem])
    numbers = {name: row[name] for name in fleet.COLUMNS if name.startswith("modules_")}  # type: ignore[literal-required]
    assert list(numbers.values()) == [3, 1, 0, 3, 0]
    assert (row["ok"], row["packages"], row["altered"]) == (True, 2, "")
    rows = {Path(each["path"]).name: each for each in fleet.stream(tmp_path, workers=2, certificates=[host.vendor.pem])}
    assert rows[good.name] == row | {"seconds": rows[good.name]["seconds"]}
    assert (rows[bad.name]["altered"], rows[bad.name]["ok"], rows[bad.name]["error"]) == (
        "driver.v00",
        False,
        "Problem",
    )
    assert main(["scan", str(tmp_path), "--json"]) == 0
    assert main(["scan", str(tmp_path), "--json", "--provenance"]) == 1
    capsys.readouterr()


@pytest.fixture(scope="module")
def thousand(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand hosts, in three of which one byte of one module is altered; the others are one file by many names."""
    folder = tmp_path_factory.mktemp("thousand")
    first = write_host(host, folder / "0000.iso")
    for number in range(1, 1000):
        (folder / f"{number:04}.iso").hardlink_to(first)
    whole = first.read_bytes()
    payload = archive_payload("driver", FILES).data
    assert whole.count(payload) == 1
    for number in ALTERED:
        (folder / f"{number:04}.iso").unlink()
        changed = bytearray(whole)
        changed[whole.index(payload) + len(payload) // 2] ^= 1
        (folder / f"{number:04}.iso").write_bytes(changed)
    write_host(host, folder / f"{ALTERED[0]:04}.iso", driver_v00=INTRUDER)  # a sound archive, of other files
    return folder


ALTERED = (17, 500, 999)


def check_thousand(rows: list[fleet.Row]) -> None:
    assert len(rows) == 1000
    altered = {int(Path(row["path"]).stem): row["altered"] for row in rows if row["modules_altered"]}
    assert altered == dict.fromkeys(ALTERED, "driver.v00")
    assert all(row["ok"] == (row["altered"] == "") for row in rows)


def test_dask_finds_three_altered_hosts_of_a_thousand(thousand: Path, host: Host) -> None:
    bag = fleet.scan(thousand, images_per_task=100, certificates=[host.vendor.pem])
    check_thousand(bag.compute(scheduler="processes", num_workers=2))


def test_ray_finds_three_altered_hosts_of_a_thousand(thousand: Path) -> None:
    ray = pytest.importorskip("ray", reason="is in no locked environment: installed by hand")
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        task = ray.remote(fleet.scan_one)
        check_thousand(ray.get([task.remote(path, provenance=True) for path in fleet.expand(thousand)]))
    finally:
        ray.shutdown()


def test_spark_finds_three_altered_hosts_of_a_thousand(thousand: Path) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="is in no locked environment: installed by hand, with Java")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("PySpark needs Java")
    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = spark.sparkContext.parallelize(fleet.expand(thousand), 10).map(partial(fleet.scan_one, provenance=True))
        frame = spark.createDataFrame(rows, schema=fleet.spark_schema())
        check_thousand([each.asDict() for each in frame.collect()])
    finally:
        spark.stop()
