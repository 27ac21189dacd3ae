"""The command ``host``."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from vmvisor_image.base.names import printable
from vmvisor_image.boot.host import Host, open_host
from vmvisor_image.disk.explanation import counted
from vmvisor_image.errors import InvalidArgument, NotAHost
from vmvisor_image.faces.cli.advice import command, way_of
from vmvisor_image.faces.cli.layout import print_item
from vmvisor_image.faces.cli.opening import bank_of, check_needed_table, is_part, open_options, opened_image
from vmvisor_image.faces.cli.status import DONE

_KEY_BYTES = 32
_MOST_SHOWN = 20


def run_host(options: argparse.Namespace) -> int:
    """Print what a host keeps of itself: name, version, network, accounts, machines, datastores, certificates."""
    key = None if options.key_file is None else _key(options.key_file)
    with _host(options, key) as host:
        if options.json:
            print(json.dumps(host.to_dict(), indent=2))
        elif options.logs:
            for line in host.log_lines():
                print(f"{printable(line.log)}:{line.number}: {printable(line.text)}")
        else:
            _print(host)
        options.problems += host.problems
    return DONE


@contextlib.contextmanager
def _host(options: argparse.Namespace, key: bytes | None) -> Iterator[Host]:
    """The host that SRC is of, or that the disk chosen in it is of."""
    bank, reveals = bank_of(options.bank), options.hashes
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(opened_image(options)) if is_part(options) else None
        try:
            if image is not None:
                host = open_host(image, key=key, bank=bank, reveal_hashes=reveals)
            else:
                given = open_options(options, None)
                host = open_host(options.source, key=key, bank=bank, reveal_hashes=reveals, **given)
        except NotAHost as error:
            image = image or stack.enter_context(opened_image(options))
            check_needed_table(image, options, cause=error)  # what is no disk is called by its name
            step = command("info", options.source, *way_of(options))
            raise NotAHost(f"{error.message}; {step} says what it is", structure=error.structure) from error
        yield stack.enter_context(host)


def _key(path: str) -> bytes:
    data = Path(path).read_bytes()
    text = data.strip()
    if len(text) == 2 * _KEY_BYTES:
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            pass
    if len(data) != _KEY_BYTES:
        raise InvalidArgument(f"{path} holds no key: it has to be {_KEY_BYTES} bytes, or as many in hexadecimal")
    return data


def _print(host: Host) -> None:
    release = " ".join(filter(None, (host.version, None if host.build is None else f"build {host.build}")))
    print_item(f"{host.name or 'a host without a name'}: {release or 'version not known'} (from a {host.kind})", "")
    if not host.files:
        print_item("it has saved no configuration: nothing else is known of it", "  ")
    if host.uuid is not None:
        print_item(f"system UUID {host.uuid}", "  ")
    _print_block("network", _network(host))
    _print_block("accounts", _accounts(host))
    _print_block("datastores", (f"{each.name} ({each.kind}{_at(each.location)})" for each in host.datastores))
    _print_block("registered machines", (f"{each.id}: {each.path}" for each in host.machines))
    _print_block("certificates", _certificates(host))
    groups: dict[str, int] = {}
    for setting in host.stored:
        name = f"{setting.component}/{setting.group}"
        groups[name] = groups.get(name, 0) + 1
    _print_block("configuration store", (f"{name}: {counted(number, 'setting')}" for name, number in groups.items()))
    _print_block("logs", (f"{path}: {file.size} bytes" for path, file in sorted(host.logs.items())))


def _print_block(heading: str, items: Iterable[str]) -> None:
    lines = list(items)
    if not lines:
        return
    print(f"\n{heading}:")
    for line in lines[:_MOST_SHOWN]:
        print_item(line, "  ", hanging="    ")
    if len(lines) > _MOST_SHOWN:
        print_item(f"and {len(lines) - _MOST_SHOWN} more: --json has all", "  ")


def _at(location: str | None) -> str:
    return "" if location is None else f", {location}"


def _network(host: Host) -> Iterable[str]:
    found = host.network
    for each in found.interfaces:
        address = each.address or ("by DHCP" if each.is_dhcp else "no address")
        mask = f"/{each.netmask}" if each.netmask else ""
        where = f", port group {each.port_group}" if each.port_group else ""
        yield f"{each.name}: {address}{mask}{where}, MAC {each.mac or 'not known'}"
    for switch in found.switches:
        groups = ", ".join(each.name + (f" (VLAN {each.vlan})" if each.vlan else "") for each in switch.port_groups)
        yield f"{switch.name} on {', '.join(switch.uplinks) or 'no adapter'}: {groups or 'no port groups'}"
    for adapter in found.adapters:
        yield f"{adapter.name}: MAC {adapter.mac or 'not known'}"
    if found.gateway:
        yield f"gateway {found.gateway}"
    if found.name_servers:
        yield f"name servers {', '.join(found.name_servers)}"
    if found.search_domains:
        yield f"search domains {', '.join(found.search_domains)}"


def _accounts(host: Host) -> Iterable[str]:
    for account in host.accounts:
        shown = "" if account.hash is None else f" {account.hash}"
        uid = "" if account.uid is None else f" (uid {account.uid})"
        shell = f", shell {account.shell}" if account.shell else ""
        yield f"{account.name}{uid}: password {account.password}{shown}{shell}"
        for key in account.keys:
            limits = f", limited by {key.options}" if key.options else ""
            yield f"  may log in by the key {key.fingerprint} {key.comment} ({key.kind}{limits})"


def _certificates(host: Host) -> Iterable[str]:
    now = datetime.now(UTC)
    for each in host.certificates:
        until = f"until {each.valid_until:%Y-%m-%d}" + (" (expired)" if each.valid_until < now else "")
        yield f"{each.subject}, issued by {each.issuer}, valid from {each.valid_from:%Y-%m-%d} {until} ({each.path})"
