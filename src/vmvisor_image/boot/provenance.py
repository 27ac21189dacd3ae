"""Where the modules of a system come from: the packages that list them, and the signatures on both."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from vmvisor_image.base.forking import cached_property
from vmvisor_image.base.names import fold_name
from vmvisor_image.boot.system_tree import SystemModule, SystemTree
from vmvisor_image.disk.explanation import counted
from vmvisor_image.errors import CorruptImage, DependencyMissing, Problem, UsageError
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.database import DATABASE, ImageDatabase, InstalledVib
from vmvisor_image.packages.descriptor import PayloadDescription
from vmvisor_image.packages.signatures import SignatureCheck, SignatureState
from vmvisor_image.packages.vib import ChecksumCheck, Fit, check_payload_and_signature, fit_of

_HOST_FILES: Final = ("state.tgz", "local.tgz", "local.tgz.ve", DATABASE, "imgpayld.tgz", "onetime.tgz", "esxgdpr.tgz")
"""Modules that the host writes itself, so that no package has them."""


_UNSIGNED_LEVEL: Final = "community"
"""Acceptance level of packages that need no signature."""


class Verdict(Enum):
    """What is known of the origin of a module or package."""

    VERIFIED = "verified"
    """A trusted certificate stands behind exactly these bytes."""
    BELONGS = "belongs"
    """A package describes exactly these bytes, and no trusted certificate stands behind the description."""
    ALTERED = "altered"
    """The bytes are not those that the package describes or the signature is of."""
    UNSIGNED = "unsigned"
    """No package describes it, and it has no signature."""
    NOT_CHECKED = "not checked"
    """There is something to check, and it was not."""


@dataclass(frozen=True, slots=True)
class ModuleProvenance:
    """Origin of one module."""

    name: str
    """Name of the module, as ``boot.cfg`` has it."""
    verdict: Verdict
    message: str
    """What was found, in words."""
    vib: str | None
    """Id of the package that describes it; None without one."""
    payload: str | None
    """Name of the package's payload; None without one."""
    trusted: Certificate | None
    """Certificate that stands behind it; None without one."""
    checksums: tuple[ChecksumCheck, ...]
    """Each checksum of the description beside that of the module."""
    signature: SignatureCheck | None
    """Check of the signature in the module itself; None for one that can't be read."""


@dataclass(frozen=True, slots=True)
class VibProvenance:
    """Origin of the description of an installed package."""

    id: str
    verdict: Verdict
    """Verdict on the description; each payload in the boot bank is a module with a verdict of its own."""
    message: str
    acceptance_level: str | None
    """Level that the package claims."""
    trusted: Certificate | None
    """Certificate that stands behind the description; None without one."""
    modules: tuple[str, ...]
    """Names of the modules that are its payloads."""

    @property
    def is_level_supported(self) -> bool | None:
        """Whether its signature supports the level that it claims; None where that was not checked.

        ESXi takes packages of every level but "community" only with a signature. Which of the others a key may sign is
        not published, so a trusted signature supports each of them.
        """
        if self.acceptance_level in (None, _UNSIGNED_LEVEL):
            return True
        return None if self.verdict is Verdict.NOT_CHECKED else self.verdict is Verdict.VERIFIED


class Provenance:
    """Origin of the software of a system. Each module is read whole when its verdict is first needed.

    The image database is on the disk itself: who can change a module can change that, too. What no signature covers
    is the disk's own account.
    """

    def __init__(
        self,
        modules: tuple[SystemModule, ...],
        files: SystemTree,
        database: ImageDatabase | None,
        certificates: Iterable[Certificate],
    ) -> None:
        """Made by `System.provenance`."""
        self._modules = modules
        self._files = files
        self._database = database
        self.certificates = tuple(certificates)
        """Certificates that the user trusts."""
        self._checked: dict[str, SignatureCheck] = {}
        """Check of the signature of each package that was asked for, by the package's id."""

    @property
    def has_database(self) -> bool:
        """Whether the system has an image database (``imgdb.tgz``), as ESXi 5 and later do."""
        return self._database is not None

    @cached_property
    def modules(self) -> tuple[ModuleProvenance, ...]:
        """Origin of each module in load order; a module whose file is missing is in `System.problems`."""
        return tuple(self._module(module) for module in self._modules if module.file is not None)

    @cached_property
    def vibs(self) -> tuple[VibProvenance, ...]:
        """Origin of each installed package, by the image database."""
        return () if self._database is None else tuple(map(self._vib, self._database.vibs.values()))

    @cached_property
    def owners(self) -> Mapping[str, str]:
        """Id of the package that lists each file of the system, by the file's path.

        Files of no package are not in it: `unowned` has them.
        """
        found: dict[str, str] = {}
        for vib in () if self._database is None else self._database.vibs.values():
            found.update(dict.fromkeys(vib.descriptor.files, vib.id))
        return found

    @property
    def unowned(self) -> tuple[str, ...]:
        """Paths of the system's files that no installed package lists, in order, without the host's own state."""
        files, owners = self._files, self.owners
        return tuple(
            path
            for path in files
            if path not in owners and fold_name(files.origin(path).rpartition("/")[2]) not in _HOST_FILES
        )

    @property
    def altered(self) -> tuple[ModuleProvenance, ...]:
        """Modules that are not what their package or signature says."""
        return tuple(module for module in self.modules if module.verdict is Verdict.ALTERED)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Damage to the image database."""
        return () if self._database is None else self._database.problems

    def to_dict(self) -> dict[str, Any]:
        """Verdicts as plain values that `json.dumps` takes."""
        return {
            "has_database": self.has_database,
            "certificates": [
                {"subject": each.subject, "serial": each.serial, "sha256": each.sha256} for each in self.certificates
            ],
            "modules": [
                {
                    "name": each.name,
                    "verdict": each.verdict.value,
                    "message": each.message,
                    "vib": each.vib,
                    "payload": each.payload,
                    "certificate": None if each.trusted is None else each.trusted.sha256,
                }
                for each in self.modules
            ],
            "vibs": [
                {
                    "id": each.id,
                    "verdict": each.verdict.value,
                    "message": each.message,
                    "acceptance_level": each.acceptance_level,
                    "level_is_supported": each.is_level_supported,
                    "certificate": None if each.trusted is None else each.trusted.sha256,
                    "modules": list(each.modules),
                }
                for each in self.vibs
            ],
            "problems": [str(problem) for problem in self.problems],
        }

    def __repr__(self) -> str:
        return f"<Provenance of {counted(len(self._modules), 'module')}>"

    def _module(self, module: SystemModule) -> ModuleProvenance:
        described = self._described(module.name)
        vib, payload = described or (None, None)
        make = functools.partial(
            ModuleProvenance,
            name=module.name,
            vib=None if vib is None else vib.id,
            payload=None if payload is None else payload.name,
        )
        try:
            checks, signature, faults = check_payload_and_signature(module.needed(), payload, self.certificates)
            # signatures and checksums of the decoded bytes do not cover what is behind the end of a compression
            outside = () if fit_of(checks) is Fit.STORED else faults
        except (CorruptImage, UsageError) as error:
            message = f"it can't be read: {error}"
            verdict = Verdict.NOT_CHECKED if vib is None else Verdict.ALTERED
            return make(verdict=verdict, message=message, trusted=None, checksums=(), signature=None)
        verdict, message, trusted = self._judge(module.name, signature, vib, checks)
        if outside and verdict in (Verdict.VERIFIED, Verdict.BELONGS):
            verdict, trusted = Verdict.ALTERED, None
            message = f"{message}; but the file has what neither signature nor checksum covers: {outside[0]}"
        return make(verdict=verdict, message=message, trusted=trusted, checksums=checks, signature=signature)

    def _judge(
        self, name: str, signature: SignatureCheck, vib: InstalledVib | None, checks: tuple[ChecksumCheck, ...]
    ) -> tuple[Verdict, str, Certificate | None]:
        """Verdict on a module, in words too, and the certificate that stands behind it."""
        if signature.state is SignatureState.WRONG:
            return Verdict.ALTERED, signature.message, None
        if vib is not None:
            return self._judge_payload(signature, vib, checks)
        if signature.is_verified:
            return Verdict.VERIFIED, signature.message, signature.trusted
        if fold_name(name.rpartition("/")[2]) in _HOST_FILES:
            return Verdict.UNSIGNED, "the host writes it itself: no package has it", None
        if signature.state is SignatureState.UNSIGNED:
            return Verdict.UNSIGNED, "no package describes it, and it has no signature", None
        return Verdict.NOT_CHECKED, signature.message, None

    def _judge_payload(
        self, signature: SignatureCheck, vib: InstalledVib, checks: tuple[ChecksumCheck, ...]
    ) -> tuple[Verdict, str, Certificate | None]:
        payload = f"a payload of the package {vib.id}"
        fit = fit_of(checks)
        if fit is Fit.OTHER:
            wrong = [each.checksum for each in checks if each.is_right is False]
            named = ", ".join(f"{each.algorithm} {each.process or 'as stored'}" for each in wrong)
            return Verdict.ALTERED, f"it is not {payload}: other checksums ({named})", None
        if fit is Fit.DECODED:
            payload += ", compressed anew"
        if signature.is_verified:
            return Verdict.VERIFIED, f"{signature.message}; {payload}", signature.trusted
        if fit is Fit.UNKNOWN:
            return Verdict.NOT_CHECKED, f"{payload} by its name, which has no checksum for it to be relied on", None
        behind = self._check_vib(vib)
        if behind.is_verified:
            return Verdict.VERIFIED, f"{payload}, {behind.message}", behind.trusted
        return Verdict.BELONGS, f"{payload}; {behind.message}", None

    def _vib(self, vib: InstalledVib) -> VibProvenance:
        check = self._check_vib(vib)
        verdict = {
            SignatureState.VERIFIED: Verdict.VERIFIED,
            SignatureState.WRONG: Verdict.ALTERED,
            SignatureState.UNSIGNED: Verdict.UNSIGNED,
        }.get(check.state, Verdict.NOT_CHECKED)
        modules = tuple(module.name for module in self._modules if (self._described(module.name) or (None,))[0] is vib)
        level = vib.descriptor.acceptance_level
        return VibProvenance(vib.id, verdict, check.message, level, check.trusted, modules)

    def _described(self, name: str) -> tuple[InstalledVib, PayloadDescription] | None:
        if self._database is None:
            return None
        return self._database.payloads.get(fold_name(name.rpartition("/")[2]))

    def _check_vib(self, vib: InstalledVib) -> SignatureCheck:
        if vib.id not in self._checked:
            self._checked[vib.id] = self._check_anew(vib)
        return self._checked[vib.id]

    def _check_anew(self, vib: InstalledVib) -> SignatureCheck:
        try:
            return vib.check_signature(self.certificates)
        except DependencyMissing as error:
            if self.certificates:
                raise
            return SignatureCheck(SignatureState.NOT_CHECKED, f"its signature was not checked: {error}")
        except CorruptImage as error:
            return SignatureCheck(SignatureState.WRONG, f"its signature can't be read: {error}")
