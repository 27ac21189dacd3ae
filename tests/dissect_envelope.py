"""What dissect.hypervisor, another reader, decrypts of an encrypted configuration; run by a Python that has it.

It is called for what it gives only: dissect.hypervisor is AGPL, and none of it is in this project.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dissect.hypervisor.util.envelope import Envelope, KeyStore

if __name__ == "__main__":
    key = KeyStore.from_text(Path(sys.argv[2]).read_text(encoding="utf-8")).key
    with Path(sys.argv[1]).open("rb") as stream:
        sys.stdout.buffer.write(Envelope(stream).decrypt(key, aad=b"ESXConfiguration"))
