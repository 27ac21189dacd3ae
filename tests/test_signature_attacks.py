"""Attacks on signatures of packages: nothing is verified that ``openssl`` refuses, and nothing takes without end."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pyasn1.codec.der import decoder, encoder
from pyasn1.type import univ
from pyasn1_modules import rfc5652

from tests.test_packages import FILES, Signer, judged, make_signer, openssl, state_of
from vmvisor_image import CorruptImage
from vmvisor_image.packages.certificates import open_certificates
from vmvisor_image.packages.signatures import SignatureState, check_signed_data
from vmvisor_image.packages.vib import open_vib
from vmvisor_image.schemas.ar import MAGIC
from vmvisor_image.testing.forge_modules import kernel_elf, sign
from vmvisor_image.testing.forge_packages import archive_payload, descriptor, vib

CONTENT = b"<vib/>"
START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


def issue(
    folder: Path,
    name: str,
    above: str | None,
    *,
    ca: bool,
    length: int | None = None,
    may_issue: bool | None = None,
    bits: int = 2048,
    extension: x509.ExtensionType | None = None,
) -> Signer:
    """A certificate issued by that of `above`, with a path length, a key usage and a critical extension."""
    signer = Signer(folder, name)
    key = rsa.generate_private_key(65537, bits)
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
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
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


def test_all_of_several_signers_have_to_be_trusted(tmp_path: Path) -> None:
    first, second = make_signer(tmp_path, "first"), make_signer(tmp_path, "second")
    both = tmp_path / "both"
    both.write_bytes(first.pem.read_bytes() + second.pem.read_bytes())
    signature = first.signed_data(CONTENT, "-signer", second.pem, "-inkey", second.key)
    for trusted, right in ((first.pem, False), (second.pem, False), (both, True)):
        check = check_signed_data(CONTENT, signature, open_certificates(trusted))
        assert check.is_verified is right, check
        assert judged(CONTENT, signature, trusted, tmp_path) is right
        if not right:
            assert check.state is SignatureState.UNKNOWN_SIGNER
            assert check.message.startswith("signature ")
            assert "of 2: signed by" in check.message
            assert check.signer not in open_certificates(trusted)
    assert "all 2 signatures" in check_signed_data(CONTENT, signature, open_certificates(both)).message


@pytest.mark.parametrize("digest", ["md5", "sha1"])
def test_weak_digests_are_never_verified(digest: str, tmp_path: Path) -> None:
    """Security level 2 of openssl refuses them, too."""
    root = make_signer(tmp_path, "root")
    by = Signer(tmp_path, "root")
    check = check_signed_data(CONTENT, by.signed_data(CONTENT, "-md", digest), root.certificates)
    assert check.state is SignatureState.NOT_CHECKED
    assert "weak" in check.message
    low = make_signer(tmp_path, "low", above=root, ca=False, digest=digest)
    signature = low.signed_data(CONTENT)
    check = check_signed_data(CONTENT, signature, root.certificates)
    assert check.state is SignatureState.UNKNOWN_SIGNER
    assert f"weak: it is over {digest.upper()}" in check.message
    assert not judged(CONTENT, signature, root.pem, tmp_path, "-auth_level", "2")
    # one that is trusted by itself does not rest on its own signature
    assert check_signed_data(CONTENT, signature, low.certificates).is_verified


@pytest.mark.parametrize("weak", ["root", "middle", "leaf"])
def test_weak_keys_are_never_verified(weak: str, tmp_path: Path) -> None:
    bits = dict.fromkeys(("root", "middle", "leaf"), 2048) | {weak: 1024}
    root = issue(tmp_path, "root", None, ca=True, bits=bits["root"])
    middle = issue(tmp_path, "middle", "root", ca=True, bits=bits["middle"])
    leaf = issue(tmp_path, "leaf", "middle", ca=False, bits=bits["leaf"])
    signature = leaf.signed_data(CONTENT, "-certfile", middle.pem)
    check = check_signed_data(CONTENT, signature, root.certificates)
    assert check.state is (SignatureState.NOT_CHECKED if weak == "leaf" else SignatureState.UNKNOWN_SIGNER)
    assert not judged(CONTENT, signature, root.pem, tmp_path, "-auth_level", "2")
    if weak == "root":
        return  # it is not delivered, so nothing names it
    assert "1024 bits" in check.message
    if weak == "leaf":
        module = sign(kernel_elf(), key_id=b"forged".ljust(16, b"\0"), schema=4, make=leaf.raw)
        assert state_of(module, leaf.certificates) is SignatureState.NOT_CHECKED


OTHERS = x509.NameConstraints([x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")]))], None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0")


@pytest.mark.parametrize("extension", [OTHERS, UNKNOWN], ids=["name-constraints", "unknown"])
@pytest.mark.parametrize("limited", ["middle", "leaf"])
def test_what_limits_a_certificate_and_is_not_read_stops_a_chain(
    limited: str, extension: x509.ExtensionType, tmp_path: Path
) -> None:
    root = issue(tmp_path, "root", None, ca=True)
    middle = issue(tmp_path, "middle", "root", ca=True, extension=extension if limited == "middle" else None)
    leaf = issue(tmp_path, "leaf", "middle", ca=False, extension=extension if limited == "leaf" else None)
    signature = leaf.signed_data(CONTENT, "-certfile", middle.pem)
    check = check_signed_data(CONTENT, signature, root.certificates)
    assert check.state is SignatureState.UNKNOWN_SIGNER
    assert "can't stand in a chain" in check.message
    if limited == "middle" or extension is UNKNOWN:  # openssl passes over name constraints of a leaf
        assert not judged(CONTENT, signature, root.pem, tmp_path)


def test_pss_is_named_and_not_verified(tmp_path: Path) -> None:
    signer = make_signer(tmp_path, "signer")
    command = ("cms", "-sign", "-binary", "-outform", "PEM", "-md", "sha256", "-signer", signer.pem)
    done = openssl(*command, "-inkey", signer.key, "-keyopt", "rsa_padding_mode:pss", stdin=CONTENT)
    assert done.returncode == 0, done.stderr
    check = check_signed_data(CONTENT, done.stdout, signer.certificates)
    assert check.state is SignatureState.NOT_CHECKED
    assert "RSASSA-PSS" in check.message


def parsed(signature: bytes) -> tuple[Any, Any]:
    """The two structures of a signature in PEM."""
    outer, _ = decoder.decode(base64.b64decode(b"".join(signature.splitlines()[1:-1])), rfc5652.ContentInfo())
    signed, _ = decoder.decode(bytes(outer["content"]), rfc5652.SignedData())
    return outer, signed


def built(outer: Any, signed: Any) -> bytes:
    """A signature in PEM from both."""
    outer["content"] = encoder.encode(signed)
    return b"-----BEGIN PKCS7-----\n" + base64.encodebytes(encoder.encode(outer)) + b"-----END PKCS7-----\n"


def test_attributes_are_not_taken_for_what_was_signed(tmp_path: Path) -> None:
    """A signature with attributes is one of the attributes' own bytes once they are taken out; openssl takes it."""
    signer = make_signer(tmp_path, "signer")
    outer, signed = parsed(signer.signed_data(CONTENT))
    info = signed["signerInfos"][0]
    attributes = univ.SetOf(componentType=rfc5652.Attribute())
    attributes.extend(info["signedAttrs"])
    content = encoder.encode(attributes)
    bare = rfc5652.SignerInfo()
    for name in ("version", "sid", "digestAlgorithm", "signatureAlgorithm", "signature"):
        bare[name] = info[name]
    signed["signerInfos"][0] = bare
    signature = built(outer, signed)
    assert judged(content, signature, signer.pem, tmp_path)
    check = check_signed_data(content, signature, signer.certificates)
    assert check.state is SignatureState.WRONG
    assert "attributes of another signature" in check.message


@pytest.mark.parametrize(("field", "most"), [("signerInfos", 16), ("certificates", 64)])
def test_signers_and_certificates_are_limited(field: str, most: int, tmp_path: Path) -> None:
    signer = make_signer(tmp_path, "signer")
    outer, signed = parsed(signer.signed_data(CONTENT))
    one = signed[field][0]
    signed[field].extend([one] * (most - 1))
    assert check_signed_data(CONTENT, built(outer, signed), signer.certificates).is_verified
    signed[field].append(one)
    with pytest.raises(CorruptImage, match="more than 16 signers or 64 certificates"):
        check_signed_data(CONTENT, built(outer, signed), signer.certificates)


def test_the_size_of_a_signature_is_limited(tmp_path: Path) -> None:
    signer = make_signer(tmp_path, "signer")
    signature = signer.signed_data(CONTENT)
    assert check_signed_data(CONTENT, signature.ljust(128 << 10, b"\n"), signer.certificates).is_verified
    with pytest.raises(CorruptImage, match="larger than any signature"):
        check_signed_data(CONTENT, signature.ljust((128 << 10) + 1, b"\n"), signer.certificates)


def test_a_delivered_certificate_that_can_t_be_parsed_is_passed_over(tmp_path: Path) -> None:
    signer, odd = make_signer(tmp_path, "signer"), make_signer(tmp_path, "odd")
    outer, signed = parsed(signer.signed_data(CONTENT, "-certfile", odd.pem))
    for choice in signed["certificates"]:
        certificate = choice["certificate"]
        if b"odd" in encoder.encode(certificate["tbsCertificate"]["subject"]):
            certificate["tbsCertificate"]["version"] = 7
    assert check_signed_data(CONTENT, built(outer, signed), signer.certificates).is_verified
