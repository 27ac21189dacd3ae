"""Network of a host: adapters, virtual switches, and the hypervisor's own interfaces, by ``esx.conf``.

Source: public files of ESXi 4 to 8; ESXi 7 and later keep most of it in the configuration store instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vmvisor_image.boot.esx_conf import children

RESOLVER: Final = "etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A physical network adapter."""

    name: str
    mac: str | None


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of the hypervisor itself."""

    name: str
    mac: str | None
    address: str | None
    """IPv4 address; None where it is not set, or comes by DHCP."""
    netmask: str | None
    is_dhcp: bool
    port_group: str | None


@dataclass(frozen=True, slots=True)
class PortGroup:
    """A group of ports of a virtual switch."""

    name: str
    vlan: int | None
    """Number of the VLAN; 0 for none, None where it is not given."""


@dataclass(frozen=True, slots=True)
class VirtualSwitch:
    """A virtual switch."""

    name: str
    uplinks: tuple[str, ...]
    """Names of its physical adapters."""
    port_groups: tuple[PortGroup, ...]


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """Network of a host."""

    adapters: tuple[Adapter, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    switches: tuple[VirtualSwitch, ...] = ()
    gateway: str | None = None
    name_servers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()


def read_network(settings: Mapping[str, str], resolver: bytes) -> HostNetwork:
    """Network by the settings of ``esx.conf`` and the content of ``resolv.conf``."""
    servers: list[str] = []
    domains: list[str] = []
    for line in resolver.decode("utf-8", "replace").splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                servers.append(address)
            case ["search" | "domain", *names]:
                domains += names
    return HostNetwork(
        tuple(Adapter(each["/name"], each.get("/mac")) for each in children(settings, "/net/pnic") if "/name" in each),
        tuple(
            Interface(
                each["/name"],
                each.get("/mac"),
                each.get("/ipv4address") or None,
                each.get("/ipv4netmask") or None,
                each.get("/dhcp") == "true",
                each.get("/portgroup"),
            )
            for each in children(settings, "/net/vmkernelnic")
            if "/name" in each
        ),
        tuple(_switch(each) for each in children(settings, "/net/vswitch") if "/name" in each),
        settings.get("/net/routes/kernel/gateway"),
        tuple(dict.fromkeys(servers)),
        tuple(dict.fromkeys(domains)),
    )


def _switch(settings: Mapping[str, str]) -> VirtualSwitch:
    return VirtualSwitch(
        settings["/name"],
        tuple(each["/pnic"] for each in children(settings, "/uplinks") if "/pnic" in each),
        tuple(
            PortGroup(each["/name"], _number(each.get("/vlanId")))
            for each in children(settings, "/portgroup")
            if "/name" in each
        ),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 6 else None
