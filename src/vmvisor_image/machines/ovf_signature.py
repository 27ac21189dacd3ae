"""The signature of an OVF's manifest: a ``.cert`` beside it.

Source: DMTF DSP0243 1.1, 5.1: a line as in the manifest, with the signed digest of the manifest's bytes in place of a
digest, and the certificate of the signer in PEM.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from vmvisor_image.errors import InvalidArgument
from vmvisor_image.packages.certificates import Certificate, open_certificates
from vmvisor_image.packages.signatures import SignatureCheck, SignatureState, check_signed_digest

SUFFIX: Final = ".cert"
LARGEST: Final = 1 << 17
"""Number of bytes of a file that are read; it has a line and some certificates of two thousand bytes each."""
_LINE: Final = re.compile(rb"\s*SHA([0-9]{1,3})[ \t]*\([^\r\n]{1,1000}\)[ \t]*=[ \t]*([0-9a-fA-F]{2,4096})[ \t]*\r?\n")


def check_manifest(manifest: bytes, signature: bytes, certificates: Iterable[Certificate]) -> SignatureCheck:
    """Check the signature of a manifest.

    Args:
        manifest: Bytes of the manifest.
        signature: Bytes of the file with the signature.
        certificates: Certificates that the user trusts; the one in the file says who signed, and proves nothing.

    Raises:
        DependencyMissing: The extra ``crypto`` is not installed.
    """
    match = _LINE.match(signature.removeprefix(b"\xef\xbb\xbf"))
    if match is None or len(match[2]) % 2 or len(signature) > LARGEST:
        return SignatureCheck(SignatureState.NOT_CHECKED, "it does not begin with a line SHA256(name)= digits")
    try:
        delivered = open_certificates(signature)
    except InvalidArgument:
        return SignatureCheck(SignatureState.NOT_CHECKED, "it has no certificate that can be read")
    return check_signed_digest(
        manifest, bytes.fromhex(match[2].decode("ascii")), f"sha{int(match[1])}", delivered, tuple(certificates)
    )
