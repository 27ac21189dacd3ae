"""Export of a disk image or an installer CD to a TFTP server that boots it: the recipe of 2008 in one call."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from vmvisor_image.base.destination import holding_folder
from vmvisor_image.base.limits import DEFAULT_LIMITS, Limits
from vmvisor_image.base.names import fold_name
from vmvisor_image.base.open_options import Progress
from vmvisor_image.boot.bootable import (
    BOOT_LABELS,
    ESX_35_MODULES,
    Bootable,
    find_boot_partition,
    find_bootable,
    find_installer,
)
from vmvisor_image.boot.customized import customized_installer
from vmvisor_image.boot.installer import BundledInstaller, bundled_installer, opened_packages
from vmvisor_image.boot.overlay import build_module
from vmvisor_image.boot.system import PRODUCT_OF_3, identify
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.partition import listed, named
from vmvisor_image.errors import (
    CorruptImage,
    DestinationExists,
    InvalidArgument,
    PartitionNotFound,
    PathNotFound,
    Problem,
    UnsafeName,
)
from vmvisor_image.files.extraction import write_files
from vmvisor_image.files.file import File
from vmvisor_image.files.tree import FileTree
from vmvisor_image.packages.bundle import Bundle, find_bundle
from vmvisor_image.packages.package_file import PackageFile
from vmvisor_image.schemas.boot_cfg import BootConfig, BootModule
from vmvisor_image.schemas.syslinux_cfg import SyslinuxConfig, add_entry
from vmvisor_image.streams.opening import SourceLike

LOADER: Final = "mboot.c32"
"""The multiboot loader that PXELINUX starts."""
EFI_LOADER: Final = "mboot.efi"
"""Name on the server of the loader that UEFI starts, as in VMware's documentation."""
CONFIGURATION: Final = "pxelinux.cfg/default"
"""Path of the configuration that PXELINUX reads if it finds no more specific one."""
IPXE_SCRIPT: Final = "boot.ipxe"
"""Name of the script for iPXE."""
_BOOT_CONFIGURATION: Final = "boot.cfg"
_EFI_LOADERS: Final = ("EFI/BOOT/BOOTX64.EFI", "EFI/VMware/mboot64.efi")
"""Paths of the loader for UEFI: on an installer CD, and in the boot partition of a disk."""
_EFI_CRYPTO: Final = ("EFI/BOOT/CRYPTO64.EFI", "EFI/VMware/crypto64.efi")
"""Paths of the file that ESXi 7 and later need beside the loader for UEFI."""
_INSTALLER_IMAGES: Final = ("imagedd.bz2", "imagedd.md5")
"""Files that the installer of 4.1 fetches itself; those of 3.5 and 4.0 have them in a module."""
_CD_ONLY = re.compile(r"(?:^|(?<=\s))cdromBoot(?:\s+|$)", re.IGNORECASE)
"""Option that tells the installer that it was started from a CD."""
_LABEL_OF_35: Final = "3i"
_LARGEST_CONFIGURATION: Final = 1 << 20
_LABEL_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PREFIX_TEXT = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")

Mode = Literal["run", "install"]
Content = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class PxeExport:
    """Result of an export."""

    dest: Path
    """Directory of the TFTP server."""
    files: tuple[Path, ...]
    """Paths of all written files, PXELINUX's configuration last."""
    label: str
    """Label of PXELINUX's entry."""
    kernel: str
    """Path of the loader that PXELINUX loads, or UEFI for a disk without a loader for BIOS."""
    append: str
    """Arguments of the loader: the hypervisor's kernel and modules in load order, or the path of ``boot.cfg``."""
    missing: tuple[str, ...]
    """Modules that the configuration names and that do not exist; they are left out."""
    modules: tuple[str, ...] = ()
    """Kernel and modules in load order, each with its arguments."""
    mode: Mode = "run"
    """Whether the hypervisor is started, or its installer."""
    default: str | None = None
    """Label of the entry that PXELINUX boots when nobody chooses, which may be an earlier one; None where
    the image has no loader for BIOS, and no entry was written."""
    left_out: tuple[str, ...] = ()
    """Kernel options in ``boot.cfg`` of an installer that do not apply to a boot over the network and are left out:
    ``cdromBoot``, which says that it was started from a CD."""
    profile: str | None = None
    """Name of the image profile that was exported; None for an image to which no packages were added."""
    added: tuple[str, ...] = ()
    """Ids of the packages that were added to the profile."""
    removed: tuple[str, ...] = ()
    """Ids of the profile's packages that those replace."""
    problems: tuple[Problem, ...] = ()
    """Whatever may keep the packages from working together: packages that were not added, as they are older or are
    replaced, needs that no package meets, and conflicts."""
    not_made: tuple[str, ...] = ()
    """Modules of a CD that can't be made from packages, as their content is not documented: ``imgpayld.tgz``."""


def export_pxe(  # noqa: PLR0913  # one for each thing that a user may want otherwise
    image: Image | Bundle | SourceLike,
    dest: str | os.PathLike[str],
    *,
    profile: str | None = None,
    add: Sequence[SourceLike | Bundle] = (),
    label: str | None = None,
    overwrite: bool = False,
    mode: Mode | None = None,
    bank: int | str | None = None,
    prefix: str = "",
    kernel_options: Sequence[str] = (),
    ipxe: bool = False,
    overlay: Mapping[str, str | os.PathLike[str]] | None = None,
    keep_overlaid: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> PxeExport:
    """Result of writing the files that a PXE server needs to boot `image`.

    For ESX 3i 3.5 and ESXi 4 these are ``mboot.c32``, every file of the root directory of the boot bank under its own
    name and with its time, and ``pxelinux.cfg/default`` with kernel and modules in the order of the bank's ``boot.cfg``
    (without one, in that of ESX 3i 3.5). A compressed image is decoded no further than to the last byte of these files.
    To install instead, these are the files that ``isolinux.cfg`` of the installer CD loads.

    For ESXi 5 and later these are the loaders for BIOS (``mboot.c32``) and UEFI (``mboot.efi``), the kernel and modules
    that ``boot.cfg`` names, and a ``boot.cfg`` with the prefix set and without leading slashes.

    For an offline bundle or depot these are the files that an installer CD of one of its image profiles has for this,
    streamed from the packages. Each payload is compared with the checksums of its package's description as it is
    written. The image database (``imgdb.tgz``) is made anew, and ``imgpayld.tgz`` is not made.

    Where ``pxelinux.cfg/default`` already exists and has entries, one is added to it, and the existing ones stay.

    Args:
        image: The disk image or installer CD: an open image, or anything that `Image.open` takes. Or an offline bundle
            or depot: an open `Bundle`, or anything that `open_bundle` takes.
        dest: Directory of the TFTP server; made where it is missing.
        profile: Name of the image profile of a bundle, in upper or lower case; None for the only one.
        add: Packages to be added to the profile, or to an installer CD of ESXi 5 or later: VIBs and bundles. Each takes
            the place of an older one of the same name, and of those that it says it replaces. Signatures are neither
            checked nor made.
        label: Label of the boot entry: letters, digits, dots, dashes and underscores. None for "3i" for ESX 3i 3.5, and
            for product and version for any other, such as "esxi-6.7.0".
        overwrite: Whether to replace existing files, and an entry of the same label.
        mode: "run" the hypervisor from the network, or "install" it. None for "run", except for an installer CD of
            ESXi 5 or later, which only installs.
        bank: Boot bank to run; see `vmvisor_image.boot.bootable.find_bootable`.
        prefix: Directory below `dest` for everything except PXELINUX's configuration, without slashes at its ends.
        kernel_options: Options for the hypervisor's kernel, after those in the image's configuration.
        ipxe: Whether to write also ``boot.ipxe``.
        overlay: Directories by name of a module, such as ``oem.tgz``: a module made of the directory takes its place,
            or is loaded last where there is none of that name. The image stays as it is.
        keep_overlaid: Whether to keep those files of a replaced module that the directory does not have.
        storage_options: See `Image.open`.
        progress: Called with the number of bytes of files of the image or bundle that are written, and of all of them.

    Raises:
        PartitionNotFound: There is no boot bank or no boot partition.
        PathNotFound: A loader or the kernel does not exist. For a kernel of ESX 3i 3.5 or ESXi 4 that ``boot.cfg``
            names, this is raised after the files were written: reading it first would decode most of the bank twice.
        UnsafeName: A file's name can't be written safely; nothing was written.
        DestinationExists: A file, or an entry of that label, already exists, or another export writes to `dest`;
            nothing was written.
        PartialExtraction: Some files are damaged; the others were written, the configuration was not.
        CorruptImage: The bundle lacks packages of the profile, which the error names, or one can't be read.
        InvalidArgument: An argument is not valid, there is no installer to export, or the bundle has no such profile,
            or several and none was named; the error lists them.
    """
    if not isinstance(image, Image | Bundle):
        bundle = find_bundle(image, storage_options=storage_options)
        with bundle or Image.open(image, storage_options=storage_options) as opened:
            return export_pxe(
                opened,
                dest,
                profile=profile,
                add=add,
                label=label,
                overwrite=overwrite,
                mode=mode,
                bank=bank,
                prefix=prefix,
                kernel_options=kernel_options,
                ipxe=ipxe,
                overlay=overlay,
                keep_overlaid=keep_overlaid,
                progress=progress,
            )
    _check_texts(label, prefix, kernel_options)
    for folder in (overlay or {}).values():
        if Path(dest).resolve().is_relative_to(Path(folder).resolve()):
            raise InvalidArgument(f"the export would become part of the overlay: {dest} lies in {folder}")
    if isinstance(image, Bundle) and (mode == "run" or bank is not None):
        raise InvalidArgument("a bundle has no installed system and no boot banks, only an installer to export")
    if not isinstance(image, Bundle) and profile is not None:
        raise InvalidArgument("image profiles (profile=, or --profile) are those of a bundle, not of an image")
    with contextlib.ExitStack() as opened_here:
        added = opened_here.enter_context(opened_packages(add))
        if isinstance(image, Bundle):
            source = _of_packages(bundled_installer(image, profile, added))
        else:
            source = _find_source(image, mode, bank)
            source = _customized(source, added) if add else source
        found_label = functools.cache(
            lambda: source.label or _default_label(source.bootable) if label is None else label
        )
        wanted = _Wanted(
            found_label, f"{prefix}/" if prefix else "", " ".join(kernel_options), ipxe=ipxe, progress=progress
        )
        made = source.made | _overlaid(source.bootable, overlay or {}, keep=keep_overlaid)
        if isinstance(image, Bundle) or source.bootable.loads_by_configuration:
            plan = _plan_5(None if isinstance(image, Bundle) else image, source, wanted, made)
        else:
            plan = _plan_before_5(image, source, wanted, made)
        limits = DEFAULT_LIMITS if isinstance(image, Bundle) else image.limits
        return _write(plan, source, wanted, Path(dest), limits, overwrite=overwrite)


def _check_texts(label: str | None, prefix: str, kernel_options: Sequence[str]) -> None:
    if label is not None and not _LABEL_TEXT.fullmatch(label):
        raise InvalidArgument(f"label must be letters, digits, '.', '-' and '_', not {label!r}")
    if prefix and (not _PREFIX_TEXT.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise InvalidArgument(
            f"prefix must be names with slashes between, such as 'esx' or 'images/esx-4.1', not {prefix!r}"
        )
    for option in kernel_options:
        if not option.isprintable() or "---" in option or option != option.strip():
            raise InvalidArgument(
                f"a kernel option is one printable line, without spaces at its ends and without '---', not {option!r}"
            )


def _write(plan: _Plan, source: _Source, wanted: _Wanted, dest: Path, limits: Limits, *, overwrite: bool) -> PxeExport:
    """Write what is planned."""
    at = wanted.folder
    existing = dest / CONFIGURATION
    contents = [
        *((f"{at}{name}", content) for name, content in plan.made.items()),
        *_configurations(plan, wanted, existing),
    ]
    with limits.operation(), holding_folder(dest):
        has_entries = plan.has_bios and bool(SyslinuxConfig.parse(_read_entries(existing)).entries)
        if has_entries and not overwrite:
            _check_label(existing, wanted.label())
        written = write_files(
            [(f"{at}{name}", file) for name, file in plan.files],
            dest,
            made=contents,
            overwrite=overwrite,
            replaced=(CONFIGURATION,) if has_entries else (),
            most_bytes=limits.extracted_bytes,
            progress=wanted.progress,
        )
        order = plan.order()
        return dataclasses.replace(
            source.about,
            dest=dest,
            files=written,
            label=wanted.label(),
            kernel=f"{at}{LOADER if plan.has_bios else EFI_LOADER}",
            append=plan.append(),
            missing=order.missing,
            modules=order.modules,
            mode=source.mode,
            default=SyslinuxConfig.parse(_read_entries(existing)).default if plan.has_bios else None,
            left_out=plan.left_out,
        )


def _customized(source: _Source, added: Sequence[PackageFile]) -> _Source:
    """Source with packages added."""
    if source.mode != "install" or not source.bootable.loads_by_configuration:
        raise InvalidArgument(
            "packages can be added (add=, or --add) to a bundle, and to an installer CD of ESXi 5 or later, not to an"
            " installed system or an earlier CD"
        )
    made = _of_packages(customized_installer(source.bootable, added))
    return dataclasses.replace(made, label=None, about=dataclasses.replace(made.about, not_made=()))


def _of_packages(installer: BundledInstaller) -> _Source:
    """Source of an export of packages."""
    found = installer.selection
    about = dataclasses.replace(
        _NOTHING,
        profile=found.profile.name,
        added=found.added,
        removed=found.removed,
        problems=found.problems,
        not_made=("imgpayld.tgz",),
    )
    return _Source(installer.bootable, "install", installer.label, dict(installer.made), about)


def _default_label(bootable: Bootable) -> str:
    """Label by product and version, or "3i" for 3.5, as in the recipe of 2008."""
    configuration = bootable.configuration
    says_build = configuration is not None and configuration.build is not None
    if not says_build and fold_name(bootable.order[0].name.lstrip("/")) == ESX_35_MODULES[0]:
        return _LABEL_OF_35  # only its loader starts that kernel: to read its version would decode it twice
    product, version, _ = identify(bootable)
    if product == PRODUCT_OF_3:
        return _LABEL_OF_35
    return "-".join(filter(None, ((product or "ESXi").rpartition(" ")[2].casefold(), version)))


def _read_entries(path: Path) -> bytes:
    """Bytes of an existing configuration of PXELINUX; empty where there is none to which an entry could be added."""
    try:
        if stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size <= _LARGEST_CONFIGURATION:
            return path.read_bytes()
    except OSError:
        pass  # writing there also fails, and says why
    return b""


def _check_label(path: Path, label: str) -> None:
    there = [entry.label for entry in SyslinuxConfig.parse(_read_entries(path)).entries]
    if label.casefold() in map(str.casefold, there):
        raise DestinationExists(f"{path} has an entry {label!r} already; nothing was written")


_NOTHING: Final = PxeExport(Path(), (), "", "", "", ())
"""Result of no export, of which `dataclasses.replace` makes one."""


@dataclass(frozen=True, slots=True)
class _Source:
    bootable: Bootable
    mode: Mode
    label: str | None = None
    """Label of its boot entry; None where that is found by `_default_label`."""
    made: dict[str, Content] = field(default_factory=dict)
    """Function that makes each module that is not a file of `bootable`, by its name."""
    about: PxeExport = _NOTHING
    """Result of the export, as far as it is known before."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The caller's settings."""

    label: Callable[[], str]
    """Function that gives the label, as finding it may read the kernel."""
    folder: str
    """Prefix with a slash at its end, or an empty text."""
    options: str
    ipxe: bool
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class _Order:
    """Loaded and missing modules, in order; see `PxeExport`."""

    modules: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Files to be written, by their names below the prefix."""

    files: list[tuple[str, File]]
    made: dict[str, Content]
    order: Callable[[], _Order]
    append: Callable[[], str]
    """Function that gives the arguments that PXELINUX passes to the loader."""
    lines: tuple[str, ...] = field(default=())
    """Further lines of PXELINUX's entry."""
    has_bios: bool = True
    has_efi: bool = False
    left_out: tuple[str, ...] = ()
    """See `PxeExport`."""


def _find_source(image: Image, mode: Mode | None, bank: int | str | None) -> _Source:
    if mode == "install":
        found = find_installer(image)
        if found is None:
            raise InvalidArgument("to install, the image must be an installer CD (ISO 9660)")
        return _Source(found, "install")
    found = find_bootable(image, bank)
    if found.is_installer and (mode == "run" or not found.loads_by_configuration):
        for problem in image.known_problems:  # damage may hide the image of the installed system
            raise CorruptImage(
                f"{problem.message}; so the system that the CD installs can't be read, only its installer exported:"
                ' mode="install", or pxe --install',
                structure=problem.structure,
                offset=problem.offset,
            )
        raise InvalidArgument(
            "this installer CD holds no image of an installed system, only its installer: export that with"
            ' mode="install", or pxe --install'
        )
    return _Source(found, "install" if found.is_installer else "run")


def _overlaid(bootable: Bootable, overlay: Mapping[str, str | os.PathLike[str]], *, keep: bool) -> dict[str, Content]:
    """Function that makes each module of the overlay, by the name of the module's file."""
    made: dict[str, Content] = {}
    find = bootable.find_module if bootable.loads_by_configuration else bootable.find
    for name, folder in overlay.items():
        if "/" in name or not name.isprintable():
            raise InvalidArgument(f"a module of an overlay is a file name, not {name!r}")
        file = find(name)
        build_module(folder, name)  # so that its errors are known before anything is written

        def content(
            name: str = name, folder: str | os.PathLike[str] = folder, file: File | None = file
        ) -> Iterable[bytes]:
            return build_module(folder, name, base=file.open_archive() if keep and file is not None else None)

        made[name if file is None else file.name] = content
    return made


def _plan_before_5(image: Image, source: _Source, wanted: _Wanted, made: dict[str, Content]) -> _Plan:
    """Plan for ESX 3i 3.5 and ESXi 4, whose modules PXELINUX's configuration lists."""
    bootable = source.bootable
    if bootable.is_installer:
        files = _installer_files(bootable)
    else:
        boot = find_boot_partition(image)
        if boot is None:
            raise PartitionNotFound(
                f"no boot partition {BOOT_LABELS[0]!r}, which holds {LOADER}; there are {listed(image.partitions)}:"
                " export from the installer CD of the same version"
            )
        loader = Bootable(boot.files, boot, is_installer=False).find(LOADER)
        if loader is None:
            raise _missing_loader(boot.files, f"the boot partition {named(boot)}", LOADER)
        files = [(LOADER, loader), *((file.name, file) for file in bootable.root_files)]
    order = functools.cache(lambda: _order(bootable, made, wanted.options))
    if bootable.is_installer or bootable.find(_BOOT_CONFIGURATION) is None:
        order()  # so that its errors are known already

    def append() -> str:
        return " --- ".join(f"{wanted.folder}{module}" for module in order().modules)

    kept = [(name, file) for name, file in files if name not in made]
    return _Plan(kept, made, order, append)


def _missing_loader(files: FileTree, holder: str, names: str) -> Exception:
    """Error for a volume without a loader; the first problem of the volume, which may hide it, where there is one."""
    for problem in files.problems:
        return problem.error()
    return PathNotFound(
        f"{holder} has no {names}, which a PXE server needs to start the rest: export from the installer CD of the same"
        " version, which has it"
    )


def _installer_files(bootable: Bootable) -> list[tuple[str, File]]:
    """The loader, the files that it loads, and those that the installer fetches itself, each once."""
    loader = bootable.find(LOADER) or bootable.find(f"isolinux/{LOADER}")
    if loader is None:
        raise _missing_loader(bootable.files, "the installer CD", LOADER)
    files = {LOADER: loader}
    for module in bootable.order:
        if (file := bootable.find(module.name)) is not None:
            files[file.path] = file
    for name in _INSTALLER_IMAGES:
        if (file := bootable.find(name)) is not None:
            files[name] = file  # spelled as the installer asks for it
    return list(files.items())


def _plan_5(image: Image | None, source: _Source, wanted: _Wanted, made: dict[str, Content]) -> _Plan:
    """Plan for ESXi 5 and later, whose loader reads ``boot.cfg`` itself."""
    bootable = source.bootable
    configuration = bootable.configuration
    if configuration is None or configuration.kernel is None:
        raise PathNotFound(f"{_place(bootable)} has no {_BOOT_CONFIGURATION} that names a kernel: name another bank")
    files: dict[str, File] = {}
    missing = []
    loaded: list[BootModule] = []
    spelled = {fold_name(name): name for name in made}
    for module in bootable.order:
        name = module.name.lstrip("/")
        file = bootable.find_module(module.name)
        replaced = spelled.get(fold_name(name))
        if file is None and replaced is None:
            missing.append(module.name)
            continue
        loaded.append(BootModule(name, module.arguments))
        if replaced is not None:
            made[name] = made.pop(replaced)
            spelled[fold_name(name)] = name
        elif file is not None:
            files[name] = file  # spelled as in boot.cfg: a TFTP server distinguishes case, a CD does not
    if configuration.kernel.name in missing:
        raise PathNotFound(
            f"{_place(bootable)} lacks the kernel {configuration.kernel.name!r} that {_BOOT_CONFIGURATION} names: name"
            " another bank"
        )
    known = {fold_name(module.name) for module in loaded}
    loaded += [BootModule(name) for name in made if fold_name(name) not in known]
    has_efi = _add_loaders(image, bootable, files)
    own = configuration.values.get("kernelopt", "")
    left_out: tuple[str, ...] = ()
    if source.mode == "install" and _CD_ONLY.search(own):
        left_out = tuple(text.strip() for text in _CD_ONLY.findall(own))
        own = _CD_ONLY.sub("", own).strip()
    options = " ".join(filter(None, (own, wanted.options)))
    changed = configuration.replace(
        {
            "kernel": loaded[0].name,
            **({"kernelopt": options} if options or left_out else {}),
            "modules": " --- ".join(map(str, loaded[1:])),
            "prefix": wanted.folder.rstrip("/"),
        }
    )
    order = _Order((str(BootModule(loaded[0].name, options)), *map(str, loaded[1:])), tuple(missing))
    append = f"-c {wanted.folder}{_BOOT_CONFIGURATION}"
    contents: dict[str, Content] = {**made, _BOOT_CONFIGURATION: lambda: (_checked_configuration(changed),)}
    has_bios = LOADER in files
    return _Plan(
        list(files.items()), contents, lambda: order, lambda: append, ("ipappend 2",), has_bios, has_efi, left_out
    )


def _place(bootable: Bootable) -> str:
    """Words for a boot bank or CD."""
    if bootable.words:
        return bootable.words
    return "the installer CD" if bootable.home is None else f"the boot bank, partition {bootable.home.key},"


def _add_loaders(image: Image | None, bootable: Bootable, files: dict[str, File]) -> bool:
    """Whether there is a loader for UEFI; adds the loaders to `files`."""
    holder = bootable
    where = _place(bootable)
    if image is not None and not bootable.is_installer and (boot := find_boot_partition(image)) is not None:
        holder = Bootable(boot.files, boot, is_installer=False)
        where = f"the boot partition {named(boot)}"
    loader = holder.find(LOADER)
    efi = next((file for name in _EFI_LOADERS if (file := holder.find(name)) is not None), None)
    if loader is None and efi is None:
        names = f"{LOADER} nor {_EFI_LOADERS[0 if bootable.is_installer else 1]}"
        raise _missing_loader(holder.files, where, names)
    if loader is not None:
        files[LOADER] = loader
    if efi is not None:
        files[EFI_LOADER] = efi
        crypto = next((file for name in _EFI_CRYPTO if (file := holder.find(name)) is not None), None)
        if crypto is not None:
            files["crypto64.efi"] = crypto
    return efi is not None


def _configurations(plan: _Plan, wanted: _Wanted, existing: Path) -> list[tuple[str, Content]]:
    """Configuration of PXELINUX, where there is a loader for BIOS, and script for iPXE, where it is wanted."""
    loader = f"{wanted.folder}{LOADER}"

    def pxelinux() -> Iterable[bytes]:
        lines = [f"kernel {loader}", f"append {plan.append()}", *plan.lines]
        yield add_entry(_read_entries(existing), wanted.label(), lines)

    def ipxe() -> Iterable[bytes]:
        bios = [f"kernel {loader} {plan.append()}", "boot"] if plan.has_bios else []
        efi = [f"kernel {wanted.folder}{EFI_LOADER} {plan.append()}", "boot"] if plan.has_efi else []
        choice = ["iseq ${platform} efi && goto uefi ||"] if bios and efi else []
        lines = ["#!ipxe", *choice, *bios, *([":uefi"] if choice else []), *efi]
        yield "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    found: list[tuple[str, Content]] = [(IPXE_SCRIPT, ipxe)] if wanted.ipxe else []
    return [*found, (CONFIGURATION, pxelinux)] if plan.has_bios else found


def _order(bootable: Bootable, made: Mapping[str, Content], options: str) -> _Order:
    """Kernel and modules in load order, spelled as the files are."""
    order = bootable.order
    if bootable.find(order[0].name) is None:
        raise PathNotFound(f"{_place(bootable)} lacks its kernel {order[0].name!r}: name another bank")
    found, missing, present = [], [], set()
    for number, module in enumerate(order):
        file = bootable.find(module.name)
        if file is None and module.name not in made:
            missing.append(module.name)
            continue
        name = module.name if file is None else file.path
        present.add(name)
        arguments = " ".join(filter(None, (module.arguments, options if number == 0 else "")))
        found.append(" ".join(filter(None, (_checked(name), _checked(arguments)))))
    return _Order((*found, *(name for name in made if name not in present)), tuple(missing))


def _checked(text: str) -> str:
    if not text.isprintable():
        raise CorruptImage("a name or argument holds control characters", structure="boot.cfg", found=repr(text))
    return text


def _checked_configuration(configuration: BootConfig) -> bytes:
    for module in configuration.modules:
        if ".." in module.name.split("/"):
            raise UnsafeName(f"{module.name!r} would leave the destination", structure="boot.cfg")
    return configuration.to_bytes()
