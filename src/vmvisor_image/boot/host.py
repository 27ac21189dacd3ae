"""A host by what it keeps of itself: `open_host`, of a disk, a saved configuration, or a support bundle.

Sources: public files of ESXi; the behaviour of dissect.target, run as a program. Each part that can't be read is a
problem, and the others are read nevertheless.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar, Unpack

from vmvisor_image.archives.archive import Archive, open_archive
from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.open_options import OpenOptions, check_options
from vmvisor_image.base.xml_tree import parse_xml
from vmvisor_image.boot import accounts as accounts_of
from vmvisor_image.boot import esx_conf, logs
from vmvisor_image.boot.accounts import Account, read_accounts
from vmvisor_image.boot.configstore import LARGEST as LARGEST_STORE
from vmvisor_image.boot.configstore import PATHS as STORES
from vmvisor_image.boot.configstore import StoredSetting, read_configstore
from vmvisor_image.boot.esx_conf import named_children, parse_esx_conf
from vmvisor_image.boot.logs import LogLine, lines_by_time
from vmvisor_image.boot.network import RESOLVER, HostNetwork, read_network
from vmvisor_image.boot.state import ENCRYPTED, LOCAL, STATE, open_state, state_in
from vmvisor_image.boot.system import System
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import (
    CorruptImage,
    DependencyMissing,
    InvalidArgument,
    KeyUnavailable,
    NotAFileSystem,
    NotAHost,
    PartitionNotFound,
    PathNotFound,
    Problem,
    ProblemList,
)
from vmvisor_image.files.file import File
from vmvisor_image.packages.certificates import open_certificates
from vmvisor_image.streams.opening import SourceLike
from vmvisor_image.streams.source import Closing

_T = TypeVar("_T")
_DATASTORES: Final = ("vmfs3", "vmfs5", "vmfs6")
_MANIFEST: Final = "Manifest.txt"
_INVENTORY: Final = "etc/vmware/hostd/vmInventory.xml"
_CERTIFICATES: Final = ("etc/vmware/ssl/rui.crt", "etc/vmware/ssl/castore.pem")
_HOSTS: Final = "etc/hosts"
_LARGEST: Final = 1 << 22
_MOST_PROBLEMS: Final = 1000
_BUNDLE_ROOT: Final = re.compile(r"([^/]+/)(?:etc/vmware/|commands/|var/log/|var/run/log/)")
_MANIFEST_LINE: Final = re.compile(r"\s*([A-Z]+)\s*=\s*(.*?)\s*")
_RELEASE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)+)(?:-(?:.*\.)?([0-9]+))?")


@dataclass(frozen=True, slots=True)
class RegisteredMachine:
    """A virtual machine that the host knows."""

    id: str
    path: str
    """Path of its VMX, as in ``/vmfs/volumes/datastore1/vm/vm.vmx``."""


@dataclass(frozen=True, slots=True)
class HostDatastore:
    """A datastore of the host."""

    name: str
    kind: str
    """Kind: that of the volume on the disk, "nfs", or "referred to" for one that only a machine's path names."""
    location: str | None
    """Server and directory of one over a network; number of the partition of one on the disk; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """A certificate of the host."""

    path: str
    """File that it is in."""
    subject: str
    issuer: str
    valid_from: datetime
    valid_until: datetime
    sha256: str
    """Fingerprint: SHA-256 over the certificate in DER, in hexadecimal."""


class Host(Closing):
    """A host by what it keeps of itself; made by `open_host`. Its parts are read when they are first needed."""

    def __init__(  # noqa: PLR0913  # one for each thing that is known of the source
        self,
        files: Mapping[str, File],
        *,
        kind: str,
        closes: tuple[Closing | Image, ...] = (),
        image: Image | None = None,
        system: System | None = None,
        manifest: Mapping[str, str] = MappingProxyType({}),
        reveals_hashes: bool = False,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        """Made by `open_host`."""
        self.files = MappingProxyType(dict(files))
        """Files of its configuration by their paths, such as ``etc/hosts``; also its logs where they are there."""
        self.kind = kind
        """Kind of what it was opened from: "disk", "state", "configuration backup" or "support bundle"."""
        self._closes = closes
        self._image = image
        self._system = system
        self._manifest = manifest
        self._reveals = reveals_hashes
        self._problems = ProblemList("host", _MOST_PROBLEMS)
        for problem in problems:
            self._problems.add(problem)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage found in the parts that were read so far, and of their disk; parts that are missing or encrypted."""
        of_disk = () if self._image is None else self._image.known_problems
        return tuple(dict.fromkeys([*self._problems.found, *of_disk]))

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Settings of ``esx.conf`` by their paths; empty without that file."""
        data = self._read(esx_conf.PATH, esx_conf.LARGEST)
        return MappingProxyType({} if data is None else parse_esx_conf(data, self._problems))

    @cached_property
    def stored(self) -> tuple[StoredSetting, ...]:
        """Settings in the configuration store, which ESXi 7 and later have; empty without one."""
        data = next((found for path in STORES if (found := self._read(path, LARGEST_STORE)) is not None), None)
        return () if data is None else self._guarded(lambda: read_configstore(data, self._problems), ())

    @cached_property
    def name(self) -> str | None:
        """Name of the host, with its domain where that is known; None where nothing says it."""
        name = self.settings.get("/adv/Misc/HostName")
        if name:
            return name
        for line in self._text(_HOSTS).splitlines():
            match line.partition("#")[0].split():
                case [address, first, *_] if not address.startswith("127.") and address != "::1":
                    return first
        return None

    @cached_property
    def uuid(self) -> str | None:
        """UUID of the system; None where it is not known."""
        return self.settings.get("/system/uuid") or self._manifest.get("UUID")

    @cached_property
    def version(self) -> str | None:
        """Version of the hypervisor, such as "7.0.3"; None where nothing says it."""
        system = self._system
        found = self._release[0] if system is None else self._guarded(lambda: system.version, None)
        return found or self.settings.get("/resourceGroups/version")

    @cached_property
    def build(self) -> str | None:
        """Build of the hypervisor; None where nothing says it."""
        system = self._system
        return self._release[1] if system is None else self._guarded(lambda: system.build, None)

    @property
    def _release(self) -> tuple[str | None, str | None]:
        """Version and build by the manifest of a configuration backup."""
        match = _RELEASE.match(self._manifest.get("RELEASELEVEL", ""))
        return (None, None) if match is None else (match[1], match[2])

    @cached_property
    def network(self) -> HostNetwork:
        """Adapters, switches and interfaces, by ``esx.conf`` and ``resolv.conf``."""
        return read_network(self.settings, self._read(RESOLVER, _LARGEST) or b"")

    @cached_property
    def accounts(self) -> tuple[Account, ...]:
        """Accounts, with the types of their password hashes, and their SSH keys by fingerprint."""
        keys = {
            match[1]: self._read(path, accounts_of.LARGEST) or b""
            for path in self.files
            if (match := accounts_of.KEYS.fullmatch(path)) is not None
        }
        passwd, shadow = (
            self._read(path, accounts_of.LARGEST) or b"" for path in (accounts_of.USERS, accounts_of.SHADOW)
        )
        return read_accounts(passwd, shadow, keys, self._problems, reveals=self._reveals)

    @cached_property
    def machines(self) -> tuple[RegisteredMachine, ...]:
        """Virtual machines that are registered, by ``vmInventory.xml``."""
        data = self._read(_INVENTORY, _LARGEST)
        if data is None or not data.strip():
            return ()
        root = self._guarded(lambda: parse_xml(data, "vmInventory.xml"), None)
        found = []
        for each in () if root is None else root.all("ConfigEntry"):
            path = each.text_of("vmxCfgPath")
            if path is not None:
                found.append(RegisteredMachine(each.text_of("objID") or each.attributes.get("id", ""), path))
        return tuple(found)

    @cached_property
    def datastores(self) -> tuple[HostDatastore, ...]:
        """Datastores: volumes of the disk, NFS shares of the configuration, and those that machines are on."""
        found: dict[str, HostDatastore] = {}
        for partition in () if self._image is None else self._image.partitions:
            if not partition.is_container and partition.kind in _DATASTORES and partition.label:
                location = f"partition {partition.key}"
                found[partition.label] = HostDatastore(partition.label, partition.kind, location)
        for name, each in named_children(self.settings, "/nas"):
            if "host" in each:
                found.setdefault(name, HostDatastore(name, "nfs", f"{each['host']}:{each.get('share', '')}"))
        for setting in self.stored:
            where = (setting.component, setting.group, setting.name)
            if where[:2] == ("esx", "storage") and where[2].startswith("nfs") and isinstance(setting.value, dict):
                name = str(setting.value.get("volume_name") or setting.identifier)
                location = f"{setting.value.get('hostname', '')}:{setting.value.get('remote_share', '')}"
                found.setdefault(name, HostDatastore(name, "nfs", location))
        for machine in self.machines:
            parts = machine.path.split("/")
            if machine.path.startswith("/vmfs/volumes/") and len(parts) > 4:
                found.setdefault(parts[3], HostDatastore(parts[3], "referred to", None))
        return tuple(found.values())

    @cached_property
    def certificates(self) -> tuple[HostCertificate, ...]:
        """Certificates of the host and of those that it trusts; needs the extra ``crypto``, else a problem says so."""
        found: list[HostCertificate] = []
        for path in _CERTIFICATES:
            data = self._read(path, _LARGEST)
            if data is None or not data.strip():
                continue
            try:
                for each in open_certificates(data):
                    times = each.valid_from, each.valid_until
                    found.append(HostCertificate(path, each.subject, each.issuer, *times, each.sha256))
            except (InvalidArgument, DependencyMissing) as error:
                self._problems.note(path, str(error))
        return tuple(found)

    @cached_property
    def logs(self) -> Mapping[str, File]:
        """Logs by their paths; a support bundle has them, and a disk where they are on one of its volumes."""
        return MappingProxyType({path: file for path, file in self.files.items() if logs.PATHS.fullmatch(path)})

    def log_lines(self) -> Iterator[LogLine]:
        """Lines of all logs by their times, the earliest first; logs are read while the lines are taken."""
        return lines_by_time(self.logs, self._problems)

    def to_dict(self) -> dict[str, Any]:
        """The host as values that JSON has; the store's settings are those of `stored`, logs are only named."""
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "uuid": self.uuid,
            "network": asdict(self.network),
            "accounts": [asdict(each) for each in self.accounts],
            "machines": [asdict(each) for each in self.machines],
            "datastores": [asdict(each) for each in self.datastores],
            "certificates": [
                {**asdict(each), "valid_from": each.valid_from.isoformat(), "valid_until": each.valid_until.isoformat()}
                for each in self.certificates
            ],
            "settings": dict(self.settings),
            "stored": [asdict(each) for each in self.stored],
            "logs": [{"path": path, "size": file.size} for path, file in self.logs.items()],
            "problems": [asdict(each) for each in self.problems],
        }

    def close(self) -> None:
        """Close what was opened for it."""
        for each in self._closes:
            each.close()

    def __repr__(self) -> str:
        return f"<Host from a {self.kind}, {len(self.files)} files>"

    def _read(self, path: str, most: int) -> bytes | None:
        """Content of a file; None where it is not there, or can't be read, which is a problem."""
        file = self.files.get(path)
        if file is None:
            return None
        if file.size > most:
            self._problems.note(path, f"it has {file.size} bytes, more than the {most} that are read")
            return None
        return self._guarded(file.read_bytes, None)

    def _text(self, path: str) -> str:
        return (self._read(path, _LARGEST) or b"").decode("utf-8", "replace")

    def _guarded(self, read: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return read()
        except CorruptImage as error:
            self._problems.add(Problem.of(error))
        return otherwise


def open_host(
    source: SourceLike | Image,
    *,
    key: bytes | None = None,
    bank: int | str | None = None,
    reveal_hashes: bool = False,
    **options: Unpack[OpenOptions],
) -> Host:
    """The host that a disk, a saved configuration or a support bundle is of. Use it as a context manager, or close it.

    Args:
        source: An image or anything that `Image.open` takes: a disk with ESXi; ``state.tgz``, ``local.tgz``; the
            ``configBundle`` that ``vim-cmd hostsvc/firmware/backup_config`` makes; or a bundle of ``vm-support``.
        key: Key of an encrypted configuration, 32 bytes; None to derive it from ``encryption.info``, which works
            where the host has no TPM.
        bank: Boot bank of a disk, by number, label or ``@`` and its first byte; None for the one that the boot loader
            starts.
        reveal_hashes: Whether `Account.hash` has the hashes of passwords.
        **options: See `Image.open`; those of an archive are `storage_options`.

    Raises:
        OSError: The source can't be opened.
        NotAHost: It is none of these.
        KeyUnavailable: The configuration is encrypted, and the key is in a TPM. Of a disk, it is a problem.
        CorruptImage: It is damaged.
    """
    if isinstance(source, Image):
        return _of_disk(source, (), key, bank, reveals=reveal_hashes)
    check_options("open_host", options, OpenOptions.__optional_keys__)
    with contextlib.ExitStack() as stack:
        found: Host | None = None
        try:
            opened = open_archive(source, storage_options=options.get("storage_options"))
            archive = stack.enter_context(contextlib.closing(opened))
            found = _of_archive(archive, key, reveals=reveal_hashes)
        except CorruptImage:
            pass  # no archive: then it is a disk
        if found is not None:
            stack.pop_all()
            return found
    image = Image.open(source, **options)
    try:
        return _of_disk(image, (image,), key, bank, reveals=reveal_hashes)
    except BaseException:
        image.close()
        raise


def _of_archive(archive: Archive, key: bytes | None, *, reveals: bool) -> Host | None:
    """Host of an archive; None for an archive that is of no host."""
    names = list(archive)
    if STATE in archive:
        manifest = _manifest(archive)
        state = open_state(archive[STATE], key=key)
        kind = "configuration backup"
        return Host(state, kind=kind, closes=(state, archive), manifest=manifest, reveals_hashes=reveals)
    if LOCAL in archive or ENCRYPTED in archive or any(name.startswith("etc/") for name in names):
        state = state_in(archive, b"", key)
        return Host(state, kind="state", closes=(state, archive), reveals_hashes=reveals)
    roots = {match[1] for name in names if (match := _BUNDLE_ROOT.match(name)) is not None}
    if len(roots) != 1:
        return None
    [root] = roots
    files = {name.removeprefix(root): archive[name] for name in names if name.startswith(root)}
    return Host(files, kind="support bundle", closes=(archive,), reveals_hashes=reveals)


def _manifest(archive: Archive) -> dict[str, str]:
    file = archive.get(_MANIFEST)
    if file is None or file.size > _LARGEST:
        return {}
    lines = file.read_bytes().decode("utf-8", "replace").splitlines()
    return {match[1]: match[2] for line in lines if (match := _MANIFEST_LINE.fullmatch(line)) is not None}


def _of_disk(
    image: Image, closes: tuple[Closing | Image, ...], key: bytes | None, bank: int | str | None, *, reveals: bool
) -> Host:
    problems: list[Problem] = []
    files: dict[str, File] = {}
    try:
        system = image.system(bank)
    except PartitionNotFound as error:
        if bank is not None:
            raise
        raise NotAHost(f"it is not the disk of a host: {error}", structure="host") from error
    if system.home is None:
        raise NotAHost("it is an installer, which has no host's configuration", structure="host")
    held = system.home.files
    given = held.get(STATE) or held.get(LOCAL)
    opened: tuple[Closing, ...] = ()
    if given is not None:  # a disk as it is shipped has none
        try:
            state = open_state(given, key=key)
        except (CorruptImage, KeyUnavailable, PathNotFound, DependencyMissing) as error:
            problems.append(Problem.of(error) if isinstance(error, CorruptImage) else Problem(STATE, str(error)))
        else:
            files.update(state)
            opened = (state,)
    for partition in image.partitions:
        with contextlib.suppress(CorruptImage, NotAFileSystem):
            if not partition.is_container and partition.kind.startswith(("fat", "vmfs-l")):
                files.update(
                    {f"{partition.key}/{file.path}": file for file in partition.files.glob("log/**") if file.size}
                )
    return Host(
        files,
        kind="disk",
        closes=(*opened, *closes),
        image=image,
        system=system,
        reveals_hashes=reveals,
        problems=tuple(problems),
    )
