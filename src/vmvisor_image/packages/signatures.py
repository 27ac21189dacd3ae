"""Signatures on packages and boot modules, checked against certificates that the user trusts.

Source: RFC 5652 (CMS) and RFC 8017, section 8.2.2 (RSASSA-PKCS1-v1_5); for modules vmware/esx-boot, mboot/secure.c and
env/getkeys.py, read for the facts. Vouched for by ``openssl``: see docs/provenance.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from vmvisor_image.compressions.signed import ModuleSignature
from vmvisor_image.errors import CorruptImage
from vmvisor_image.packages.certificates import (
    Certificate,
    certificate_of,
    find_trusted,
    parse_faults,
    public_numbers,
    require_crypto,
)

_ARMOUR: Final = re.compile(rb"-----BEGIN (PKCS7|CMS)-----")
_LARGEST: Final = 1 << 17
"""Bytes of a signature; those of 15 public packages have a few thousand."""
_MOST_SIGNERS: Final = 16
_MOST_CERTIFICATES: Final = 64
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_DATA: Final = "1.2.840.113549.1.7.1"
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
_SIGNING_TIME: Final = "1.2.840.113549.1.9.5"
_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
"""Names of `hashlib` by object identifier; SHA-1 and MD5 are not accepted."""
_REFUSED: Final = {
    "1.2.840.113549.2.5": "MD5, which is weak",
    "1.3.14.3.2.26": "SHA-1, which is weak",
    "1.2.840.113549.1.1.4": "RSA with MD5, which is weak",
    "1.2.840.113549.1.1.5": "RSA with SHA-1, which is weak",
    "1.2.840.113549.1.1.10": "RSASSA-PSS, which is not read",
}
"""Algorithms that are known and not accepted, in words, by object identifier."""
_RSA: Final = {
    "1.2.840.113549.1.1.1": None,
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
"""Hash that an algorithm of signatures fixes, by object identifier; None for any."""
_KEY_ID: Final = 16
_SERIALS: Final = {"vmware_esx40": "e9d9ff69e6f3e7e4", "vmware_esx67": "c8a7cb6ca4e32fc0"}
"""Serial numbers of VMware's published certificates, by the id that modules have for the key."""
TEST_KEYS: Final = ("elfsign_test", "test_esx67", "test_sb2017")
"""Ids of keys that VMware publishes whole for tests: anyone can sign with them."""


class SignatureState(Enum):
    """What is known of a signature."""

    VERIFIED = "verified"
    """The key of a trusted certificate, or of one that such a certificate stands behind, signed exactly these bytes."""
    UNKNOWN_SIGNER = "signed by an unknown key"
    """A key signed exactly these bytes, and no trusted certificate stands behind it."""
    WRONG = "wrong"
    """The signature is not one of these bytes: they or the signature were changed."""
    UNSIGNED = "unsigned"
    """There is no signature."""
    NOT_CHECKED = "not checked"
    """There is a signature, and nothing to check it with."""


_DECISIVE: Final = (
    SignatureState.VERIFIED,
    SignatureState.UNKNOWN_SIGNER,
    SignatureState.UNSIGNED,
    SignatureState.NOT_CHECKED,
    SignatureState.WRONG,
)
"""States from best to worst: of several signatures, the worst one decides."""


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """Result of the check of a signature."""

    state: SignatureState
    message: str
    """What was found, in words."""
    signer: Certificate | None = None
    """Certificate of the key that made it; None where that is not known."""
    trusted: Certificate | None = None
    """Trusted certificate that stands behind the signer, or is the signer's; None without one."""
    signed_at: datetime | None = None
    """Time that the signer claims, UTC; None where there is none. Nobody vouches for it but the signer."""

    @property
    def is_verified(self) -> bool:
        """Whether the state is `SignatureState.VERIFIED`."""
        return self.state is SignatureState.VERIFIED


def check_signed_data(content: bytes, signature: bytes, certificates: Iterable[Certificate]) -> SignatureCheck:
    """Check a detached signature over `content`, as VIBs have it in ``sig.pkcs7``.

    Args:
        content: The signed bytes.
        signature: SignedData of CMS in PEM or DER; empty bytes for an unsigned package.
        certificates: Certificates that the user trusts.

    Returns:
        The check; of several signatures, that of the worst one, so that all are right where it is verified.

    Raises:
        DependencyMissing: The extra ``crypto`` is not installed.
        CorruptImage: The signature is no SignedData, or of a kind that is not read.
    """
    if not signature.strip():
        return SignatureCheck(SignatureState.UNSIGNED, "it has no signature")
    require_crypto("checking a signature")
    signed = _decode(signature)
    delivered = _certificates(signed)
    infos = signed["signerInfos"]
    if not len(infos):
        return SignatureCheck(SignatureState.UNSIGNED, "it has a signature without a signer")
    announced = {str(each["algorithm"]) for each in signed["digestAlgorithms"]}
    if not all(str(info["digestAlgorithm"]["algorithm"]) in announced for info in infos):
        raise _refused("a signer has another digest algorithm than it announces")
    checks = [_check_signer(content, info, delivered, tuple(certificates)) for info in infos]
    number, decisive = max(enumerate(checks, 1), key=lambda pair: _DECISIVE.index(pair[1].state))
    if len(checks) == 1:
        return decisive
    if decisive.is_verified:
        return replace(decisive, message=f"all {len(checks)} signatures are right; the first is {decisive.message}")
    return replace(decisive, message=f"signature {number} of {len(checks)}: {decisive.message}")


def check_signed_digest(
    content: bytes, value: bytes, hash_name: str, delivered: Sequence[Certificate], trusted: tuple[Certificate, ...]
) -> SignatureCheck:
    """Check a bare signature of RSA over the digest of `content`, as the manifest of an OVF has it.

    Args:
        content: The signed bytes.
        value: The signature.
        hash_name: Name of the digest's algorithm, as `hashlib` has it.
        delivered: Certificates that are beside the signature, of which one may be the signer's.
        trusted: Certificates that the user trusts.

    Raises:
        DependencyMissing: The extra ``crypto`` is not installed.
    """
    require_crypto("checking a signature")
    if hash_name not in _HASHES.values():
        message = f"its algorithm is not accepted (RSA with {hash_name.upper()})"
        return SignatureCheck(SignatureState.NOT_CHECKED, message)
    candidates = [each for each in (*delivered, *trusted) if public_numbers(each) is not None]
    if not candidates:
        return SignatureCheck(SignatureState.NOT_CHECKED, "no certificate with a key of RSA is beside it")
    digest = hashlib.new(hash_name, content).digest()
    signer = next((each for each in candidates if _is_signed(each, value, digest, hash_name)), None)
    if signer is None:
        message = f"it is not a signature of these bytes by {candidates[0]}: the key did not make this signature"
        return SignatureCheck(SignatureState.WRONG, message, candidates[0])
    return _judged(signer, delivered, trusted)


def module_hashes(certificates: Iterable[Certificate]) -> set[str]:
    """Names of the hash algorithms that checking a module with these certificates takes, for `check_module`."""
    return {_hash_of(each) for each in certificates}


def check_module(
    digests: Mapping[str, bytes], signature: ModuleSignature | None, certificates: Iterable[Certificate]
) -> SignatureCheck:
    """Check the trailer of a boot module, which covers all bytes before it and the number of its schema.

    The hash is the one of the certificate's own signature, as the boot loader chooses it.

    Args:
        digests: Digests of what the signature covers, by the algorithms of `module_hashes`: see `hash_payload`.
        signature: Its trailer; None for a module without one.
        certificates: Certificates that the user trusts.

    Raises:
        DependencyMissing: The extra ``crypto`` is not installed.
    """
    if signature is None:
        return SignatureCheck(SignatureState.UNSIGNED, "it has no signature")
    key_id = signature.key_id
    if key_id is None:
        message = f"its signature is of schema {signature.schema}, which is not known"
        return SignatureCheck(SignatureState.NOT_CHECKED, message)
    named = f"signed by the key {key_id!r}"
    if key_id in TEST_KEYS:
        named += ", which is published for tests: anyone can sign with it"
    value = signature.signature[_KEY_ID:]
    usable = [(each, numbers) for each in certificates if (numbers := public_numbers(each)) is not None]
    fitting = [each for each, (modulus, _) in usable if -(-modulus.bit_length() // 8) == len(value)]
    if not fitting:
        return SignatureCheck(SignatureState.NOT_CHECKED, f"{named}; no certificate for that key was given")
    require_crypto("checking a signature")
    for each in fitting:
        name = _hash_of(each)
        if _is_signed(each, value, digests[name], name):
            if (weakness := each.weakness) is not None:
                message = f"{named}, that of the certificate {each}; {weakness}"
                return SignatureCheck(SignatureState.NOT_CHECKED, message, each)
            message = f"{named}; it is that of the certificate {each}"
            return SignatureCheck(SignatureState.VERIFIED, message, each, each)
    named_one = next((each for each in fitting if each.serial == _SERIALS.get(key_id)), None)
    if named_one is not None:
        message = f"{named}, and the key of its certificate, {named_one}, did not make this signature of these bytes"
        return SignatureCheck(SignatureState.WRONG, message, named_one)
    message = f"{named}; none of the {len(fitting)} certificates given that could be of that key made it"
    return SignatureCheck(SignatureState.NOT_CHECKED, message)


def _decode(signature: bytes) -> Any:
    from pyasn1.codec.ber import decoder
    from pyasn1.error import PyAsn1Error
    from pyasn1_modules import rfc5652

    if len(signature) > _LARGEST:
        raise _refused(f"it is larger than any signature, {len(signature)} bytes")
    if (match := _ARMOUR.search(signature)) is not None:
        text, end, _ = signature[match.end() :].partition(b"-----END " + match[1] + b"-----")
        if not end:
            raise _refused("its PEM has no end")
        try:
            signature = base64.b64decode(text, validate=False)
        except binascii.Error as error:
            raise _refused(f"its base64 is damaged: {error}") from error
    try:
        outer, _ = decoder.decode(signature, asn1Spec=rfc5652.ContentInfo())
        if str(outer["contentType"]) != _SIGNED_DATA:
            raise _refused(f"it is of the kind {outer['contentType']}, not signed data")
        signed, _ = decoder.decode(bytes(outer["content"]), asn1Spec=rfc5652.SignedData())
        content = signed["encapContentInfo"]
        if str(content["eContentType"]) != _DATA or content["eContent"].isValue:
            raise _refused("it is not a detached signature of data")
        if len(signed["signerInfos"]) > _MOST_SIGNERS or len(signed["certificates"]) > _MOST_CERTIFICATES:
            raise _refused(f"it has more than {_MOST_SIGNERS} signers or {_MOST_CERTIFICATES} certificates")
    except (PyAsn1Error, ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise _refused(f"it is not signed data of CMS: {error.__class__.__name__}") from error
    return signed


def _refused(message: str) -> CorruptImage:
    return CorruptImage(message, structure="signature of a package")


def _certificates(signed: Any) -> list[Certificate]:
    """Certificates that were delivered with a signature; those that can't be parsed are left out."""
    from cryptography import x509
    from pyasn1.codec.der import encoder
    from pyasn1.error import PyAsn1Error

    found = []
    if signed["certificates"].isValue:
        for choice in signed["certificates"]:
            try:
                found.append(certificate_of(x509.load_der_x509_certificate(encoder.encode(choice.getComponent()))))
            except parse_faults(PyAsn1Error):  # without it, the signer may not be found, which is said
                continue
    return found


def _check_signer(
    content: bytes, info: Any, delivered: list[Certificate], trusted: tuple[Certificate, ...]
) -> SignatureCheck:
    signer = next((each for each in (*delivered, *trusted) if _is_signer(info, each)), None)
    if signer is None:
        message = "the certificate of its signer is neither in it nor among those given"
        return SignatureCheck(SignatureState.NOT_CHECKED, message)
    hash_name = _HASHES.get(str(info["digestAlgorithm"]["algorithm"]))
    kind = str(info["signatureAlgorithm"]["algorithm"])
    if hash_name is None or kind not in _RSA or _RSA[kind] not in (None, hash_name):
        named = (_REFUSED.get(each, each) for each in (str(info["digestAlgorithm"]["algorithm"]), kind))
        message = f"its algorithms are not accepted ({', '.join(_HASHES.get(each, each) for each in named)})"
        return SignatureCheck(SignatureState.NOT_CHECKED, message, signer)
    signed_at, digest, fault = _signed_bytes(content, info, hash_name)
    if fault is None and not _is_signed(signer, bytes(info["signature"]), digest, hash_name):
        fault = "the key did not make this signature"
    if fault is not None:
        message = f"it is not a signature of these bytes by {signer}: {fault}"
        return SignatureCheck(SignatureState.WRONG, message, signer, None, signed_at)
    return _judged(signer, delivered, trusted, signed_at)


def _judged(
    signer: Certificate,
    delivered: Sequence[Certificate],
    trusted: tuple[Certificate, ...],
    signed_at: datetime | None = None,
) -> SignatureCheck:
    """Result for a right signature, by what stands behind its signer."""
    if (weakness := signer.weakness) is not None:
        message = f"signed by {signer}; {weakness}"
        return SignatureCheck(SignatureState.NOT_CHECKED, message, signer, None, signed_at)
    behind = find_trusted(signer, trusted, delivered)
    if behind is None:
        message = f"signed by {signer}; no certificate given stands behind it"
        faults = ((each, fault) for each in (signer, *delivered) if (fault := each.link_fault) is not None)
        if (found := next(faults, None)) is not None:
            message += f"; {found[0]} can't stand in a chain: {found[1]}"
        return SignatureCheck(SignatureState.UNKNOWN_SIGNER, message, signer, None, signed_at)
    chain = "" if behind.sha256 == signer.sha256 else f", behind which {behind} stands"
    return SignatureCheck(SignatureState.VERIFIED, f"signed by {signer}{chain}", signer, behind, signed_at)


def _is_signer(info: Any, certificate: Certificate) -> bool:
    from cryptography import x509
    from pyasn1.codec.der import encoder

    kind, identifier = info["sid"].getName(), info["sid"].getComponent()
    if kind == "issuerAndSerialNumber":
        if int(identifier["serialNumber"]) != certificate.x509.serial_number:
            return False
        return bool(encoder.encode(identifier["issuer"]) == certificate.x509.issuer.public_bytes())
    try:
        found = certificate.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except parse_faults(x509.ExtensionNotFound):
        return False
    return bytes(identifier) == found.digest


def _signed_bytes(content: bytes, info: Any, hash_name: str) -> tuple[datetime | None, bytes, str | None]:
    """Time of signing, digest of what was signed, and what is wrong with the signed attributes, if anything.

    Source: RFC 5652, section 5.4: with attributes, these are signed, as a SET in DER, and name the content's digest.
    """
    from pyasn1.codec.ber import decoder
    from pyasn1.codec.der import encoder
    from pyasn1.error import PyAsn1Error
    from pyasn1.type import univ
    from pyasn1_modules import rfc5652

    of_content = hashlib.new(hash_name, content).digest()
    attributes = info["signedAttrs"]
    if not attributes.isValue or not len(attributes):
        # what another signature covers is a SET with a digest: it would be a right signature of such content
        fault = "they are the attributes of another signature" if _are_attributes(content) else None
        return None, of_content, fault
    try:
        values: dict[str, bytes] = {}
        signed = univ.SetOf(componentType=rfc5652.Attribute())
        for attribute in attributes:
            signed.append(attribute)
            kind = str(attribute["attrType"])
            if kind in values or len(attribute["attrValues"]) != 1:
                if kind in (_CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_TIME):
                    return None, b"", f"the attribute {kind} is not there once"
                continue
            values[kind] = bytes(attribute["attrValues"][0])
        digest = hashlib.new(hash_name, encoder.encode(signed)).digest()
        named = bytes(decoder.decode(values[_MESSAGE_DIGEST])[0]) if _MESSAGE_DIGEST in values else None
        content_type = str(decoder.decode(values[_CONTENT_TYPE])[0]) if _CONTENT_TYPE in values else None
    except (PyAsn1Error, ValueError, TypeError) as error:
        return None, b"", f"its attributes can't be read ({error.__class__.__name__})"
    signed_at = _time(values.get(_SIGNING_TIME))
    if content_type != _DATA:
        return signed_at, digest, "its attributes do not name the kind of the content"
    if named != of_content:
        return signed_at, digest, "the bytes have another digest than the one that was signed"
    return signed_at, digest, None


def _are_attributes(content: bytes) -> bool:
    """Whether bytes start as signed attributes do; see RFC 5652, section 5.4."""
    from pyasn1.codec.der import encoder
    from pyasn1.type import univ

    return content[:1] == b"\x31" and encoder.encode(univ.ObjectIdentifier(_MESSAGE_DIGEST)) in content


def _time(value: bytes | None) -> datetime | None:
    from pyasn1.codec.ber import decoder
    from pyasn1.error import PyAsn1Error

    if value is None:
        return None
    try:
        found: datetime = decoder.decode(value)[0].asDateTime
    except (PyAsn1Error, ValueError, TypeError, AttributeError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _is_signed(certificate: Certificate, value: bytes, digest: bytes, hash_name: str) -> bool:
    """Whether the key of a certificate made a signature; the whole padding is compared, byte by byte."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

    algorithm: hashes.HashAlgorithm = getattr(hashes, hash_name.upper())()
    try:
        key = certificate.key
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        key.verify(value, digest, padding.PKCS1v15(), utils.Prehashed(algorithm))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _hash_of(certificate: Certificate) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        algorithm = certificate.x509.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        algorithm = None
    return "sha512" if algorithm is not None and algorithm.name == "sha512" else "sha256"
