"""What a host keeps of itself, without compression."""

from __future__ import annotations

import io
import sqlite3
import tarfile

from fuzz.exercise import Bounded, documented
from vmvisor_image import open_host


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def seeds() -> list[bytes]:
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE TABLE Config (Component, ConfigGroup, Name, Identifier, AutoConfValue, UserValue, VitalValue)"
    )
    database.execute("INSERT INTO Config VALUES ('esx', 'storage', 'nfs_v3_datastores', 'a', NULL, '{\"b\": 1}', NULL)")
    database.commit()
    files = {
        "etc/vmware/esx.conf": b'/adv/Misc/HostName = "a"\n/net/pnic/child[0000]/name = "vmnic0"\n',
        "etc/passwd": b"root:x:0:0:a:/:/bin/sh\n",
        "etc/shadow": b"root:$6$a$b:1:::::\n",
        "etc/ssh/keys-root/authorized_keys": b"ssh-ed25519 AAAA a\n",
        "etc/vmware/hostd/vmInventory.xml": b"<ConfigRoot>"
        b"<ConfigEntry><vmxCfgPath>a</vmxCfgPath></ConfigEntry></ConfigRoot>",
        "var/lib/vmware/configstore/backup/current-store-1": database.serialize(),
    }
    logs = {"esx-a/etc/hosts": b"1.2.3.4 a\n", "esx-a/var/log/a.log": b"2026-01-02T03:04:05Z a\n"}
    return [_tar(files), _tar(logs)]


def one_input(data: bytes) -> None:
    with documented(), open_host(Bounded(data)) as host:
        assert host.to_dict()["kind"]
        for line in host.log_lines():
            assert line.number
