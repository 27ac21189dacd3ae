"""boot.cfg by the boot loader's rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmvisor_image import InvalidArgument
from vmvisor_image.boot import BootConfig, BootModule


def test_a_real_one_of_esxi_4_1(shared_data: Path) -> None:
    config = BootConfig.parse((shared_data / "boot_cfg/esxi-4.1.0.boot.cfg").read_bytes())
    assert config.kernel == BootModule("b.z")
    names = [module.name for module in config.modules]
    assert names == ["k.z", "s.z", "c.z", "oem.tgz", "license.tgz", "m.z", "state.tgz"]
    assert config.build == "4.1.0-260247"
    assert config.values["bootstate"] == "0"


def test_spaces_comments_case_and_arguments() -> None:
    text = (
        b"# kernel=no\r\n  KERNEL =  vmkernel.gz \r\nkernelopt = debug a=b\nnonsense\nmodules=a.tgz x  y---b.tgz --- \n"
    )
    config = BootConfig.parse(text)
    assert config.kernel == BootModule("vmkernel.gz", "debug a=b")
    assert config.modules == (BootModule("a.tgz", "x  y"), BootModule("b.tgz"))
    assert config.build is None


def test_a_tab_ends_the_name_of_a_module() -> None:
    config = BootConfig.parse(b"kernel=k\nmodules=a.tgz\tone two --- b.tgz\n")
    assert [(module.name, module.arguments) for module in config.modules] == [("a.tgz", "one two"), ("b.tgz", "")]


def test_no_kernel() -> None:
    assert BootConfig.parse(b"kernel=\nmodules=\n").kernel is None
    assert BootConfig.parse(b"").modules == ()


@given(st.binary())
def test_any_bytes_are_read(data: bytes) -> None:
    config = BootConfig.parse(data)
    assert all(module.name for module in config.modules)
    assert config.to_bytes() == data
    assert all(str(problem) for problem in config.problems)


GENERATIONS = {
    "4.1": b"kernel=b.z\nkernelopt=\nmodules=k.z --- s.z --- m.z\nbuild=4.1.0-260247\nupdated=2\nbootstate=0\n",
    "6.0": b"bootstate=0\ntitle=Loading VMware ESXi\ntimeout=5\nprefix=\nkernel=b.b00\n"
    b"kernelopt=installerDiskDumpSlotSize=2560\nmodules=jumpstrt.gz --- useropts.gz --- k.b00\n"
    b"build=6.0.0-2494585\nupdated=1\n",
    "installer of 7.0": b"bootstate=0\r\ntitle=Loading ESXi installer\r\ntimeout=5\r\nprefix=\r\nkernel=/b.b00\r\n"
    b"kernelopt=runweasel cdromBoot\r\nmodules=/jumpstrt.gz --- /useropts.gz\r\nbuild=7.0.3\r\nupdated=0\r\n"
    b"newkey=kept\r\n",
}


@pytest.mark.parametrize("name", GENERATIONS)
def test_is_written_back_unchanged(name: str) -> None:
    data = GENERATIONS[name]
    config = BootConfig.parse(data)
    assert config.to_bytes() == data
    assert config.replace({}).to_bytes() == data
    assert config.replace(config.values).to_bytes() == data
    assert config.problems == ()


def test_typed_values() -> None:
    config = BootConfig.parse(GENERATIONS["installer of 7.0"])
    assert (config.title, config.prefix, config.build) == ("Loading ESXi installer", None, "7.0.3")
    assert (config.number("timeout"), config.number("UPDATED"), config.number("skip")) == (5, 0, None)
    assert config.unknown == {"newkey": "kept"}
    assert str(config.kernel) == "/b.b00 runweasel cdromBoot"
    assert BootConfig.parse(b"updated=\n").number("updated") == 0
    assert BootConfig.parse(b"kernel=a\nupdated=2x\n").problems[0].message == "updated: '2x' is not a number"
    assert BootConfig.parse(b"updated=2\n").problems[0].message == "kernel: none is named"


def test_names_are_looked_for_below_the_prefix() -> None:
    config = BootConfig.parse(b"kernel=b.b00\nprefix=esxi7/\n")
    assert config.resolve("k.b00") == "esxi7/k.b00"
    assert config.resolve("/k.b00") == "/k.b00"
    assert BootConfig.parse(b"").resolve("k.b00", "/efi/boot") == "/efi/boot/k.b00"
    assert BootConfig.parse(b"").resolve("k.b00") == "k.b00"


def test_other_values_leave_every_other_line_as_it_was() -> None:
    data = b"# by hand\r\n Updated = 1\r\njunk\r\nupdated=2\r\nkernel=b.z\r\nbad \xff line\r\nlast=1"
    config = BootConfig.parse(data).replace({"updated": 7, "PREFIX": "esx", "kernel": "b.z"})
    assert config.to_bytes() == (
        b"# by hand\r\n Updated = 1\r\njunk\r\nupdated=7\r\nkernel=b.z\r\nbad \xff line\r\nlast=1\r\nprefix=esx\r\n"
    )
    assert (config.number("updated"), config.prefix) == (7, "esx")


@given(
    st.binary(),
    st.dictionaries(st.sampled_from(["title", "kernel", "x"]), st.from_regex(r"[a-z/. ]{0,9}[a-z]", fullmatch=True)),
)
def test_what_is_set_is_read_back_from_any_file(data: bytes, changes: dict[str, str]) -> None:
    before = BootConfig.parse(data)
    changes = {key: value.strip() for key, value in changes.items()}
    after = before.replace(changes)
    assert dict(after.values) == {**before.values, **changes}


@pytest.mark.parametrize(
    "changes", [{"title": "a\nkernel=b"}, {"a b": "x"}, {"": "x"}, {"updated": "two"}, {"updated": -1}, {"title": " x"}]
)
def test_what_would_break_the_file_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        BootConfig.parse(b"kernel=a\n").replace(changes)
