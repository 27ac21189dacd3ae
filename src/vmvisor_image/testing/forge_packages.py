"""Forged packages of ESXi: VIBs, offline bundles and image databases.

What vouches for what each function makes is in its docstring. Signatures are made by the caller, so that a program
that is not ours can make them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from vmvisor_image.packages.bundle import INDEX, VENDOR_INDEX
from vmvisor_image.packages.descriptor import DESCRIPTOR, VibDescriptor, parse_descriptor
from vmvisor_image.packages.vib import SIGNATURE
from vmvisor_image.schemas.ar import MAGIC
from vmvisor_image.testing.forge_modules import tar_archive, vmtar_archive

_RELEASED: Final = "2025-06-10T00:00:00.000001+00:00"


@dataclass(frozen=True, slots=True)
class ForgedPayload:
    """A payload to be put into a VIB."""

    name: str
    data: bytes
    """Its bytes as stored."""
    decoded: bytes
    """Its bytes when fully decoded."""
    kind: str = "vgz"
    """Type, as the description has it."""
    paths: tuple[str, ...] = ()
    """Paths of the files in it."""
    boot_order: int | None = None
    """Place among the modules that are loaded; None for a payload that names none."""
    file_name: str | None = None
    """Name of its file in a boot bank (``vfat-name``); None for a payload that names none."""


@dataclass(frozen=True, slots=True)
class ForgedRelationships:
    """Relationships of a package: a name, or a name, an operator and a version, of each."""

    depends: Sequence[tuple[str, ...]] = (("vmkapi_2_0_0_0",),)
    conflicts: Sequence[tuple[str, ...]] = ()
    replaces: Sequence[tuple[str, ...]] = (("older", "<<", "1.0"),)
    provides: Sequence[tuple[str, ...]] = ()


_USUAL: Final = ForgedRelationships()


def archive_payload(name: str, files: Mapping[str, bytes], *, kind: str = "vgz") -> ForgedPayload:
    """A payload of files: a vmtar (``vgz``) or tar (``tgz``) in gzip.

    Vouched for by ``gzip`` and GNU ``tar``: ``tests/test_packages.py``; its vmtar as that of `forge_modules`.

    Args:
        name: Name of the payload.
        files: Content by path.
        kind: "vgz" or "tgz".
    """
    inner = tar_archive(files) if kind == "tgz" else vmtar_archive(files)
    return ForgedPayload(name, gzip.compress(inner, mtime=0), inner, kind, tuple(files))


def descriptor(
    name: str,
    payloads: Sequence[ForgedPayload],
    *,
    version: str = "1.0-1vmw.800.0.0.1",
    vendor: str = "VMW",
    acceptance_level: str = "certified",
    relationships: ForgedRelationships = _USUAL,
    kind: str = "bootbank",
) -> bytes:
    """Description of a package, with the checksums that ESXi 7's and 8's have.

    Vouched for by ``xmllint``, and ``sha256sum`` for the checksums: ``tests/test_packages.py``.
    """
    files = "".join(f"<file>{escape(path)}</file>" for payload in payloads for path in payload.paths)
    return (
        f'<vib version="5.0"><type>{escape(kind)}</type><name>{escape(name)}</name><version>{escape(version)}</version>'
        f"<vendor>{escape(vendor)}</vendor><summary>Forged</summary><description>A forged package</description>"
        f"<release-date>{_RELEASED}</release-date><urls />"
        f"<relationships>{_constraints('depends', relationships.depends)}"
        f"{_constraints('conflicts', relationships.conflicts)}{_constraints('replaces', relationships.replaces)}"
        f"{_constraints('provides', relationships.provides)}<compatibleWith />"
        "</relationships><software-tags><tag>module</tag></software-tags><system-requires>"
        '<maintenance-mode>true</maintenance-mode><softwarePlatform locale="" productLineID="embeddedEsx" '
        f'version="8.0" /></system-requires><file-list>{files}</file-list>'
        f"<acceptance-level>{escape(acceptance_level)}</acceptance-level>"
        f"<payloads>{''.join(map(_payload, payloads))}</payloads></vib>"
    ).encode()


def _constraints(name: str, constraints: Sequence[tuple[str, ...]]) -> str:
    texts = (
        "<constraint "
        + " ".join(
            f"{key}={quoteattr(value)}" for key, value in zip(("name", "relation", "version"), each, strict=False)
        )
        + " />"
        for each in constraints
    )
    return f"<{name}>{''.join(texts)}</{name}>" if constraints else f"<{name} />"


def _payload(payload: ForgedPayload) -> str:
    more = "" if payload.boot_order is None else f' boot-order="{payload.boot_order}"'
    more += "" if payload.file_name is None else f" vfat-name={quoteattr(payload.file_name)}"
    stored, decoded = hashlib.sha256(payload.data).hexdigest(), hashlib.sha256(payload.decoded).hexdigest()
    old = hashlib.sha1(payload.decoded, usedforsecurity=False).hexdigest()
    return (
        f'<payload name={quoteattr(payload.name)} type={quoteattr(payload.kind)} size="{len(payload.data)}"{more}>'
        f'<checksum checksum-type="sha-256" verify-process="gunzip">{decoded}</checksum>'
        f'<checksum checksum-type="sha-256">{stored}</checksum>'
        f'<checksum checksum-type="sha-1" verify-process="gunzip">{old}</checksum></payload>'
    )


def vib(description: bytes, payloads: Sequence[ForgedPayload], signature: bytes = b"") -> bytes:
    """A VIB: an ``ar`` archive of the description, the signature and the payloads.

    Vouched for by ``ar`` of binutils: ``tests/test_packages.py``.

    Args:
        description: Content of ``descriptor.xml``.
        payloads: Payloads, in order.
        signature: Content of ``sig.pkcs7``; empty as in community packages.
    """
    members = [(DESCRIPTOR, description), (SIGNATURE, signature), *((each.name, each.data) for each in payloads)]
    return MAGIC + b"".join(_member(name, data) for name, data in members)


def _member(name: str, data: bytes) -> bytes:
    head = b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name.encode(), 0, 0, 0, 0o644, len(data))
    return head + data + b"\n" * (len(data) % 2)


def image_profile(name: str, files: Mapping[str, Mapping[str, str]]) -> bytes:
    """An image profile.

    Vouched for by ``xmllint``: ``tests/test_packages.py``; its structure is that of the profile of ESXi 6.7.

    Args:
        name: Name of the profile.
        files: Name of the boot bank's file by payload, by id of the package.
    """
    vibs = "".join(
        f"<vib><vib-id>{escape(vib_id)}</vib-id><payloads>"
        + "".join(
            f"<payload payload-name={quoteattr(payload)}>{escape(file)}</payload>" for payload, file in names.items()
        )
        + "</payloads></vib>"
        for vib_id, names in files.items()
    )
    return (
        f"<imageprofile><name>{escape(name)}</name><creator>VMware, Inc.</creator>"
        f"<creationtime>{_RELEASED}</creationtime><viblist>{vibs}</viblist>"
        "<acceptancelevel>partner</acceptancelevel></imageprofile>"
    ).encode()


def image_database(profile: bytes | None, vibs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """An image database, ``imgdb.tgz``.

    Vouched for by ``gzip`` and GNU ``tar``: ``tests/test_packages.py``; its paths are those of ESXi 6.7's.

    Args:
        profile: Image profile; None for a database without one.
        vibs: Description and signature of each package.
    """
    files = {} if profile is None else {"var/db/esximg/profiles/forged.xml": profile}
    for description, signature in vibs:
        path = f"var/db/esximg/vibs/{parse_descriptor(description).name}-{len(files)}.xml"
        files[path] = description.replace(b"<urls />", b"<urls/>")  # the installer writes it anew
        files[f"{path}.orig"] = description
        if signature:
            files[f"{path}.sig"] = signature
    return gzip.compress(tar_archive(files), mtime=0)


def offline_bundle(
    vibs: Sequence[bytes],
    descriptions: Sequence[bytes],
    profile: bytes | None = None,
    *,
    profiles: Sequence[bytes] = (),
    more: Mapping[str, bytes] | None = None,
    is_stored: bool = False,
) -> bytes:
    """An offline bundle, a zip file, with one component of all packages.

    Vouched for by ``unzip`` and ``xmllint``: ``tests/test_packages.py``; its structure is that of 23 public bundles.

    Args:
        vibs: The packages.
        descriptions: The description of each.
        profile: Image profile; None for a bundle without one.
        profiles: Further image profiles.
        more: Further documents of the metadata by path.
        is_stored: Whether the members of the zip files are not compressed.
    """
    parsed = [parse_descriptor(each) for each in descriptions]
    listed = "".join(_listed(*pair) for pair in zip(vibs, parsed, strict=True))
    component = (
        "<id>forged-1</id><vendor>VMware</vendor><summary>Forged</summary><severity>general</severity>"
        '<componentNameSpec name="forged" uiString="Forged"/><componentVersionSpec version="1" uiString="1"/>'
        "<releaseDate>2025-06-10T00:00:00+00:00</releaseDate>"
    )
    response = f"<metadataResponse><version>3.0</version><bulletin>{component}<vibList>{listed}</vibList></bulletin>"
    ids = "".join(f"<vibID>{escape(each.id)}</vibID>" for each in parsed)
    metadata = {
        "vmware.xml": f"{response}</metadataResponse>".encode(),
        "bulletins/forged-1.xml": f"<bulletin>{component}<vibList>{ids}</vibList></bulletin>".encode(),
        **{f"vibs/{each.name}-1.xml": data for each, data in zip(parsed, descriptions, strict=True)},
    }
    if profile is not None:
        metadata["profiles/forged.xml"] = profile
    metadata |= more or {}
    metadata |= {f"profiles/forged-{number}.xml": each for number, each in enumerate(profiles, 1)}
    index = (
        f"<vendorList><vendor><name>VMware</name><code>VMW</code><indexfile>{VENDOR_INDEX}</indexfile>"
        "<relativePath></relativePath></vendor></vendorList>"
    )
    vendor_index = (
        "<metaList><metadata><productId>embeddedEsx</productId><version>8.0</version><url>metadata.zip</url>"
        "</metadata></metaList>"
    )
    return _zip(
        {
            INDEX: index.encode(),
            VENDOR_INDEX: vendor_index.encode(),
            "metadata.zip": _zip(metadata, is_stored=is_stored),
            **{_path(each): data for each, data in zip(parsed, vibs, strict=True)},
        },
        is_stored=is_stored,
    )


def _path(package: VibDescriptor) -> str:
    return f"vib20/{package.name}/{package.id}.vib"


def _listed(data: bytes, package: VibDescriptor) -> str:
    return (
        f"<vib><vibID>{escape(package.id)}</vibID><vibFile><relativePath>{escape(_path(package))}</relativePath>"
        f"<packedSize>{len(data)}</packedSize><checksum><checksumType>sha-256</checksumType>"
        f"<checksum>{hashlib.sha256(data).hexdigest()}</checksum></checksum></vibFile></vib>"
    )


def _zip(files: Mapping[str, bytes], *, is_stored: bool) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return made.getvalue()
