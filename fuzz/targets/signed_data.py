"""Signatures of packages: signed data of CMS."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from fuzz.exercise import documented
from vmvisor_image.packages.signatures import check_signed_data

CONTENT = b"what is signed"


def seeds() -> list[bytes]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a signer")])
    start = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(3650))
    certificate = builder.sign(key, hashes.SHA256())
    signing = pkcs7.PKCS7SignatureBuilder().set_data(CONTENT).add_signer(certificate, key, hashes.SHA256())
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
    without = [*options, pkcs7.PKCS7Options.NoAttributes]
    return [signing.sign(serialization.Encoding.DER, each) for each in (options, without)]


def one_input(data: bytes) -> None:
    with documented():
        assert not check_signed_data(CONTENT, data, ()).is_verified
