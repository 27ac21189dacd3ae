"""The next step where an image is damaged: what can be read behind the damage, and by which command."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import TYPE_CHECKING, Final

from vmvisor_image.bzip2.reader import HEALTHY_BEHIND, Bzip2Reader
from vmvisor_image.compressions.peel import is_compression
from vmvisor_image.disk.explanation import counted
from vmvisor_image.disk.image import Image
from vmvisor_image.disk.tables.table import is_lost
from vmvisor_image.errors import CorruptImage, TruncatedImage
from vmvisor_image.faces.cli.advice import with_step

if TYPE_CHECKING:
    from vmvisor_image.reports.verification_report import VerificationReport

_NAMES_ARE_LOST: Final = (
    "which files were in the lost bytes can't be known: the partition table, and directories there, are lost with them"
)
_MISMATCH: Final = "; allow_cid_mismatch reads it nevertheless"
_RESTS_ON: Final = re.compile(r"^(the disk rests on|its parent|it rests on a disk whose CID)")
"""Start of messages on a parent that is missing, or can't be opened."""
_MOST_COUNTED: Final = 256 << 20
"""Bytes of the largest compressed image in which blocks are counted only to say how many there are."""


def again(options: argparse.Namespace, option: str) -> str:
    """The command that was given, once more with another option."""
    name, *given = options.given
    if name == "index":  # which keeps the places of the blocks before damage only
        name, given = "info", [options.source]
    return shlex.join(["vmvisor-image", name, *([] if option in given else [option]), *given])


def step_past_damage(image: Image, options: argparse.Namespace) -> str | None:
    """Next step for an image that is damaged as far as it was read; None without one."""
    if getattr(options, "salvage", False) and is_lost(image.known_problems):
        return _NAMES_ARE_LOST
    if getattr(options, "salvage", True) or not image.layers:
        return None
    source = image.layers[-1].source
    if isinstance(source, Bzip2Reader) and source.damage is not None:
        if source.source.size > _MOST_COUNTED:
            return None if isinstance(source.damage, TruncatedImage) else _salvage(options, "what is")
        found = source.count_blocks_behind_damage()
        return _salvage(options, f"the {counted(found, 'block')}", " (not checked yet)") if found else None
    if not is_lost(image.known_problems):
        return None
    if image.size_is_known:
        return f"`{shlex.join(['vmvisor-image', 'info', '--search', image.path or 'FILE'])}` looks for what is left"
    damaged = next((layer for layer in image.layers if is_compression(layer)), None)
    kind = "" if damaged is None else f" in {damaged.kind} data"
    return f"nothing behind the damage{kind} can be read: copy or download the image again"


def step_of_verification(report: VerificationReport, options: argparse.Namespace) -> str | None:
    """Next step where a verification has found healthy blocks behind damage; None without them."""
    if options.salvage and is_lost(report.problems):
        return _NAMES_ARE_LOST
    healthy = dict(report.layers[-1].counts).get(HEALTHY_BEHIND, 0) if report.layers else 0
    return _salvage(options, f"the {counted(healthy, 'healthy block')}") if healthy and not options.salvage else None


def _salvage(options: argparse.Namespace, what: str, remark: str = "") -> str:
    return f"`{again(options, '--salvage')}` also reads {what} behind the damage{remark}"


def advised_of_chain(error: CorruptImage, options: argparse.Namespace) -> CorruptImage:
    """The error of a virtual disk whose parent is missing, or another one, with the option that reads it anyway."""
    if type(error) is not CorruptImage or options.no_parent or options.parent is not None:
        return error
    if error.message.endswith(_MISMATCH):
        step = f"`{again(options, '--allow-cid-mismatch')}` reads it nevertheless"
        return with_step(error, step, error.message.removesuffix(_MISMATCH))
    if _RESTS_ON.search(error.message):
        return with_step(
            error, f"`{again(options, '--no-parent')}` reads it alone, with zeros for what it does not hold"
        )
    return error


def advised_error(error: CorruptImage, image: Image, options: argparse.Namespace) -> CorruptImage:
    """The error with the next step behind its message, where there is one."""
    if type(error) not in (CorruptImage, TruncatedImage) or "`vmvisor-image" in error.message:
        return error
    step = step_past_damage(image, options)
    return error if step is None else with_step(error, step)
