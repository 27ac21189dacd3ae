"""Where the modules of a system come from, as plain values for reports; see `vmvisor_image.boot.provenance`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vmvisor_image.boot.provenance import Verdict
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.errors import CorruptImage, PartitionNotFound, Problem
from vmvisor_image.packages.certificates import Certificate
from vmvisor_image.packages.signatures import SignatureState

ALTERED = Verdict.ALTERED.value


@dataclass(frozen=True, slots=True)
class ModuleOrigin:
    """Origin of one module of the system."""

    name: str
    """Name of the module, as ``boot.cfg`` has it."""
    verdict: str
    """Value of the `Verdict`, such as "altered"."""
    message: str
    """What was found, in words."""
    vib: str | None
    """Id of the package that describes it; None without one."""
    certificate: str | None
    """SHA-256 of the trusted certificate that stands behind it, in hexadecimal; None without one."""
    is_signature_checked: bool
    """Whether its own signature was checked."""


@dataclass(frozen=True, slots=True)
class PackageOrigin:
    """Origin of the description of one installed package."""

    id: str
    verdict: str
    """Value of the `Verdict`."""
    message: str
    """What was found, in words."""
    certificate: str | None
    """SHA-256 of the trusted certificate that stands behind it, in hexadecimal; None without one."""


@dataclass(frozen=True, slots=True)
class Origins:
    """Origin of the software of the system that an image boots."""

    has_database: bool
    """Whether the system has an image database, which says which package a module is of."""
    certificates: tuple[str, ...]
    """SHA-256 of each certificate that the user trusts, in hexadecimal."""
    modules: tuple[ModuleOrigin, ...]
    """Modules in load order."""
    packages: tuple[PackageOrigin, ...]
    """Installed packages."""
    problems: tuple[Problem, ...]
    """Everything that is altered, and damage to the image database."""

    def count(self, verdict: Verdict) -> int:
        """Number of modules with a verdict."""
        return sum(module.verdict == verdict.value for module in self.modules)

    @property
    def altered(self) -> tuple[str, ...]:
        """Names of the altered modules, in load order."""
        return tuple(module.name for module in self.modules if module.verdict == ALTERED)

    @property
    def not_checked(self) -> tuple[str, ...]:
        """What was not checked, in words."""
        found = []
        packages = [each for each in self.packages if each.verdict == Verdict.NOT_CHECKED.value]
        for message, count in _counts(each.message for each in packages):
            found.append(f"the descriptions of {counted(count, 'package')}: {message}")
        if not self.has_database:
            found.append("which packages the modules are of: there is no image database (imgdb.tgz)")
        return tuple(found)

    def lines(self) -> Iterator[str]:
        """Lines of a report in words."""
        counts = [(self.count(verdict), verdict) for verdict in Verdict]
        named = ", ".join(f"{count} {verdict.value}" for count, verdict in counts if count)
        yield f"origin of {counted(len(self.modules), 'module')}: {named or 'nothing to check'}"
        width = max((len(each.name) for each in self.modules), default=0)
        for module in self.modules:
            yield f"  {module.name:{width}}  {_shown(module.verdict)}: {module.message}"
        for package in self.packages:
            yield f"  package {package.id}  {_shown(package.verdict)}: {package.message}"


def find_origins(image: Image, certificates: tuple[Certificate, ...] = (), *, always: bool = False) -> Origins | None:
    """Origins of the system that an image boots; None for an image that boots none.

    Each module is read and decoded once.

    Args:
        image: An open image.
        certificates: Certificates that the user trusts.
        always: Whether to look where there is neither an image database nor a certificate; otherwise that is None.

    Raises:
        CorruptImage: The boot configuration or the image database can't be read.
    """
    try:
        system = image.system()
    except PartitionNotFound:
        return None
    found = system.provenance(certificates)
    if not (always or found.has_database or certificates):
        return None
    modules = tuple(
        ModuleOrigin(
            each.name,
            each.verdict.value,
            each.message,
            each.vib,
            None if each.trusted is None else each.trusted.sha256,
            each.signature is not None and each.signature.state in (SignatureState.VERIFIED, SignatureState.WRONG),
        )
        for each in found.modules
    )
    packages = tuple(
        PackageOrigin(each.id, each.verdict.value, each.message, None if each.trusted is None else each.trusted.sha256)
        for each in found.vibs
    )
    problems = [Problem("boot module", f"{each.name!r} is altered: {each.message}") for each in modules if _bad(each)]
    problems += [Problem("package", f"{each.id!r} is altered: {each.message}") for each in packages if _bad(each)]
    trusted = tuple(each.sha256 for each in found.certificates)
    return Origins(found.has_database, trusted, modules, packages, (*problems, *found.problems))


def origins_or_problem(
    image: Image, certificates: tuple[Certificate, ...] = (), *, always: bool = False
) -> tuple[Origins | None, tuple[Problem, ...]]:
    """Result of `find_origins` with its problems; damage that prevents it is a problem, too."""
    try:
        found = find_origins(image, certificates, always=always)
    except CorruptImage as error:
        return None, (Problem.of(error),)
    return found, () if found is None else found.problems


def _bad(origin: ModuleOrigin | PackageOrigin) -> bool:
    return origin.verdict == ALTERED


def _shown(verdict: str) -> str:
    return verdict.upper() if verdict == ALTERED else verdict


def _counts(messages: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for message in messages:
        counts[message] = counts.get(message, 0) + 1
    return list(counts.items())
