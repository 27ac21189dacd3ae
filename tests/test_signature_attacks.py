"""Attacks on signatures of packages: nothing is verified that ``openssl`` refuses, and nothing takes without end."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.test_packages import FILES, Signer, judged, make_signer
from vmvisor_image import CorruptImage
from vmvisor_image.packages.certificates import open_certificates
from vmvisor_image.packages.signatures import SignatureState, check_signed_data
from vmvisor_image.packages.vib import open_vib
from vmvisor_image.schemas.ar import MAGIC
from vmvisor_image.testing.forge_packages import archive_payload, descriptor, vib

CONTENT = b"<vib/>"
START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


def issue(
    folder: Path, name: str, above: str | None, *, ca: bool, length: int | None = None, may_issue: bool | None = None
) -> Signer:
    """A certificate issued by that of `above`, with a path length and a key usage."""
    signer = Signer(folder, name)
    key = rsa.generate_private_key(65537, 2048)
    issuer = name if above is None else above
    by = (
        key
        if above is None
        else serialization.load_pem_private_key(Signer(folder, above).key.read_bytes(), password=None)
    )
    assert isinstance(by, rsa.RSAPrivateKey)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer)]
    builder = x509.CertificateBuilder(
        names[1], names[0], key.public_key(), x509.random_serial_number(), START, START + datetime.timedelta(36500)
    ).add_extension(x509.BasicConstraints(ca, length), critical=True)
    if may_issue is not None:
        usage = x509.KeyUsage(True, False, False, False, False, may_issue, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    signer.pem.write_bytes(builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signer.key.write_bytes(private)
    return signer


@pytest.mark.parametrize(
    ("length", "may_issue", "right"),
    [(None, None, True), (1, True, True), (0, None, False), (None, False, False)],
)
@pytest.mark.parametrize("limited", ["root", "middle"])
def test_an_issuer_may_issue_only_what_its_certificate_says(
    length: int | None, *, may_issue: bool | None, right: bool, limited: str, tmp_path: Path
) -> None:
    root = issue(tmp_path, "root", None, ca=True, **(limits(length, may_issue) if limited == "root" else {}))
    middle = issue(tmp_path, "middle", "root", ca=True, **(limits(length, may_issue) if limited == "middle" else {}))
    low = issue(tmp_path, "low", "middle", ca=True)
    leaf = issue(tmp_path, "leaf", "low", ca=False)
    chain = tmp_path / "chain"
    chain.write_bytes(middle.pem.read_bytes() + low.pem.read_bytes())
    if limited == "root" and length == 1:
        right = False  # two issuers are below it
    signature = leaf.signed_data(CONTENT, "-certfile", chain)
    check = check_signed_data(CONTENT, signature, open_certificates(root.pem))
    assert check.is_verified is right, check
    assert judged(CONTENT, signature, root.pem, tmp_path) is right


def limits(length: int | None, may_issue: bool | None) -> dict[str, Any]:
    return {"length": length, "may_issue": may_issue}


def test_armour_without_an_end_takes_no_time() -> None:
    """A search with three repetitions in a row took minutes for 8,000 spaces."""
    for data in (b"-----BEGIN CMS-----" + b" " * 100_000, b"-----BEGIN PKCS7-----" * 5000):
        with pytest.raises(CorruptImage, match="PEM has no end"):
            check_signed_data(CONTENT, data, ())


def test_a_member_that_is_there_twice_is_never_verified(tmp_path: Path) -> None:
    """Readers differ on which of two members counts: one could show what another does not install."""
    signer = make_signer(tmp_path, "signer")
    payload = archive_payload("driver", FILES)
    text = descriptor("driver", [payload])
    whole = vib(text, [payload], signer.signed_data(text))
    assert open_vib(whole).check_signature(signer.certificates).is_verified
    other = vib(text.replace(b"certified", b"community"), [], b"other")
    found = open_vib(other + whole[len(MAGIC) :])
    assert found.check_signature(signer.certificates).state is SignatureState.NOT_CHECKED
    assert {"descriptor.xml", "sig.pkcs7"} <= {
        str(each).split("'")[1] for each in found.problems if "once" in str(each)
    }
    doubled = descriptor("driver", [payload, payload])
    assert "more than once" in str(open_vib(vib(doubled, [payload])).problems)
