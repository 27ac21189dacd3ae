"""Accounts of a host: ``passwd``, ``shadow`` and the keys that may log in by SSH.

Sources: passwd(5), shadow(5), crypt(5) of Linux; sshd(8) for ``authorized_keys``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from vmvisor_image.errors import ProblemList

USERS: Final = "etc/passwd"
SHADOW: Final = "etc/shadow"
KEYS: Final = re.compile(r"etc/ssh/keys-([^/]+)/authorized_keys")
"""Path of the keys of a user."""
LARGEST: Final = 1 << 20
_MOST: Final = 10_000
_EMPTY: Final = "none"
_TYPES: Final = (
    ("$1$", "MD5-crypt"),
    ("$2", "bcrypt"),
    ("$5$", "SHA-256-crypt"),
    ("$6$", "SHA-512-crypt"),
    ("$y$", "yescrypt"),
    ("$gy$", "gost-yescrypt"),
    ("$7$", "scrypt"),
)
_DES: Final = re.compile(r"[./0-9A-Za-z]{13}", re.ASCII)
_KEY_TYPE: Final = re.compile(r"(?<![^ \t])(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """A key that may log in by SSH."""

    kind: str
    """Type, such as "ssh-ed25519"."""
    fingerprint: str
    """Fingerprint as ``ssh-keygen -l`` prints it: ``SHA256:`` and 43 characters of base64."""
    comment: str
    options: str
    """Options before the key, such as a command that it is limited to; empty for none."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of a host."""

    name: str
    uid: int | None
    """Number; None where it is not one."""
    shell: str
    description: str
    password: str
    """Type of the hash of its password, such as "SHA-512-crypt"; "none" for an empty one, which lets anyone in;
    "locked" for one that nothing matches, "unknown" for what is not known, or not there."""
    hash: str | None = field(default=None, repr=False)
    """The hash; None unless it was asked for."""
    keys: tuple[AuthorizedKey, ...] = ()
    """Keys that may log in by SSH."""

    @property
    def is_open(self) -> bool:
        """Whether its password is empty, so that anyone may log in."""
        return self.password == _EMPTY


def password_type(text: str) -> str:
    """Type of a hash in ``shadow``; see `Account.password`."""
    if not text:
        return _EMPTY
    if text[0] in "!*" or text == "x":
        return "locked"
    found = next((name for start, name in _TYPES if text.startswith(start)), None)
    return found or ("DES" if _DES.fullmatch(text) else "unknown")


def read_accounts(
    passwd: bytes, shadow: bytes, keys: Mapping[str, bytes], problems: ProblemList, *, reveals: bool
) -> tuple[Account, ...]:
    """Accounts in the order of ``passwd``, then those that only ``shadow`` has.

    Args:
        passwd: Content of ``passwd``, empty where there is none.
        shadow: Content of ``shadow``, empty where there is none.
        keys: Content of ``authorized_keys`` by the name of the user.
        problems: Takes invalid lines.
        reveals: Whether the hashes are kept.
    """
    hashes = {name: rest[0] for name, *rest in _lines(shadow, SHADOW, 2, problems)}
    found: dict[str, Account] = {}
    for name, given, uid, _, description, _, shell in _lines(passwd, USERS, 7, problems):
        number = int(uid) if uid.isascii() and uid.isdecimal() and len(uid) < 12 else None
        text = hashes.get(name, "x") if given == "x" else given
        kind = password_type(text) if given != "x" or name in hashes else "unknown"
        found[name] = Account(name, number, shell, description, kind, text if reveals and text != "x" else None)
    for name, text in hashes.items():
        if name not in found:
            found[name] = Account(name, None, "", "", password_type(text), text if reveals else None)
    for name, data in keys.items():
        account = found.get(name, Account(name, None, "", "", "unknown"))
        found[name] = replace(account, keys=tuple(_keys(data, name, problems)))
    return tuple(found.values())


def _lines(data: bytes, path: str, fields: int, problems: ProblemList) -> Iterable[list[str]]:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines()[:_MOST], 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split(":")
        if len(parts) < fields or not parts[0]:
            problems.note(path, f"line {number} is no account")
            continue
        yield parts[:fields]


def _keys(data: bytes, user: str, problems: ProblemList) -> Iterable[AuthorizedKey]:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines()[:_MOST], 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _KEY_TYPE.search(text)
        rest = [] if match is None else text[match.end() :].split(None, 1)
        try:
            if match is None or not rest:
                raise ValueError("it has no key")  # noqa: TRY301
            blob = base64.b64decode(rest[0], validate=True)
        except (ValueError, binascii.Error):
            problems.note(f"authorized_keys of {user}", f"line {number} is no key")
            continue
        digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        comment = rest[1].strip() if len(rest) > 1 else ""
        yield AuthorizedKey(match[0], f"SHA256:{digest}", comment, text[: match.start()].strip())
