"""Certificates that the user trusts, and whether one of them stands behind another. Needs the extra ``crypto``.

None is shipped: VMware publishes those of its modules and packages with the source of its boot loader
(vmware/esx-boot, ``localkeys``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmvisor_image.base.names import printable
from vmvisor_image.errors import DependencyMissing, InvalidArgument

if TYPE_CHECKING:
    from cryptography import x509

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_SUFFIXES: Final = (".pem", ".cert", ".crt", ".cer", ".der")
"""Endings of the files of a folder that are read; other files in it are none of ours."""
_LARGEST: Final = 1 << 20
_LONGEST_CHAIN: Final = 8
_FEWEST_BITS: Final = 2048
"""Bits of an RSA key that is not weak (NIST SP 800-131A, section 3)."""
_WEAK_HASHES: Final = ("md5", "sha1")
_UNDERSTOOD: Final = frozenset(
    f"2.5.29.{number}"
    for number in (14, 15, 17, 19, 32, 35, 37)  # key ids, usages, alternative name, basic constraints, policies
)
"""Extensions that may be critical, by object identifier; RFC 5280, section 4.2, has others refused."""
_NAME_CONSTRAINTS: Final = "2.5.29.30"

CertificateSource = str | os.PathLike[str] | bytes
"""Certificates as functions accept them: the path of a file with one or more of them in PEM or one in DER, that of a
folder of such files (``.pem``, ``.cert``, ``.crt``, ``.cer``, ``.der``), or the bytes of a file."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of X.509."""

    subject: str
    """Name of the holder of the key (RFC 4514)."""
    issuer: str
    """Name of the issuer (RFC 4514)."""
    serial: str
    """Serial number in hexadecimal, lower case."""
    sha256: str
    """Fingerprint: SHA-256 over the certificate in DER, in hexadecimal."""
    valid_from: datetime
    valid_until: datetime
    """Times between which it is valid, UTC. Neither ESXi's boot loader nor this library judges by them."""
    x509: x509.Certificate = field(compare=False, repr=False)
    """The certificate, as the package ``cryptography`` has it."""

    @property
    def key(self) -> Any:
        """Public key, as the package ``cryptography`` has it."""
        return self.x509.public_key()

    @property
    def der(self) -> bytes:
        """The certificate in DER, which `open_certificates` takes in any process."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.x509.public_bytes(Encoding.DER)

    def __str__(self) -> str:
        return f"{printable(self.subject)} (serial {self.serial})"

    @property
    def weakness(self) -> str | None:
        """Why its key proves nothing, in words; None for an RSA key of 2048 bits or more, and for other kinds."""
        numbers = public_numbers(self)
        if numbers is None or numbers[0].bit_length() >= _FEWEST_BITS:
            return None
        return f"its key is weak: it has {numbers[0].bit_length()} bits, fewer than {_FEWEST_BITS}"

    @property
    def link_fault(self) -> str | None:
        """Why it can't be a link of a chain, in words; None where it can.

        A weak key, a signature with MD5 or SHA-1, name constraints, or a critical extension that is not understood
        (RFC 5280, sections 4.2 and 6.1). The signature of a trusted certificate itself is no link.
        """
        return self._signature_fault or self._issuer_fault

    @property
    def _signature_fault(self) -> str | None:
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            algorithm = self.x509.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return "its signature has an unknown algorithm"
        if algorithm is not None and algorithm.name in _WEAK_HASHES:
            return f"its signature is weak: it is over {algorithm.name.upper()}"
        return None

    @property
    def _issuer_fault(self) -> str | None:
        if (weakness := self.weakness) is not None:
            return weakness
        try:
            extensions = tuple(self.x509.extensions)
        except parse_faults():
            return "its extensions can't be read"
        for each in extensions:
            oid = each.oid.dotted_string
            if oid == _NAME_CONSTRAINTS:
                return "it has name constraints, which are not read"
            if each.critical and oid not in _UNDERSTOOD:
                return f"it has a critical extension that is not known, {oid}"
        return None

    def issued(self, other: Certificate) -> bool:
        """Whether it may issue certificates (CA, and its key usage) and its key signed `other`, without a weak link."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        if self._issuer_fault is not None or other.link_fault is not None:
            return False
        try:
            extensions = self.x509.extensions
            if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                return False
            usage = next((each.value for each in extensions if isinstance(each.value, x509.KeyUsage)), None)
            if usage is not None and not usage.key_cert_sign:
                return False
            other.x509.verify_directly_issued_by(self.x509)
        except parse_faults(InvalidSignature, x509.ExtensionNotFound, TypeError):
            return False
        return True

    def allows_below(self, count: int) -> bool:
        """Whether its path length (RFC 5280, section 4.2.1.9) allows this number of issuers between it and a signer."""
        from cryptography import x509

        try:
            length = self.x509.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        except parse_faults(x509.ExtensionNotFound):
            return False
        return length is None or count <= length


def open_certificates(*sources: CertificateSource) -> tuple[Certificate, ...]:
    """Certificates in files, folders or bytes, each once, in the order of the sources.

    Raises:
        OSError: A file can't be read.
        InvalidArgument: A source holds no certificate, or one that can't be parsed.
        DependencyMissing: The extra ``crypto`` is not installed.
    """
    found: dict[str, Certificate] = {}
    for source in sources:
        for name, data in _files(source):
            for certificate in _parse(data, name):
                found.setdefault(certificate.sha256, certificate)
    return tuple(found.values())


def require_crypto(use: str) -> None:
    """Check that the packages of the extra ``crypto`` are there.

    Args:
        use: What they are needed for, as the start of a sentence.

    Raises:
        DependencyMissing: One of them is not installed.
    """
    try:
        import cryptography  # noqa: F401
        import pyasn1_modules.rfc5652  # noqa: F401
    except ImportError as error:
        raise DependencyMissing(f"{use} needs 'cryptography': pip install 'vmvisor-image[crypto]'") from error


def parse_faults(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What the package ``cryptography`` raises for a certificate that it can't parse or does not know, and `more`."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    named = (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
    return (*more, ValueError, UnsupportedAlgorithm, *named)


def certificate_of(certificate: x509.Certificate) -> Certificate:
    """A certificate that the package ``cryptography`` has parsed.

    Raises:
        ValueError: One of its fields can't be parsed.
    """
    from cryptography.hazmat.primitives import hashes

    return Certificate(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        f"{certificate.serial_number:x}",
        certificate.fingerprint(hashes.SHA256()).hex(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate,
    )


def find_trusted(
    signer: Certificate, trusted: Iterable[Certificate], others: Iterable[Certificate] = ()
) -> Certificate | None:
    """Trusted certificate that is the signer's, or stands at the end of the chain of its issuers; None without one.

    Each link is checked: the issuer may issue, as deep as this, and its key signed the one below; no link is weak
    (see `Certificate.link_fault`). Dates and revocation are not checked.

    Args:
        signer: Certificate of the key that made a signature.
        trusted: Certificates that the user trusts.
        others: Certificates that were delivered with the signature, which are not trusted by themselves.
    """
    trusted, others = tuple(trusted), tuple(others)
    current = signer
    for between in range(_LONGEST_CHAIN):
        if (same := next((each for each in trusted if each.sha256 == current.sha256), None)) is not None:
            return same
        allowed = [each for each in trusted if each.allows_below(between)]
        if (above := next((each for each in allowed if each.issued(current)), None)) is not None:
            return above
        allowed = [each for each in others if each.sha256 != current.sha256 and each.allows_below(between)]
        following = next((each for each in allowed if each.issued(current)), None)
        if following is None:
            return None
        current = following
    return None


def _files(source: CertificateSource) -> Iterator[tuple[str, bytes]]:
    if isinstance(source, bytes):
        yield "the given bytes", source
        return
    path = Path(source)
    if not path.is_dir():
        yield str(path), _read(path)
        return
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES and each.is_file())
    if not files:
        raise InvalidArgument(f"no certificate in the folder {str(path)!r}: it has no file {', '.join(_SUFFIXES)}")
    for each in files:
        yield str(each), _read(each)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise InvalidArgument(f"{str(path)!r} is no file of certificates: it is larger than {_LARGEST} bytes")
    return data


def _parse(data: bytes, name: str) -> list[Certificate]:
    require_crypto("reading certificates")
    from cryptography import x509

    try:
        if _BEGIN in data:
            found = x509.load_pem_x509_certificates(data[data.index(_BEGIN) :])
        else:
            found = [x509.load_der_x509_certificate(data)]
        return [certificate_of(each) for each in found]
    except parse_faults() as error:
        raise InvalidArgument(f"{name} holds no certificate that can be read: {error}") from error


def public_numbers(certificate: Certificate) -> tuple[int, int] | None:
    """Modulus and exponent of an RSA key; None for a key of another kind."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    with contextlib.suppress(*parse_faults()):
        key = certificate.key
        if isinstance(key, rsa.RSAPublicKey):
            numbers = key.public_numbers()
            return numbers.n, numbers.e
    return None
