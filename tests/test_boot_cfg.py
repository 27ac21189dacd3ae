"""boot.cfg by the boot loader's rules."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

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


def test_no_kernel() -> None:
    assert BootConfig.parse(b"kernel=\nmodules=\n").kernel is None
    assert BootConfig.parse(b"").modules == ()


@given(st.binary())
def test_any_bytes_are_read(data: bytes) -> None:
    config = BootConfig.parse(data)
    assert all(module.name for module in config.modules)
