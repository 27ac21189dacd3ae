"""Exports of bundles to a PXE server: beside the CD of the same image profile, and with packages added."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import itertools
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import (
    BASE,
    BASE_PROVIDES,
    ORDER,
    PROFILE,
    RELEASE,
    VERSION,
    bundle_of,
    installer_cd,
    package,
    payload,
    profile_of,
    vib_id,
)
from tests.http_server import Served, http_server
from tests.media import BANK_41, ROCK_RIDGE, Media, iso, module, small_disk
from tests.support import require_tool
from vmvisor_image import (
    CorruptImage,
    DestinationExists,
    InvalidArgument,
    NotAnArchive,
    PartialExtraction,
    PathNotFound,
    PxeExport,
    UnsafeName,
    export_pxe,
    open_bundle,
    open_image_database,
)
from vmvisor_image.faces.cli import main
from vmvisor_image.packages.descriptor import Constraint
from vmvisor_image.packages.profile import format_profile, parse_profile
from vmvisor_image.packages.versions import compare_versions, is_met
from vmvisor_image.schemas.boot_cfg import BootConfig
from vmvisor_image.streams.source import Source
from vmvisor_image.streams.sources import BytesSource
from vmvisor_image.testing.forge_modules import tar_archive
from vmvisor_image.testing.forge_packages import ForgedPayload, ForgedRelationships, offline_bundle, vib

BUNDLE = bundle_of()
Packages = tuple[tuple[bytes, bytes], ...]


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def modules_of(folder: Path) -> list[str]:
    config = BootConfig.parse((folder / "boot.cfg").read_bytes())
    return [config.values["kernel"], *(module.name for module in config.modules)]


@functools.cache
def database() -> bytes:
    """The image database that is made for the release."""
    with tempfile.TemporaryDirectory() as folder:
        export_pxe(BUNDLE, folder)
        return (Path(folder) / "imgdb.tgz").read_bytes()


@pytest.mark.parametrize("options", [{}, {"prefix": "esx/8", "kernel_options": ["ks=http://s/ks.cfg"], "ipxe": True}])
@pytest.mark.parametrize("is_stored", [False, True], ids=["deflated", "stored"])
def test_a_bundle_gives_what_its_cd_gives(is_stored: bool, options: dict[str, object], tmp_path: Path) -> None:
    theirs = export_pxe(installer_cd(tmp_path, database()), tmp_path / "theirs", **options)  # type: ignore[arg-type]
    ours = export_pxe(bundle_of(is_stored=is_stored), tmp_path / "ours", **options)  # type: ignore[arg-type]
    assert written(tmp_path / "ours") == written(tmp_path / "theirs")
    assert (ours.label, ours.modules, ours.mode) == (theirs.label, theirs.modules, "install")
    assert (ours.profile, ours.added, ours.removed, ours.problems) == (PROFILE, (), (), ())
    assert (ours.left_out, theirs.left_out) == ((), ("cdromBoot",))


def test_every_payload_is_in_its_place(tmp_path: Path) -> None:
    """By `zipfile` and ``ar``: each module is the member of the package that the order by hand says."""
    export = export_pxe(BUNDLE, tmp_path / "tftp")
    assert modules_of(tmp_path / "tftp") == [*ORDER, "imgdb.tgz"]
    assert [module.split()[0] for module in export.modules] == [*ORDER, "imgdb.tgz"]
    with zipfile.ZipFile(io.BytesIO(BUNDLE)) as archive:
        path = next(name for name in archive.namelist() if "esx-base_" in name)
        (tmp_path / "base.vib").write_bytes(archive.read(path))
    for member, file in (("s", "s.v00"), ("jumpstrt", "jumpstrt.gz"), ("mboot.c32", "mboot.c32"), ("k", "k.b00")):
        done = subprocess.run([require_tool("ar"), "p", tmp_path / "base.vib", member], capture_output=True, check=True)
        assert (tmp_path / "tftp" / file).read_bytes() == done.stdout
    assert (tmp_path / "tftp/crypto64.efi").exists()
    assert not [path for path in (tmp_path / "tftp").iterdir() if "precheck" in path.name]


def test_every_kind_of_source(tmp_path: Path) -> None:
    """A zip file, its bytes, an open file, a folder, its index, an open bundle, and a bundle in an archive."""
    (tmp_path / "bundle.zip").write_bytes(BUNDLE)
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        archive.extractall(tmp_path / "depot")
    with open_bundle(BUNDLE) as bundle, (tmp_path / "bundle.zip").open("rb") as file:
        sources: list[Any] = [
            *(tmp_path / "bundle.zip", BUNDLE, file, tmp_path / "depot", tmp_path / "depot/index.xml"),
            *(bundle, BytesSource(BUNDLE)),
        ]
        found = []
        for number, source in enumerate(sources):
            export_pxe(source, tmp_path / f"{number}")
            found.append(written(tmp_path / f"{number}"))
    assert all(each == found[0] for each in found)
    assert set(found[0]) > {*ORDER, "imgdb.tgz", "boot.cfg", "mboot.c32", "mboot.efi", "pxelinux.cfg/default"}


def test_a_zip_file_that_is_no_bundle_is_still_an_image(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cd.zip", "w") as archive:
        archive.write(installer_cd(tmp_path, database()), "installer.iso")
    export_pxe(tmp_path / "cd.zip", tmp_path / "tftp")
    export_pxe(BUNDLE, tmp_path / "ours")
    assert written(tmp_path / "tftp") == written(tmp_path / "ours")


def test_progress_and_the_bundle_itself(tmp_path: Path) -> None:
    """Progress counts to the end; and no file is written over the bundle or depot that it is read from."""
    seen: list[tuple[int, int | None]] = []
    export = export_pxe(BUNDLE, tmp_path / "a", progress=lambda done, total: seen.append((done, total)))
    payloads = [path for path in export.files if path.name not in ("boot.cfg", "imgdb.tgz", "default")]
    total = sum(path.stat().st_size for path in payloads)
    assert seen == sorted(seen)
    assert (seen[-1], {each for _, each in seen}) == ((total, total), {total})
    (tmp_path / "b").mkdir()
    for name in ("b.b00", "s.v00"):
        (tmp_path / "b" / name).write_bytes(BUNDLE)
        with pytest.raises(DestinationExists, match="itself"):
            export_pxe(tmp_path / "b" / name, tmp_path / "b", overwrite=True)
        assert (tmp_path / "b" / name).read_bytes() == BUNDLE
        assert [path.name for path in (tmp_path / "b").iterdir()] == [name]
        (tmp_path / "b" / name).unlink()
    (tmp_path / "b/atlantic.v00").write_bytes(package("atlantic", payload("atlantic"), version="2.0-1")[1])
    with pytest.raises(DestinationExists, match="itself"):
        export_pxe(BUNDLE, tmp_path / "b", overwrite=True, add=[tmp_path / "b/atlantic.v00"])


class Counted(Source):
    """A source that counts the bytes that are read of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.count = 0

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        self.count += length
        return self._data[offset : offset + length]


@pytest.mark.parametrize("is_stored", [False, True], ids=["deflated", "stored"])
def test_nothing_is_read_or_decoded_twice(is_stored: bool, tmp_path: Path) -> None:
    """Though the load order goes to and fro in the packages, which are larger than any cache of a decoder."""
    noise = [hashlib.shake_128(bytes([number])).digest(12 << 20) for number in range(3)]
    large = [payload("b", "boot", 10), payload("mboot.c32", "boot_com32_bios")]
    large += [ForgedPayload(f"m{number}", data, data, "vgz", (), 90 - number) for number, data in enumerate(noise)]
    data = bundle_of((package("esx-base", *large, version=VERSION, relationships=BASE_PROVIDES),), is_stored=is_stored)
    source = Counted(data)
    export = export_pxe(source, tmp_path / "tftp")
    assert [name for name in export.modules if name.startswith("m")] == ["m2.v00", "m1.v00", "m0.v00"]
    assert source.count < 1.1 * len(data)
    for number, content in enumerate(noise):
        assert (tmp_path / f"tftp/m{number}.v00").read_bytes() == content


def test_the_image_database(tmp_path: Path) -> None:
    """By `tarfile`: its paths, and the bytes that signatures are over; by its reader: it describes what was written."""
    with tarfile.open(fileobj=io.BytesIO(database())) as archive:
        names = archive.getnames()
        signed = [name for name in names if name.endswith(".sig")]
        assert len(signed) == 1
        assert archive.extractfile(signed[0]).read() == b"signed"  # type: ignore[union-attr]
        original = archive.extractfile(signed[0].removesuffix(".sig") + ".orig")
        assert original is not None
        assert original.read() == next(text for text, _ in RELEASE if b"<name>esx-base<" in text)
    assert sum(name.startswith("var/db/esximg/profiles/") for name in names) == 1
    assert sum(name.startswith("var/db/esximg/vibs/") for name in names) == 2 * len(RELEASE) + 1
    export_pxe(BUNDLE, tmp_path)
    with open_image_database(tmp_path / "imgdb.tgz") as found:
        assert found.problems == ()
        assert found.profile is not None
        assert (found.profile.name, set(found.profile.vib_ids)) == (PROFILE, {vib_id(text) for text, _ in RELEASE})
        for name in ORDER:
            digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            assert digest in [each.value for each in found.payloads[name][1].checksums if each.process is None]


def test_names_by_the_profile_come_first(tmp_path: Path) -> None:
    """Also where one of them is what another payload's own name would be made to."""
    ids = {text.split(b"<name>")[1].split(b"<")[0].decode(): vib_id(text) for text, _ in RELEASE}
    names = {ids["vmkusb"]: {"vmkusb": "lsi_msgp.v00"}, ids["esx-base"]: {"s": "S.V07"}}
    export_pxe(bundle_of(RELEASE, profile_of(names=names)), tmp_path)
    found = modules_of(tmp_path)
    assert "S.V07" in found
    assert found.index("lsi_msgp.v01") < found.index("lsi_msgp.v02") < found.index("lsi_msgp.v00")
    assert (tmp_path / "lsi_msgp.v00").read_bytes() == payload("vmkusb").data


def test_a_name_given_twice_is_a_problem(tmp_path: Path) -> None:
    ids = {text.split(b"<name>")[1].split(b"<")[0].decode(): vib_id(text) for text, _ in RELEASE}
    names = {ids["vmkusb"]: {"vmkusb": "atlantic.v00"}, ids["atlantic"]: {"atlantic": "Atlantic.v00"}}
    export = export_pxe(bundle_of(RELEASE, profile_of(names=names)), tmp_path)
    assert [str(problem) for problem in export.problems] == [
        f"image profile: 'vmkusb' of {ids['vmkusb']} has the name 'atlantic.v00', as another file has"
    ]
    assert (tmp_path / "vmkusb.v00").read_bytes() == payload("vmkusb").data


@pytest.mark.parametrize(
    "name", ["a b.v00", "a --- b", "a---b", "a\nkernelopt=x", "a\rkernelopt=x", "\u00e4.v00", "../x"]
)
def test_names_that_boot_cfg_can_t_hold(name: str, tmp_path: Path) -> None:
    """Nothing of them becomes a setting or a module; a path out of the folder is refused."""
    names = {vib_id(text): {"vmkusb": name} for text, _ in RELEASE if b"<name>vmkusb<" in text}
    bundle = bundle_of(RELEASE, profile_of(names=names))
    if ".." in name:
        with pytest.raises(UnsafeName):
            export_pxe(bundle, tmp_path / "tftp")
        assert list(tmp_path.iterdir()) == []
        return
    export = export_pxe(bundle, tmp_path / "tftp")
    assert "which boot.cfg can't name" in export.problems[0].message
    assert modules_of(tmp_path / "tftp") == [*ORDER, "imgdb.tgz"]
    assert BootConfig.parse((tmp_path / "tftp/boot.cfg").read_bytes()).values["kernelopt"] == "runweasel"


def test_the_profile_has_to_be_named_where_there_are_several(tmp_path: Path) -> None:
    few = tuple(each for each in RELEASE if b"<name>tools-light<" not in each[0])
    bundle = bundle_of(RELEASE, profile_of(), profile_of(few, "ESXi-8.0U3-24022510-no-tools"))
    with pytest.raises(
        InvalidArgument, match=f"2 image profiles.*--profile: '{PROFILE}', 'ESXi-8.0U3-24022510-no-tools'"
    ):
        export_pxe(bundle, tmp_path)
    with pytest.raises(InvalidArgument, match=f"no image profile 'other', only '{PROFILE}'"):
        export_pxe(bundle, tmp_path, profile="other")
    export = export_pxe(bundle, tmp_path, profile="esxi-8.0u3-24022510-NO-TOOLS")
    assert export.profile == "ESXi-8.0U3-24022510-no-tools"
    assert modules_of(tmp_path) == [*(name for name in ORDER if name != "tools.t00"), "imgdb.tgz"]


def test_a_bundle_of_packages_alone_is_no_system(tmp_path: Path) -> None:
    text, data = package("driver", payload("driver"))
    with pytest.raises(InvalidArgument, match=r"no image profile.*pxe --add"):
        export_pxe(offline_bundle([data], [text]), tmp_path)


def test_packages_that_are_missing_are_named(tmp_path: Path) -> None:
    lost = [vib_id(text) for text, _ in RELEASE[:2]]
    with pytest.raises(CorruptImage, match="2 are not in the bundle") as caught:
        export_pxe(bundle_of(RELEASE[2:], profile_of()), tmp_path)
    assert all(each in str(caught.value) for each in lost)
    assert list(tmp_path.iterdir()) == []


def test_packages_that_the_metadata_lists_and_the_bundle_lacks(tmp_path: Path) -> None:
    lost = vib_id(RELEASE[0][0])
    cut = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(BUNDLE)) as whole, zipfile.ZipFile(cut, "w") as archive:
        for info in whole.infolist():
            if lost not in info.filename:
                archive.writestr(info, whole.read(info))
    with zipfile.ZipFile(cut) as archive:
        archive.extractall(tmp_path / "depot")
    for source in (cut.getvalue(), tmp_path / "depot"):
        with pytest.raises(CorruptImage, match=f"1 is not in the bundle: '{lost}'"):
            export_pxe(source, tmp_path / "tftp")
    export = export_pxe(cut.getvalue(), tmp_path / "tftp", add=[RELEASE[0][1]])
    assert modules_of(tmp_path / "tftp") == [*ORDER, "imgdb.tgz"]
    assert export.added == (lost,)


def damaged(change: str) -> Packages:
    """The release with one package whose payload is not what its description says."""
    right = payload("atlantic")
    text, data = package("atlantic", right)
    if change == "a byte":
        place = data.index(right.data) + len(right.data) // 2
        data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    elif change == "another size":
        text = text.replace(f'size="{len(right.data)}"'.encode(), f'size="{len(right.data) + 1}"'.encode())
        _, data = text, package("atlantic", right)[1]
        data = data.replace(f'size="{len(right.data)}"'.encode(), f'size="{len(right.data) + 1}"'.encode())
    elif change == "no payload":
        data = vib(text, [])
    elif change == "no SHA-256":
        text = text.replace(b'<checksum checksum-type="sha-256">', b'<checksum checksum-type="none">')
        data = data.replace(b'<checksum checksum-type="sha-256">', b'<checksum checksum-type="none">   ')
        data = vib(text, [right])
    return (*(each for each in RELEASE if b"<name>atlantic<" not in each[0]), (text, data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a byte", "another checksum than by the description"),
        ("another size", "by the description"),
        ("no payload", "'atlantic' is not in it"),
        ("no SHA-256", "can't be checked"),
    ],
)
@pytest.mark.parametrize("is_stored", [False, True], ids=["deflated", "stored"])
def test_a_payload_that_is_not_as_described_is_never_written(
    change: str, message: str, is_stored: bool, tmp_path: Path
) -> None:
    """Everything else is; the configuration is not, so that nothing boots from what is left."""
    bundle = bundle_of(damaged(change), is_stored=is_stored)
    with pytest.raises(PartialExtraction) as caught:
        export_pxe(bundle, tmp_path)
    [(path, error)] = caught.value.failed
    assert path == "atlantic.v00"
    assert message in str(error)
    assert {path.name for path in tmp_path.iterdir()} == {*ORDER, "mboot.c32", "mboot.efi", "crypto64.efi"} - {
        "atlantic.v00"
    }


def test_a_package_that_is_not_what_the_metadata_says_is_refused(tmp_path: Path) -> None:
    """Its own description fits it: somebody exchanged all of it. With and without what the metadata has, too."""
    own = payload("atlantic", content=b"an intruder")
    own = dataclasses.replace(own, data=own.data + bytes(len(payload("atlantic").data) - len(own.data)))
    own = dataclasses.replace(own, decoded=b"?")
    text, data = package("atlantic", own)
    whole = {
        info.filename: zipfile.ZipFile(io.BytesIO(BUNDLE)).read(info)
        for info in zipfile.ZipFile(io.BytesIO(BUNDLE)).infolist()
    }
    path = next(name for name in whole if "atlantic" in name)
    assert len(data) == len(whole[path])
    longer = package("atlantic", payload("atlantic", content=b"longer" * 1000))[1]
    renamed = whole[path].replace(b"<name>atlantic<", b"<name>atlantis<")
    for changed, message in ((data, "other payloads"), (longer, "other size"), (renamed, "other id")):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name, content in {**whole, path: changed}.items():
                archive.writestr(name, content)
        for source, add in ((made.getvalue(), []), (BUNDLE, [made.getvalue()])):
            with pytest.raises(CorruptImage, match=message):
                export_pxe(source, tmp_path, add=add)
    assert list(tmp_path.iterdir()) == []
    assert vib_id(text) in path


def test_what_does_not_apply_to_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="a bundle has no installed system"):
        export_pxe(BUNDLE, tmp_path, mode="run")
    with pytest.raises(InvalidArgument, match="a bundle has no installed system"):
        export_pxe(BUNDLE, tmp_path, bank=5)
    cd = installer_cd(tmp_path, database())
    with pytest.raises(InvalidArgument, match="are those of a bundle"):
        export_pxe(cd, tmp_path, profile=PROFILE)
    earlier = Media(tmp_path / "4.1", "4.1", small_disk({name: module(name) for name in BANK_41}), ROCK_RIDGE).iso
    for mode in ("run", "install"):
        with pytest.raises(InvalidArgument, match="not to an installed system or an earlier CD"):
            export_pxe(earlier, tmp_path, add=[BUNDLE], mode=mode)


def test_a_profile_without_loaders_or_a_kernel(tmp_path: Path) -> None:
    bare = [each for each in BASE if not each.kind.startswith("boot_")]
    only = (package("esx-base", *bare, version=VERSION, relationships=BASE_PROVIDES),)
    with pytest.raises(PathNotFound, match=f"the image profile '{PROFILE}' has no mboot.c32"):
        export_pxe(bundle_of(only), tmp_path)
    with pytest.raises(CorruptImage, match="has a kernel"):
        export_pxe(bundle_of((package("driver", payload("driver")),)), tmp_path)


def test_a_bundle_of_6_has_no_build_and_still_a_label(tmp_path: Path) -> None:
    base = package("esx-base", *BASE, version="6.7.0-0.0.8169922", relationships=BASE_PROVIDES)
    export = export_pxe(bundle_of((base,)), tmp_path)
    assert export.label == "esxi-6.7.0"
    assert BootConfig.parse((tmp_path / "boot.cfg").read_bytes()).values["build"] == ""


# Packages that are added.


def customized(added: Packages, tmp_path: Path, name: str = "tftp") -> PxeExport:
    return export_pxe(BUNDLE, tmp_path / name, add=[data for _, data in added])


def test_a_new_package(tmp_path: Path) -> None:
    """It is loaded in the place of its id, with a name that no other file has, and the database has it."""
    new = package("lsi-other", payload("lsi_msgpt9"), vendor="community", level="community")
    export = customized((new,), tmp_path)
    assert (export.added, export.removed, export.problems) == ((vib_id(new[0]),), (), ())
    assert export.profile == f"{PROFILE}-customized"
    found = modules_of(tmp_path / "tftp")
    assert found.index("tools.t00") < found.index("lsi_msgp.v02") < found.index("xorg.v00")
    assert (tmp_path / "tftp/lsi_msgp.v02").read_bytes() == payload("lsi_msgpt9").data
    with open_image_database(tmp_path / "tftp/imgdb.tgz") as database:
        assert vib_id(new[0]) in database.vibs
        assert database.profile is not None
        assert database.profile.acceptance_level == "community"


def test_a_newer_package_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    old = vib_id(next(text for text, _ in RELEASE if b"<name>atlantic<" in text))
    newer = [
        package("atlantic", payload("atlantic", content=b"new"), version=f"1.{n}-1", vendor="OEM") for n in (9, 10)
    ]
    for order in itertools.permutations(newer):
        export = customized(order, tmp_path, f"tftp-{vib_id(order[0][0])}")
        assert (export.removed, export.added) == ((old,), (vib_id(newer[1][0]),))
        assert [problem.message for problem in export.problems] == [
            f"{vib_id(newer[0][0])} is not added: {vib_id(newer[1][0])} is there, which is not older"
        ]
        assert modules_of(export.dest).count("atlantic.v00") == 1
        assert "atlantic.v01" not in modules_of(export.dest)


def test_an_older_package_is_not_added(tmp_path: Path) -> None:
    older = package("atlantic", payload("atlantic", content=b"old"), version="0.9-1")
    export = customized((older,), tmp_path)
    assert (export.added, export.removed) == ((), ())
    assert "is not older" in export.problems[0].message
    assert (tmp_path / "tftp/atlantic.v00").read_bytes() == payload("atlantic").data


def test_the_same_package_again_changes_nothing(tmp_path: Path) -> None:
    export = export_pxe(BUNDLE, tmp_path / "tftp", add=[BUNDLE])
    assert (export.added, export.removed, export.problems, export.profile) == ((), (), (), PROFILE)
    export_pxe(BUNDLE, tmp_path / "plain")
    assert written(tmp_path / "tftp") == written(tmp_path / "plain")


def test_a_package_that_replaces_others(tmp_path: Path) -> None:
    replaces = ForgedRelationships(depends=(), replaces=[("lsi-msgpt2", "<<", "2.0"), ("vmkusb", "<<", "1.0")])
    new = package("lsi-all", payload("lsi_all"), relationships=replaces)
    export = customized((new,), tmp_path)
    assert export.removed == (vib_id(next(text for text, _ in RELEASE if b"<name>lsi-msgpt2<" in text)),)
    assert "vmkusb.v00" in modules_of(tmp_path / "tftp")


def test_what_the_profile_replaces_is_not_added(tmp_path: Path) -> None:
    new = package("lsi-all", payload("lsi_all"), relationships=ForgedRelationships(depends=(), replaces=[("old-lsi",)]))
    old = package("old-lsi", payload("oldlsi"))
    export = export_pxe(bundle_of((*RELEASE, new)), tmp_path, add=[old[1]])
    assert [problem.message for problem in export.problems] == [
        f"{vib_id(old[0])} is not added: {vib_id(new[0])} says that it replaces it"
    ]


def test_of_two_that_are_added_one_replaces_the_other(tmp_path: Path) -> None:
    """In either order."""
    one = package("z-all", payload("z_all"), relationships=ForgedRelationships(depends=(), replaces=[("a-one",)]))
    other = package("a-one", payload("a_one"))
    for order in ((one, other), (other, one)):
        export = customized(order, tmp_path, f"first-{vib_id(order[0][0])}")
        assert export.added == (vib_id(one[0]),)
        assert "a_one.v00" not in modules_of(export.dest)


def test_a_profile_with_two_versions_of_a_package(tmp_path: Path) -> None:
    twin = package("atlantic", payload("atlantic2"), version="1.1-1")
    export = export_pxe(bundle_of((*RELEASE, twin)), tmp_path)
    assert [problem.message for problem in export.problems] == [
        f"{vib_id(RELEASE[-1][0])} is left out: the profile has {vib_id(twin[0])}, too"
    ]


def test_needs_and_conflicts_are_problems(tmp_path: Path) -> None:
    """The tree is written all the same."""
    cases = [
        (ForgedRelationships(depends=[("vmkapi_2_13_0_0",), ("esx-version", ">=", "8.0.3")]), None),
        (ForgedRelationships(depends=[("esx-base", ">=", "8.0")]), None),
        (ForgedRelationships(depends=[("esx-version", ">=", "9.0.0")]), "needs esx-version >= 9.0.0, which no"),
        (ForgedRelationships(depends=[("vmkapi_3_0_0_0",)]), "needs vmkapi_3_0_0_0, which no package is or provides"),
        (ForgedRelationships(depends=[("vmkapi_2_13_0_0", "=", "1.0")]), "needs vmkapi_2_13_0_0 = 1.0"),
        (
            ForgedRelationships(depends=(), conflicts=[("vmkusb", "<<", "2.0")]),
            "can't be together with VMW_bootbank_vmk",
        ),
        (ForgedRelationships(depends=(), conflicts=[("vmkusb", ">>", "2.0")]), None),
        (
            ForgedRelationships(depends=(), conflicts=[("esx-version", "=", "8.0.3")]),
            "can't be together with VMware_boot",
        ),
        (ForgedRelationships(depends=(), conflicts=[("driver",)]), None),
    ]
    for number, (relationships, message) in enumerate(cases):
        new = package("driver", payload("driver"), relationships=relationships)
        export = customized((new,), tmp_path, f"{number}")
        assert "driver.v00" in modules_of(export.dest)
        found = [problem.message for problem in export.problems]
        assert (len(found) == 0) if message is None else (len(found) == 1 and message in found[0]), found


def test_what_is_added_may_be_a_bundle_a_file_or_bytes(tmp_path: Path) -> None:
    one, two, three = (package(name, payload(name)) for name in ("drv-one", "drv-two", "drv-three"))
    (tmp_path / "one.vib").write_bytes(one[1])
    (tmp_path / "two.zip").write_bytes(offline_bundle([two[1]], [two[0]]))
    with open_bundle(offline_bundle([three[1]], [three[0]])) as bundle:
        export = export_pxe(BUNDLE, tmp_path / "tftp", add=[tmp_path / "one.vib", str(tmp_path / "two.zip"), bundle])
    assert set(export.added) == {vib_id(each[0]) for each in (one, two, three)}
    (tmp_path / "none").write_bytes(b"something else")
    with pytest.raises(NotAnArchive, match=r"none' is no VIB"):
        export_pxe(BUNDLE, tmp_path / "other", add=[tmp_path / "none"])
    with pytest.raises(FileNotFoundError):
        export_pxe(BUNDLE, tmp_path / "other", add=[tmp_path / "nowhere.vib"])
    with zipfile.ZipFile(tmp_path / "around.zip", "w") as archive:
        archive.write(tmp_path / "two.zip", "two.zip")
    with pytest.raises(NotAnArchive, match=r"it holds 'two.zip', which may be one: extract that first"):
        export_pxe(BUNDLE, tmp_path / "other", add=[tmp_path / "around.zip"])


def test_an_added_package_that_is_damaged_is_not_written(tmp_path: Path) -> None:
    text, data = damaged("a byte")[-1]
    newer = data.replace(b"1.0-1vmw.803", b"2.0-1vmw.803")
    assert text in data
    with pytest.raises(PartialExtraction, match="another checksum"):
        export_pxe(BUNDLE, tmp_path, add=[newer])


@pytest.mark.parametrize(
    "versions",
    [
        ("1.0-1", "1.0-2", "1.0-10", "1.0.1-1", "1.2-1", "1.10-1", "2.0~rc1-1", "2.0-1", "1:0.1-1", "10:0"),
        ("6.7.0-0.0.8169922", "7.0.0-1.0.15843807", "7.0.3-0.65.20842708", "8.0.0-1.0.20513097", "8.0.3-0.0.24022510"),
        ("1.0-1vmw.800.1.20.64098182", "1.0-1vmw.803.0.0.24022510", "1.0-1OEM.600.0.0.2159203", "1.0-01vmw.803.0.0.1"),
        (
            "11.0.5.15389592-15999342",
            "12.1.0.20219665-20841705",
            "12.1.0.20219665",
            "9.011.00-10",
            "9.007.01-1",
            "1.0a-1",
        ),
    ],
    ids=["kinds", "systems", "drivers", "tools"],
)
def test_versions_are_in_dpkg_s_order(versions: tuple[str, ...]) -> None:
    dpkg = require_tool("dpkg")
    for left, right in itertools.product(versions, repeat=2):
        order = compare_versions(left, right)
        for operator, holds in (("lt", order < 0), ("eq", order == 0), ("gt", order > 0)):
            done = subprocess.run([dpkg, "--compare-versions", left, operator, right], check=False)
            assert (done.returncode == 0) == holds, (left, operator, right)


def test_constraints() -> None:
    assert is_met(Constraint("a", None, None), "a", None)
    assert not is_met(Constraint("a", None, None), "b", "1")
    assert not is_met(Constraint("a", ">=", "1"), "a", None)
    for relation, holds in {"<<": "0", "<=": "01", "=": "1", ">=": "12", ">>": "2", "~=": ""}.items():
        assert "".join(v for v in "012" if is_met(Constraint("a", relation, "1"), "a", v)) == holds


# The command.


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle.zip").write_bytes(BUNDLE)
    newer = package("atlantic", payload("atlantic", content=b"new"), version="2.0-1")
    (tmp_path / "new.vib").write_bytes(newer[1])
    source, dest = str(tmp_path / "bundle.zip"), str(tmp_path / "tftp")
    assert main(["pxe", source, dest, "--profile", PROFILE, "--add", str(tmp_path / "new.vib")]) == 0
    told = capsys.readouterr()
    assert f"image profile {PROFILE}-customized" in told.out
    assert vib_id(newer[0]) in told.out
    assert told.err == ""
    assert main(["pxe", source, dest, "--profile", "other"]) == 2
    assert PROFILE in capsys.readouterr().err


def test_the_command_tells_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle.zip").write_bytes(BUNDLE)
    lonely = package("lonely", payload("lonely"), relationships=ForgedRelationships(depends=[("nobody",)]))
    (tmp_path / "lonely.vib").write_bytes(lonely[1])
    command = ["pxe", str(tmp_path / "bundle.zip"), str(tmp_path / "tftp"), "--add", str(tmp_path / "lonely.vib")]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert said == f"vmvisor-image: {vib_id(lonely[0])} needs nobody, which no package is or provides\n"
    assert "lonely.v00" in modules_of(tmp_path / "tftp")


def test_a_profile_s_xml_is_read_back() -> None:
    made = parse_profile(
        profile_of(names={vib_id(RELEASE[0][0]): {"tools": "tools.t00", "a&<\"'": "x"}}, name="a & <b>")
    )
    assert parse_profile(format_profile(made)) == made


def test_a_depot_on_a_server(tmp_path: Path) -> None:
    """Each package is asked for, and none of its bytes is sent twice."""
    with zipfile.ZipFile(io.BytesIO(BUNDLE)) as archive, http_server() as server:
        for name in archive.namelist():
            server.objects[f"depot/{name}"] = Served(BytesSource(archive.read(name)))
        server.objects["bundle.zip"] = Served(BytesSource(BUNDLE))
        export_pxe(f"{server.url}/depot/index.xml", tmp_path / "depot")
        packages = [served for name, served in server.objects.items() if name.endswith(".vib")]
        assert all(served.bytes == served.source.size for served in packages)
        export_pxe(f"{server.url}/bundle.zip", tmp_path / "zip")
    export_pxe(BUNDLE, tmp_path / "local")
    assert written(tmp_path / "depot") == written(tmp_path / "zip") == written(tmp_path / "local")


def test_what_reads_no_bundle_names_the_command_that_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle.zip").write_bytes(BUNDLE)
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        archive.extractall(tmp_path / "depot")
    for command in ("info", "ls", "system", "verify"):
        for name in ("bundle.zip", "depot"):
            assert main([command, str(tmp_path / name)]) != 0
            assert "`vmvisor-image pxe " in capsys.readouterr().err
    assert main(["pxe", str(tmp_path / "depot"), str(tmp_path / "tftp")]) == 0


# A CD with packages added.

ADDITIONS: dict[str, Packages] = {
    "a driver": (package("driver", payload("driver")),),
    "a newer one": (package("atlantic", payload("atlantic", content=b"new"), version="2.0-1", vendor="OEM"),),
    "one that replaces two": (
        package(
            "lsi-all",
            payload("lsi_msgpt"),
            payload("lsi_more", "tgz"),
            relationships=ForgedRelationships(depends=(), replaces=[("lsi-msgpt2",), ("lsi-msgpt35",)]),
        ),
    ),
    "the base": (
        package(
            "esx-base",
            *(payload(each.name, each.kind, each.boot_order, each.file_name, content=b"newer") for each in BASE),
            version="8.0.4-1",
            vendor="VMware",
            relationships=BASE_PROVIDES,
        ),
    ),
    "what does not fit": (package("lonely", payload("lonely"), relationships=ForgedRelationships(depends=[("x",)])),),
    "several": (package("zeta", payload("zeta", order=300)), package("alpha", payload("alpha", "boot", 55))),
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_a_cd_with_packages_added_gives_what_the_bundle_gives(name: str, tmp_path: Path) -> None:
    added = [data for _, data in ADDITIONS[name]]
    ours = export_pxe(BUNDLE, tmp_path / "ours", add=added)
    theirs = export_pxe(installer_cd(tmp_path, database()), tmp_path / "theirs", add=added)
    assert theirs.modules == ours.modules
    assert (theirs.added, theirs.removed, theirs.problems) == (ours.added, ours.removed, ours.problems)
    assert written(tmp_path / "ours") == written(tmp_path / "theirs")


def test_a_cd_keeps_what_is_not_of_its_packages(tmp_path: Path) -> None:
    """Modules of its builder, and their order, which need not be ours."""
    cd = installer_cd(tmp_path, database())
    config = (tmp_path / "cd/boot.cfg").read_text()
    moved = config.replace(" --- /xorg.v00", "").replace(" --- /imgdb.tgz", " --- /imgdb.tgz --- /imgpayld.tgz")
    (tmp_path / "cd/boot.cfg").write_text(moved.replace("modules=", "modules=/xorg.v00 --- "))
    (tmp_path / "cd/imgpayld.tgz").write_bytes(b"of the builder")
    iso(tmp_path / "cd", cd)
    export = export_pxe(cd, tmp_path / "tftp", add=[package("driver", payload("driver"))[1]])
    found = modules_of(tmp_path / "tftp")
    assert found[:2] == ["b.b00", "xorg.v00"]
    assert found[-2:] == ["imgdb.tgz", "imgpayld.tgz"]
    assert found.index("atlantic.v00") < found.index("driver.v00") < found.index("lsi_msgp.v00")
    assert (tmp_path / "tftp/imgpayld.tgz").read_bytes() == b"of the builder"
    assert export.not_made == ()


def test_a_cd_whose_packages_are_not_known(tmp_path: Path) -> None:
    added = [package("driver", payload("driver"))[1]]
    cd = installer_cd(tmp_path, gzip.compress(tar_archive({"var/db/esximg/vibs/none": b""})))
    with pytest.raises(CorruptImage, match="has no image profile"):
        export_pxe(cd, tmp_path / "tftp", add=added)
    (tmp_path / "cd/imgdb.tgz").unlink()
    with pytest.raises(PathNotFound, match="none can be added"):
        export_pxe(iso(tmp_path / "cd", cd), tmp_path / "tftp", add=added)


def test_the_order_of_a_real_cd(tmp_path: Path) -> None:
    """ESXi 7.0.3: names of packages as esxcli lists them, modules as boot.cfg of the CD does; both lists are public.

    The boot orders are those of 6.7 where these are known, and for microcode, xorg and gc chosen to fit.
    """
    drivers = (
        "atlantic bnxtnet bnxtroce brcmfcoe elxiscsi elxnet i40en iavmd icen igbn ionic-en irdman iser ixgben lpfc"
        " lpnic lsi-mr3 lsi-msgpt2 lsi-msgpt3 lsi-msgpt35 mtip32xx-native ne1000 nenic nfnic nhpsa nmlx4-core nmlx4-en"
        " nmlx4-rdma nmlx5-core nmlx5-rdma ntg3 nvme-pcie nvmerdma nvmetcp nvmxnet3 nvmxnet3-ens pvscsi qcnic qedentv"
        " qedrntv qfle3 qfle3f qfle3i qflge rste sfvmk smartpqi vmkata vmkfcoe vmkusb vmw-ahci"
    )
    others = (
        "bmcal crx elx-esx-libelxima.so esx-dvfilter-generic-fastpath esx-ui esxio-combiner loadesx"
        " lsuv2-hpv2-hpsa-plugin lsuv2-intelv2-nvme-vmd-plugin lsuv2-lsiv2-drivers-plugin lsuv2-nvme-pcie-plugin"
        " lsuv2-oem-dell-plugin lsuv2-oem-hp-plugin lsuv2-oem-lenovo-plugin lsuv2-smartpqiv2-plugin native-misc-drivers"
        " qlnativefc trx vdfs vmware-esx-esxcli-nvme-plugin vsan"
    )
    base = ("jumpstrt.gz", "useropts.gz", "features.gz", "k.b00", "uc_intel.b00", "uc_amd.b00", "uc_hygon.b00")
    modules = (
        "procfs vmx vim tpm sb s atlantic bnxtnet bnxtroce brcmfcoe elxiscsi elxnet i40en iavmd icen igbn ionic_en"
        " irdman iser ixgben lpfc lpnic lsi_mr3 lsi_msgp lsi_msgp lsi_msgp mtip32xx ne1000 nenic nfnic nhpsa nmlx4_co"
        " nmlx4_en nmlx4_rd nmlx5_co nmlx5_rd ntg3 nvme_pci nvmerdma nvmetcp nvmxnet3 nvmxnet3 pvscsi qcnic qedentv"
        " qedrntv qfle3 qfle3f qfle3i qflge rste sfvmk smartpqi vmkata vmkfcoe vmkusb vmw_ahci bmcal crx elx_esx_ btldr"
        " esx_dvfi esx_ui esxupdt tpmesxup weaselin esxio_co loadesx lsuv2_hp lsuv2_in lsuv2_ls lsuv2_nv lsuv2_oe"
        " lsuv2_oe lsuv2_oe lsuv2_sm native_m qlnative trx vdfs vmware_e vsan vsanheal vsanmgmt tools xorg gc imgdb"
    )
    boot = [payload("b", "boot", 10), payload("mboot.c32", "boot_com32_bios")]
    boot += [payload(f"m{n}", "boot", 47 + n, name) for n, name in enumerate(base[:3])]
    boot += [payload("k", "boot", 50), payload("procfs", "boot", 101)]
    boot += [payload(name, order=100) for name in ("vmx", "vim", "tpm", "sb", "s")]
    own = functools.partial(package, vendor="VMware")
    packages = (
        *(package(name, payload(name[:8])) for name in drivers.split()),
        *(own(name, payload(name[:8])) for name in others.split()),
        own("esx-base", *boot, payload("btldr"), version="7.0.3-0.65.20842708", relationships=BASE_PROVIDES),
        own("cpu-microcode", *(payload(f"uc_{name}", "boot", 60) for name in ("intel", "amd", "hygon"))),
        own("esx-update", *map(payload, ("esxupdt", "tpmesxup", "weaselin"))),
        own("vsanhealth", payload("vsanheal"), payload("vsanmgmt")),
        own("esx-xserver", payload("xorg", order=255)),
        own("gc", payload("gc", order=255)),
        own("tools-light", payload("tools", "tgz"), kind="locker"),
    )
    export_pxe(bundle_of(packages), tmp_path)
    found = modules_of(tmp_path)
    assert found[:8] == ["b.b00", *base]
    assert [name.partition(".")[0] for name in found[8:]] == modules.split()
