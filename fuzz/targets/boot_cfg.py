"""boot.cfg and the configuration of SYSLINUX."""

from __future__ import annotations

from fuzz.exercise import documented
from vmvisor_image.schemas.boot_cfg import NUMBER_KEYS, BootConfig
from vmvisor_image.schemas.syslinux_cfg import SyslinuxConfig


def seeds() -> list[bytes]:
    return [
        b"bootstate=0\nkernel=/b.b00\nkernelopt=a b\nmodules=/a.gz x --- /b.gz\nprefix=http://x/\nbuild=1\nupdated=9\n",
        b"default menu.c32\nlabel ESX\nmenu label x\nkernel mboot.c32\nappend a.gz --- b.gz\nlabel l\nlocalboot 0x80\n",
    ]


def one_input(data: bytes) -> None:
    with documented():
        config = BootConfig.parse(data)
        assert config.to_bytes() == data
        assert all(str(problem) for problem in config.problems)
        assert config.unknown is not None
        for module in (config.kernel, *config.modules):
            if module is not None:
                config.resolve(module.name, "folder")
        for key in NUMBER_KEYS:
            config.number(key)
        changed = config.replace({"prefix": "x", "updated": 2})
        assert changed.number("updated") == 2
    with documented():
        found = SyslinuxConfig.parse(data)
        for entry in (found.default_entry, found.multiboot_entry()):
            assert entry is None or entry.modules is not None
