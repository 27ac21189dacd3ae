"""Attacks on image databases: what readers could differ on is a problem, and nothing takes memory without end."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest

from vmvisor_image import open_archive
from vmvisor_image.packages import database as module
from vmvisor_image.packages.database import ImageDatabase, open_image_database
from vmvisor_image.packages.descriptor import parse_descriptor
from vmvisor_image.testing.forge_packages import archive_payload, descriptor, image_database, image_profile

PAYLOAD = archive_payload("driver", {"bin/driver": b"a driver"})
TEXTS = [descriptor(name, [PAYLOAD]) for name in ("first", "second")]
IDS = [parse_descriptor(text).id for text in TEXTS]
VIBS = "var/db/esximg/vibs"


def opened(*members: tuple[str, bytes | str]) -> ImageDatabase:
    """A database of members that the standard library wrote; text is the target of a symbolic link."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for path, content in members:
            info = tarfile.TarInfo(path)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return open_image_database(gzip.compress(made.getvalue(), mtime=0))


def messages(database: ImageDatabase) -> str:
    return "\n".join(map(str, database.problems))


def test_two_packages_that_claim_one_file_are_a_problem() -> None:
    profile = image_profile("forged", {IDS[0]: {"driver": "driver.v00"}, IDS[1]: {"driver": "DRIVER.V00"}})
    found = open_image_database(image_database(profile, [(text, b"") for text in TEXTS]))
    assert f"'driver.v00' is a payload of {IDS[0]!r} and of {IDS[1]!r}" in messages(found)
    assert found.payloads["driver.v00"][0].id == IDS[0]
    apart = image_profile("forged", {IDS[0]: {"driver": "driver.v00"}, IDS[1]: {"driver": "driver.v01"}})
    assert open_image_database(image_database(apart, [(text, b"") for text in TEXTS])).problems == ()


def test_names_that_differ_in_case_or_are_there_twice_are_problems() -> None:
    assert opened((f"{VIBS}/a.xml", TEXTS[0]), (f"{VIBS}/b.xml", TEXTS[1])).problems == ()
    for other in ("A.xml", "a.xml"):
        found = opened((f"{VIBS}/a.xml", TEXTS[0]), (f"{VIBS}/{other}", TEXTS[1]))
        assert f"'{VIBS}/{other}' is there more than once, first as '{VIBS}/a.xml'" in messages(found)
    found = opened((f"{VIBS}/a.xml", TEXTS[0]), ("var/db/esximg/VIBS/b.xml", TEXTS[1]))
    assert "'var/db/esximg/VIBS/b.xml' is not read: its folder is in another case" in messages(found)
    assert list(found.vibs) == IDS[:1]


def test_a_link_in_a_database_is_a_problem_and_not_followed() -> None:
    found = opened(
        (f"{VIBS}/a.xml", TEXTS[0]), ("elsewhere", b"another"), (f"{VIBS}/a.xml.orig", "../../../../elsewhere")
    )
    assert f"'{VIBS}/a.xml.orig' is a symbolic link, which is not followed" in messages(found)
    assert found.vibs[IDS[0]].signed is None


def test_members_of_a_zip_that_overlap_are_a_problem() -> None:
    """A stored member that holds another one whole: each has a right local header, and both are read."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inner"), b"within another")
        infos = archive.infolist()
    with zipfile.ZipFile(outer, "w") as archive:
        info = zipfile.ZipInfo("outer")
        archive.writestr(info, inner.getvalue())
        infos[0].header_offset = 30 + len("outer")
        archive.filelist.append(infos[0])
    with open_archive(outer.getvalue()) as found:
        assert found["inner"].read_bytes() == b"within another"
        assert found["outer"].read_bytes() == inner.getvalue()
        assert [str(each) for each in found.problems if "'inner' begins within 'outer'" in str(each)]
    with open_archive(inner.getvalue()) as found:
        assert found.problems == ()


def test_the_documents_of_a_database_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [(f"{VIBS}/{name}.xml", text) for name, text in zip("ab", TEXTS, strict=True)]
    monkeypatch.setattr(module, "_MOST_BYTES", len(TEXTS[0]) + len(TEXTS[1]))
    assert list(opened(*members).vibs) == IDS
    found = opened(*members, (f"{VIBS}/b.xml.sig", b"!"))
    assert list(found.vibs) == IDS[:1]
    assert "1 documents are left out" in messages(found)
