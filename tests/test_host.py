"""`open_host`: what a host keeps of itself, made by tarfile, sqlite3, ssh-keygen and openssl."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import sqlite3
import tarfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support import require_tool, run
from vmvisor_image import CorruptImage, Image, KeyUnavailable, NotAHost, fleet, open_host
from vmvisor_image.boot.accounts import password_type
from vmvisor_image.faces.cli import main
from vmvisor_image.testing.forge_gpt import esx7_disk
from vmvisor_image.testing.forge_modules import encrypt, encryption_info

ESX_CONF = b"""\
/adv/Misc/HostName = "esx1.example.org"
/system/uuid = "5db638ec-0000-1111-2222-333344445555"
/resourceGroups/version = "7.0.3"
/net/pnic/child[0000]/name = "vmnic0"
/net/pnic/child[0000]/mac = "00:50:56:00:00:01"
/net/vmkernelnic/child[0000]/name = "vmk0"
/net/vmkernelnic/child[0000]/mac = "00:50:56:00:00:02"
/net/vmkernelnic/child[0000]/ipv4address = "192.0.2.10"
/net/vmkernelnic/child[0000]/ipv4netmask = "255.255.255.0"
/net/vmkernelnic/child[0000]/portgroup = "Management Network"
/net/vmkernelnic/child[0001]/name = "vmk1"
/net/vmkernelnic/child[0001]/dhcp = "true"
/net/vswitch/child[0000]/name = "vSwitch0"
/net/vswitch/child[0000]/uplinks/child[0000]/pnic = "vmnic0"
/net/vswitch/child[0000]/portgroup/child[0000]/name = "VM Network"
/net/vswitch/child[0000]/portgroup/child[0000]/vlanId = "0"
/net/vswitch/child[0000]/portgroup/child[0001]/name = "Management \\"Network\\""
/net/vswitch/child[0000]/portgroup/child[0001]/vlanId = "12"
/net/routes/kernel/gateway = "192.0.2.1"
/nas/backup/host = "nas.example.org"
/nas/backup/share = "/export/backup"
"""
SHADOW = b"root:$6$salt$hash:18000:0:99999:7:::\ndcui:*:13358:0:99999:7:::\nguest::1:::::\nold:$1$a$b:1:::::\n"
PASSWD = (
    b"root:x:0:0:Administrator:/:/bin/sh\ndcui:x:100:100:DCUI User:/:/bin/sh\n"
    b"guest:x:101:101::/:/bin/sh\nold:x:102:102::/:/bin/sh\n"
)
INVENTORY = b"""<ConfigRoot>
  <ConfigEntry id="0000"><objID>1</objID><vmxCfgPath>/vmfs/volumes/datastore1/vm/vm.vmx</vmxCfgPath></ConfigEntry>
  <ConfigEntry id="0001"><objID>4</objID><vmxCfgPath>/vmfs/volumes/backup/b/b.vmx</vmxCfgPath></ConfigEntry>
</ConfigRoot>
"""
STORE_ROWS = [
    (
        "esx",
        "storage",
        "nfs_v3_datastores",
        "nfs1",
        {"hostname": "10.0.0.9", "volume_name": "nfs1", "remote_share": "/v"},
    ),
    ("esx", "syslog", "global_settings", "", {"log_dir": "[datastore1] log"}),
]


def store(rows: Sequence[tuple[str, str, str, str, object]], path: Path, *, sql: str | None = None) -> bytes:
    """A database with the columns that are known."""
    database = sqlite3.connect(path)
    columns = "Component, ConfigGroup, Name, Identifier, AutoConfValue, UserValue, VitalValue, CachedValue"
    database.execute(sql or f"CREATE TABLE Config ({columns})")
    if sql is None:
        for component, group, name, identifier, value in rows:
            given = (component, group, name, identifier, None, json.dumps(value), None, None)
            database.execute("INSERT INTO Config VALUES (?,?,?,?,?,?,?,?)", given)
    database.commit()
    database.close()
    return path.read_bytes()


def tgz(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def certificate(folder: Path) -> bytes:
    require_tool("openssl")
    made = folder / "rui.crt"
    subject = ["-subj", "/CN=esx1.example.org/O=Example", "-days", "10"]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "k.pem", "-out", made, *subject)
    return made.read_bytes()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("host")
    require_tool("ssh-keygen")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "admin@example", "-f", folder / "key")
    public = (folder / "key.pub").read_bytes()
    return {
        "etc/vmware/esx.conf": ESX_CONF,
        "etc/passwd": PASSWD,
        "etc/shadow": SHADOW,
        "etc/resolv.conf": b"nameserver 192.0.2.53\nsearch example.org\n",
        "etc/hosts": b"127.0.0.1 localhost\n192.0.2.10 esx1.example.org esx1\n",
        "etc/ssh/keys-root/authorized_keys": b"# keys\n" + public + b'command="ls, x" ' + public + b"nonsense\n",
        "etc/vmware/hostd/vmInventory.xml": INVENTORY,
        "etc/vmware/ssl/rui.crt": certificate(folder),
        "var/lib/vmware/configstore/backup/current-store-1": store(STORE_ROWS, folder / "store"),
        "fingerprint": run("ssh-keygen", "-lf", folder / "key.pub").split()[1].encode(),
    }


@pytest.fixture
def state(files: dict[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / "state.tgz").write_bytes(tgz({"local.tgz": tgz(files)}))
    return tmp_path / "state.tgz"


def test_a_saved_state(state: Path, files: dict[str, bytes]) -> None:
    with open_host(state) as host:
        assert (host.kind, host.name, host.version, host.build) == ("state", "esx1.example.org", "7.0.3", None)
        assert host.uuid == "5db638ec-0000-1111-2222-333344445555"
        network = host.network
        assert [(each.name, each.address, each.is_dhcp) for each in network.interfaces] == [
            ("vmk0", "192.0.2.10", False),
            ("vmk1", None, True),
        ]
        [switch] = network.switches
        assert switch.uplinks == ("vmnic0",)
        assert [(each.name, each.vlan) for each in switch.port_groups] == [
            ("VM Network", 0),
            ('Management "Network"', 12),
        ]
        assert [each.name for each in network.adapters] == ["vmnic0"]
        assert (network.gateway, network.name_servers, network.search_domains) == (
            "192.0.2.1",
            ("192.0.2.53",),
            ("example.org",),
        )
        assert [(each.id, each.path.rpartition("/")[2]) for each in host.machines] == [("1", "vm.vmx"), ("4", "b.vmx")]
        assert [(each.name, each.kind, each.location) for each in host.datastores] == [
            ("backup", "nfs", "nas.example.org:/export/backup"),
            ("nfs1", "nfs", "10.0.0.9:/v"),
            ("datastore1", "referred to", None),
        ]
        assert [each.value for each in host.stored] == [row[-1] for row in STORE_ROWS]
        assert json.loads(json.dumps(host.to_dict()))["name"] == "esx1.example.org"
        assert [problem.structure for problem in host.problems] == ["authorized_keys of root"]


def test_accounts_show_no_hashes_unless_asked(state: Path, files: dict[str, bytes]) -> None:
    with open_host(state) as host:
        assert [(each.name, each.uid, each.password) for each in host.accounts] == [
            ("root", 0, "SHA-512-crypt"),
            ("dcui", 100, "locked"),
            ("guest", 101, "none"),
            ("old", 102, "MD5-crypt"),
        ]
        assert {each.hash for each in host.accounts} == {None}
        assert "$6$" not in json.dumps(host.to_dict()) + repr(host.accounts)
        keys = host.accounts[0].keys
        assert {key.fingerprint for key in keys} == {files["fingerprint"].decode()}
        assert [(key.kind, key.comment, key.options) for key in keys] == [
            ("ssh-ed25519", "admin@example", ""),
            ("ssh-ed25519", "admin@example", 'command="ls, x"'),
        ]
    with open_host(state, reveal_hashes=True) as host:
        assert [each.hash for each in host.accounts] == ["$6$salt$hash", "*", "", "$1$a$b"]
        assert "$6$" not in repr(host.accounts)


@pytest.mark.parametrize("method", ["-1", "-5", "-6"])
def test_types_of_hashes_that_openssl_makes(method: str) -> None:
    made = run("openssl", "passwd", method, "-salt", "abcd", "secret").strip()
    assert password_type(made) == {"-1": "MD5-crypt", "-5": "SHA-256-crypt", "-6": "SHA-512-crypt"}[method]


def test_certificates_as_openssl_shows_them(state: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes(files["etc/vmware/ssl/rui.crt"])
    shown = run("openssl", "x509", "-in", tmp_path / "c.pem", "-noout", "-fingerprint", "-sha256", "-enddate")
    with open_host(state) as host:
        [found] = host.certificates
        assert found.sha256.upper() in shown.replace(":", "")
        assert f"{found.valid_until:%b %e %H:%M:%S %Y}" in shown.replace("GMT", "").replace("  ", " ") or (
            f"{found.valid_until:%H:%M:%S %Y}" in shown
        )
        assert "CN=esx1.example.org" in found.subject


class TestSources:
    def test_local_tgz(self, files: dict[str, bytes]) -> None:
        with open_host(tgz(files)) as host:
            assert (host.kind, host.name) == ("state", "esx1.example.org")

    def test_a_configuration_backup(self, state: Path) -> None:
        manifest = b"RELEASELEVEL = 6.7.0-8169922\nUUID=5db6\nKERNELOPTS=\n"
        with open_host(tgz({"Manifest.txt": manifest, "state.tgz": state.read_bytes()})) as host:
            assert (host.kind, host.version, host.build) == ("configuration backup", "6.7.0", "8169922")
            assert host.name == "esx1.example.org"

    def test_a_support_bundle(self, files: dict[str, bytes]) -> None:
        root = "esx-esx1-2026-01-02--10.11-123/"
        log = b"2026-01-02T10:00:01.500Z cpu1: one\n  more of one\n2026-01-02T10:00:05Z three\n"
        zipped = gzip.compress(b"no time\n2026-01-02T10:00:03.25Z two\n")
        all_files = {**files, "var/run/log/vmkernel.log": log, "var/run/log/hostd.0.gz": zipped}
        with open_host(tgz({root + name: data for name, data in all_files.items()})) as host:
            assert (host.kind, host.name) == ("support bundle", "esx1.example.org")
            assert set(host.logs) == {"var/run/log/vmkernel.log", "var/run/log/hostd.0.gz"}
            lines = list(host.log_lines())
            assert [line.text.strip().rpartition(" ")[2] for line in lines] == ["time", "one", "one", "two", "three"]
            assert lines[1].time == lines[2].time == datetime(2026, 1, 2, 10, 0, 1, 500_000, UTC)
            assert lines[0].time is None

    def test_a_disk(self, state: Path, tmp_path: Path) -> None:
        bank = {
            "boot.cfg": b"build=7.0.3-0.0.19193900\nkernel=b.b00\nmodules=s.v00\nbootstate=0\nupdated=1\n",
            "b.b00": gzip.compress(b"kernel"),
            "s.v00": gzip.compress(b"module"),
            "state.tgz": state.read_bytes(),
        }
        path = tmp_path / "disk.dd"
        esx7_disk(boot={}, bank=bank).write_to(path)
        with open_host(path) as host:
            assert (host.kind, host.name, host.build) == ("disk", "esx1.example.org", "19193900")
        with Image.open(path) as image, open_host(image) as host:
            assert host.accounts[0].name == "root"

    def test_rows_of_many(self, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bank = {"boot.cfg": b"kernel=b.b00\nmodules=\nbootstate=0\n", "b.b00": gzip.compress(b"kernel")}
        esx7_disk(boot={}, bank={**bank, "state.tgz": state.read_bytes()}).write_to(tmp_path / "one.dd")
        esx7_disk(boot={}, bank={}).write_to(tmp_path / "two.dd")
        one, two = (fleet.scan_one(tmp_path / name, host=True) for name in ("one.dd", "two.dd"))
        assert (one["host"], one["accounts"], one["open_accounts"], one["machines"], one["datastores"]) == (
            "esx1.example.org",
            4,
            "guest",
            2,
            "backup, nfs1, datastore1",
        )
        assert (one["error"], one["ok"]) == ("Problem", False)  # a line of authorized_keys is damaged
        assert {two[name] for name in ("host", "accounts", "open_accounts", "machines", "datastores")} == {None}
        assert fleet.scan_one(tmp_path / "one.dd")["host"] is None
        main(["scan", "--json", "--host", str(tmp_path / "one.dd")])
        assert json.loads(capsys.readouterr().out)["host"] == "esx1.example.org"

    @pytest.mark.parametrize(
        "data", [b"text" * 1000, tgz({"a.txt": b"a"}), bytes(100_000)], ids=["text", "archive", "zeros"]
    )
    def test_anything_else(self, data: bytes) -> None:
        with pytest.raises(CorruptImage):
            open_host(data)

    def test_a_disk_without_a_host(self, tmp_path: Path) -> None:
        esx7_disk(boot={"a": b"a"}, bank={"b": b"b"}).write_to(tmp_path / "x")
        with pytest.raises(NotAHost):
            open_host(tmp_path / "x")


class TestEncrypted:
    def test_without_a_tpm(self, files: dict[str, bytes]) -> None:
        info = encryption_info(b"a" * 32, b"b" * 32)
        with open_host(tgz({"local.tgz.ve": encrypt(tgz(files), info), "encryption.info": info})) as host:
            assert host.name == "esx1.example.org"

    def test_with_a_tpm(self, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        info = encryption_info(b"a" * 32, b"b" * 32)
        (tmp_path / "state.tgz").write_bytes(tgz({"local.tgz.ve": encrypt(tgz(files), info)}))
        with pytest.raises(KeyUnavailable, match="TPM"):
            open_host(tmp_path / "state.tgz")
        assert main(["host", str(tmp_path / "state.tgz")]) == 2
        assert "TPM" in capsys.readouterr().err


class TestHostile:
    @pytest.mark.parametrize(
        "sql",
        [
            "CREATE VIEW Config AS SELECT 1 AS Component",
            "CREATE TABLE Other (a)",
            "CREATE TABLE Config (Component)",
        ],
    )
    def test_a_store_with_another_schema(self, sql: str, files: dict[str, bytes], tmp_path: Path) -> None:
        path = "var/lib/vmware/configstore/backup/current-store-1"
        with open_host(tgz({**files, path: store([], tmp_path / "s", sql=sql)})) as host:
            assert host.stored == ()
            assert "configuration store" in {problem.structure for problem in host.problems}
            assert host.name == "esx1.example.org"

    @pytest.mark.parametrize("seed", range(60))
    def test_a_damaged_store_ends_in_problems(self, seed: int, files: dict[str, bytes]) -> None:
        path, chosen = "var/lib/vmware/configstore/backup/current-store-1", random.Random(seed)
        data = bytearray(files[path])
        for _ in range(chosen.choice([1, 4, 50])):
            data[chosen.randrange(len(data))] = chosen.randrange(256)
        with open_host(tgz({**files, path: bytes(data)})) as host:
            assert len(host.stored) <= 2
            assert host.accounts[0].name == "root"

    @pytest.mark.parametrize("seed", range(40))
    def test_damaged_files_end_in_problems(self, seed: int, files: dict[str, bytes]) -> None:
        chosen = random.Random(seed)
        changed = dict(files)
        for name in chosen.sample(sorted(files), 4):
            data = bytearray(files[name])
            for _ in range(20):
                data[chosen.randrange(len(data))] = chosen.randrange(256)
            changed[name] = bytes(data)
        with open_host(tgz(changed)) as host:
            host.to_dict()

    def test_xml_with_entities_is_a_problem(self, files: dict[str, bytes]) -> None:
        bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><ConfigRoot>&b;</ConfigRoot>'
        with open_host(tgz({**files, "etc/vmware/hostd/vmInventory.xml": bomb})) as host:
            assert host.machines == ()
            assert any("vmInventory" in problem.structure for problem in host.problems)

    def test_a_log_that_breaks_off(self, files: dict[str, bytes]) -> None:
        whole = gzip.compress(os.urandom(2000).hex().encode() + b"\n" + b"line\n" * 100)
        broken = {"esx-a/etc/hosts": b"", "esx-a/var/log/a.0.gz": whole[:-400], "esx-a/var/log/b.log": b"b\n"}
        with open_host(tgz(broken)) as host:
            assert "b" in [line.text for line in host.log_lines()]
            assert [problem.structure for problem in host.problems] == ["var/log/a.0.gz"]

    def test_nothing_is_written_to_the_store(self, files: dict[str, bytes], tmp_path: Path) -> None:
        """A store in the mode with a log, as a running host has it."""
        path = tmp_path / "wal"
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode = WAL")
        database.close()
        data = bytearray(store(STORE_ROWS, tmp_path / "plain"))
        data[18:20] = path.read_bytes()[18:20]
        with open_host(tgz({**files, "var/lib/vmware/configstore/backup/current-store-1": bytes(data)})) as host:
            assert len(host.stored) == 2
            assert any("-wal" in problem.message for problem in host.problems)


class TestCommand:
    def test_the_report(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["host", str(state)]) == 1  # a line of authorized_keys is damaged
        captured = capsys.readouterr()
        for text in (
            "esx1.example.org: 7.0.3 (from a state)",
            "vmk0: 192.0.2.10/255.255.255.0, port group Management Network",
            "root (uid 0): password SHA-512-crypt",
            "guest (uid 101): password none",
            "backup (nfs, nas.example.org:/export/backup)",
            "1: /vmfs/volumes/datastore1/vm/vm.vmx",
            "CN=esx1.example.org",
        ):
            assert text in " ".join(captured.out.split()), text
        assert "$6$" not in captured.out
        assert "authorized_keys of root" in captured.err

    def test_hashes_and_json(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["host", "--json", "--hashes", str(state)]) == 1
        assert json.loads(capsys.readouterr().out)["accounts"][0]["hash"] == "$6$salt$hash"

    def test_logs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lines = {"esx-a/etc/hosts": b"", "esx-a/var/log/b.log": b"2026-01-02T10:00:01Z \x1b[31mred\n"}
        (tmp_path / "b.tgz").write_bytes(tgz(lines))
        assert main(["host", "--logs", str(tmp_path / "b.tgz")]) == 0
        assert capsys.readouterr().out == "var/log/b.log:1: 2026-01-02T10:00:01Z \\x1b[31mred\n"

    def test_a_key_that_is_none(self, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "key").write_bytes(b"short")
        assert main(["host", "--key-file", str(tmp_path / "key"), str(state)]) == 2
        assert "32 bytes" in capsys.readouterr().err
