"""See the package."""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from tools.judges import archives, disks, fat, streams
from tools.judges.comparison import Case, Difference, Explanation, Reading, Sample, differences
from tools.judges.damage import damage
from tools.judges.programs import missing

_LARGEST_FILE: Final = 256 << 20
"""Bytes that a judge may write: a damaged size is not to fill the disk."""
_HANGS: Final = 60
"""Seconds of the library's for one input of some hundred kilobytes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of input."""

    programs: tuple[str, ...]
    judges: tuple[str, ...]
    write: Callable[[random.Random, Path], Sample]
    judged: Callable[[Path, Path], Mapping[str, Reading]]
    ours: Callable[[Path], Reading]
    explanations: tuple[Explanation, ...]


KINDS: Final[Mapping[str, Kind]] = {
    "fat": Kind(fat.PROGRAMS, fat.JUDGES, fat.write, fat.judged, fat.ours, fat.EXPLANATIONS),
    **{name: Kind(*ways, archives.ours, archives.EXPLANATIONS[name]) for name, ways in archives.KINDS.items()},
    **{name: Kind((name,), (name,), *ways, streams.EXPLANATIONS[name]) for name, ways in streams.KINDS.items()},
    **{name: Kind(("qemu-img",), ("qemu-img",), *ways, disks.EXPLANATIONS[name]) for name, ways in disks.KINDS.items()},
}

Key = tuple[str, str]
"""Kind and judge."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was found with one seed."""

    counts: Counter[tuple[str, str, str]]
    """By kind, judge and what is counted."""
    explained: Counter[tuple[str, str, str]]
    """By kind, judge and the explanation's name."""
    unexplained: tuple[str, ...]


class _HangError(BaseException):
    """The library has not come to an end; no handler of its own catches this."""


def _hangs(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # as signal calls it
    raise _HangError


def _ours(kind: Kind, path: Path) -> Reading | Difference:
    """The library's reading, or how it failed."""
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(_HANGS)
    try:
        return kind.ours(path)
    except _HangError:
        return Difference("crash", "", f"no end within {_HANGS} seconds")
    except Exception:  # noqa: BLE001  # what it raises is what is asked
        return Difference("crash", "", traceback.format_exc())
    finally:
        signal.alarm(0)


def judge(name: str, seed: int, variants: int, keep: Path | None = None) -> Result:
    """Write one valid input, damage it, and compare what is said of each."""
    kind = KINDS[name]
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, resource.RLIM_INFINITY))
    counts: Counter[tuple[str, str, str]] = Counter()
    explained: Counter[tuple[str, str, str]] = Counter()
    unexplained: list[str] = []
    with tempfile.TemporaryDirectory(prefix="judges-") as temporary:
        folder = Path(temporary)
        sample = kind.write(random.Random(f"{name}/{seed}"), folder)
        valid = sample.path.read_bytes()
        for variant in range(variants + 1):
            how, data = sample.writer, valid
            if variant:
                how, data = damage(random.Random(f"{name}/{seed}/{variant}"), valid, sample.places, sample.repair)
                sample.path.write_bytes(data)
            if keep is not None:
                shutil.copytree(folder, keep / f"{name}-{seed}-{variant}", dirs_exist_ok=True)
            readings = dict(kind.judged(sample.path, folder))
            if not variant and sample.truth:
                readings["writer"] = Reading(sample.truth)
            ours = _ours(kind, sample.path)
            for by, said in readings.items():
                counts[name, by, "damaged" if variant else "valid"] += 1
                if isinstance(ours, Difference):
                    found, case = [ours], None
                else:
                    case = Case(name, seed, variant, how, data, valid, by, said, ours)
                    found = list(differences(case))
                reasons = {_explain(kind, case, each) for each in found}
                if None in reasons:
                    counts[name, by, "unexplained"] += 1
                elif reasons:
                    counts[name, by, "explained"] += 1
                else:
                    counts[name, by, "equal"] += 1
                explained.update((name, by, reason) for reason in reasons if reason is not None)
                for each in found:
                    if _explain(kind, case, each) is None:
                        where = f"--kind {name} --seed {seed} --variant {variant}"
                        told = f"{where} ({by}; {how}): {each.rule} {each.path!r}: {each.detail}"
                        unexplained.append(told)
    return Result(counts, explained, tuple(unexplained))


def _explain(kind: Kind, case: Case | None, difference: Difference) -> str | None:
    """Name of the class that a difference falls into; what a writer was given is right."""
    if case is None or case.judge == "writer":
        return None
    for each in kind.explanations:
        if difference.rule in each.rules and each.applies(case, difference):
            return each.name
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.judges", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="valid inputs of each kind (default: %(default)s)")
    parser.add_argument("--variants", type=int, default=1, help="damaged inputs of each valid one")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these kinds")
    parser.add_argument("--seed", type=int, default=1, help="of the first input of each kind; the next has the next")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="a folder to keep the inputs in")
    options = parser.parse_args()
    kinds = options.kind or list(KINDS)
    absent = missing(tuple(dict.fromkeys(program for name in kinds for program in KINDS[name].programs)))
    if absent:
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
        return 2
    print(f"seeds {options.seed} to {options.seed + options.count - 1} of {', '.join(kinds)}", flush=True)
    tasks = [(name, options.seed + number) for number in range(options.count) for name in kinds]
    total = Result(Counter(), Counter(), ())
    unexplained = 0
    work = functools.partial(_work, options.variants, options.keep)
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for result in pool.map(work, tasks, chunksize=4):
            total.counts.update(result.counts)
            total.explained.update(result.explained)
            unexplained += len(result.unexplained)
            for each in result.unexplained:
                print(each, flush=True)
    _print_table(kinds, total)
    return 1 if unexplained else 0


def _work(variants: int, keep: Path | None, task: tuple[str, int]) -> Result:
    return judge(*task, variants, keep)


_COLUMNS: Final = ("valid", "damaged", "equal", "explained", "unexplained")


def _print_table(kinds: list[str], total: Result) -> None:
    print("| kind | judge | " + " | ".join(_COLUMNS) + " |")
    print("|---|---|" + "---|" * len(_COLUMNS))
    for name in kinds:
        for by in (*KINDS[name].judges, "writer"):
            print(f"| {name} | {by} | " + " | ".join(str(total.counts[name, by, each]) for each in _COLUMNS) + " |")
    for (name, by, reason), count in sorted(total.explained.items()):
        why = next(each.reason for each in KINDS[name].explanations if each.name == reason)
        print(f"{count} × {name}, {by}, {reason}: {why}")


if __name__ == "__main__":
    sys.exit(main())
