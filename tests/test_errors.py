"""Errors: their families, the builtins a caller would expect, messages that read the same everywhere, pickling."""

from __future__ import annotations

import copy
import errno
import itertools
import pickle
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmvisor_image import errors
from vmvisor_image.errors import (
    ClosedError,
    CorruptImage,
    DependencyMissing,
    DestinationExists,
    DestinationFailed,
    DestinationFull,
    InvalidArgument,
    KeyUnavailable,
    LimitExceeded,
    MemberNotFound,
    NameNotFound,
    NoDiskImage,
    NoLocalPath,
    NotADirectory,
    NotAFile,
    NotAFileSystem,
    NotAHost,
    NotAMachine,
    NotAnArchive,
    PartialExtraction,
    PartitionNotFound,
    PathNotFound,
    Problem,
    ReadOnly,
    RemoteError,
    SeveralImages,
    SourceChanged,
    SourceError,
    SourceIsDirectory,
    SourceNotDirectory,
    SourceNotFound,
    SourceNotPermitted,
    TruncatedImage,
    UnsafeName,
    UsageError,
    VmvisorImageError,
    WorkerFailed,
)

BUILTINS: dict[type[VmvisorImageError], tuple[type[Exception], ...]] = {
    VmvisorImageError: (),
    UsageError: (),
    InvalidArgument: (ValueError,),
    ReadOnly: (ValueError, OSError),
    ClosedError: (ValueError,),
    NameNotFound: (KeyError, LookupError),
    PartitionNotFound: (KeyError, LookupError),
    PathNotFound: (KeyError, FileNotFoundError),
    NotAFileSystem: (NotADirectoryError,),
    MemberNotFound: (KeyError, LookupError),
    KeyUnavailable: (),
    DestinationExists: (FileExistsError,),
    DestinationFailed: (OSError,),
    DestinationFull: (OSError,),
    DependencyMissing: (ImportError,),
    NotADirectory: (NotADirectoryError,),
    NotAFile: (IsADirectoryError,),
    NoLocalPath: (TypeError,),
    RemoteError: (OSError,),
    SourceChanged: (OSError,),
    SourceError: (OSError,),
    SourceNotFound: (FileNotFoundError,),
    SourceIsDirectory: (IsADirectoryError,),
    SourceNotDirectory: (NotADirectoryError,),
    SourceNotPermitted: (PermissionError,),
    LimitExceeded: (),
    CorruptImage: (),
    TruncatedImage: (EOFError,),
    UnsafeName: (),
    WorkerFailed: (),
    PartialExtraction: (),
    NotAHost: (),
    NotAMachine: (),
    NotAnArchive: (),
    NoDiskImage: (),
    SeveralImages: (),
}
"""Every error, and the builtins that it also is."""

MISUSE = [kind for kind in BUILTINS if not issubclass(kind, CorruptImage)]
BAD_INPUT = [kind for kind in BUILTINS if issubclass(kind, CorruptImage)]


def _subclasses(kind: type[VmvisorImageError]) -> Iterator[type[VmvisorImageError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _subclasses(subclass)


def _by_pickle(error: BaseException) -> BaseException:
    result = pickle.loads(pickle.dumps(error))
    assert isinstance(result, BaseException)
    return result


@pytest.mark.parametrize("kind", BUILTINS)
def test_can_be_made_as_tblib_makes_it(kind: type[VmvisorImageError]) -> None:
    """It is installed with distributed, and takes over how every error is copied and pickled."""
    made = kind.__new__(kind, "the message")
    assert type(made) is kind
    assert made.args == ("the message",)
    assert kind.__new__(kind).args == ()


def test_every_error_is_in_the_table() -> None:
    ours = {kind for kind in _subclasses(VmvisorImageError) if kind.__module__ == errors.__name__}
    assert ours == set(BUILTINS)


@pytest.mark.parametrize("kind", BUILTINS)
def test_builtin_bases(kind: type[VmvisorImageError]) -> None:
    assert issubclass(kind, (VmvisorImageError, Exception))
    assert all(issubclass(kind, builtin) for builtin in BUILTINS[kind])


@pytest.mark.parametrize("kind", [kind for kind in BUILTINS if kind is not VmvisorImageError])
def test_is_of_one_family(kind: type[VmvisorImageError]) -> None:
    assert sum(issubclass(kind, family) for family in (UsageError, CorruptImage, SourceError, LimitExceeded)) == 1


@pytest.mark.parametrize("kind", MISUSE)
class TestMisuse:
    def test_reads_as_its_message(self, kind: type[VmvisorImageError]) -> None:
        # KeyError would show quotes, OSError an errno.
        assert str(kind("no file 'a b'")) == "no file 'a b'"

    def test_without_a_message(self, kind: type[VmvisorImageError]) -> None:
        assert str(kind()) == ""

    @pytest.mark.parametrize("again", [_by_pickle, copy.copy, copy.deepcopy])
    def test_survives_copying(
        self, kind: type[VmvisorImageError], again: Callable[[BaseException], BaseException]
    ) -> None:
        error = kind("the message")
        error.add_note("a note")
        copied = again(error)
        assert type(copied) is kind
        assert (str(copied), copied.args, copied.__notes__) == ("the message", ("the message",), ["a note"])


NAMES = ["boot.cfg", "BOOT.CFG", "kernel", "vmkernel.gz", "a"]


class TestDidYouMean:
    @pytest.mark.parametrize("kind", [PartitionNotFound, PathNotFound, MemberNotFound])
    def test_says_what_is_similar(self, kind: type[NameNotFound]) -> None:
        error = kind("no 'Boot.cgf'", wanted="Boot.cgf", names=NAMES)
        assert error.similar == ("boot.cfg",)
        assert str(error) == "no 'Boot.cgf'; did you mean 'boot.cfg'?"
        assert error.args == ("no 'Boot.cgf'",)
        assert str(_by_pickle(error)) == str(error)

    def test_several(self) -> None:
        error = PathNotFound("no", wanted="vmkernel", names=NAMES, below="a/", elsewhere=["x/vmkernel", "a/kernel"])
        assert error.similar == ("x/vmkernel", "a/kernel", "a/vmkernel.gz")
        assert str(error) == "no; did you mean 'x/vmkernel', 'a/kernel' or 'a/vmkernel.gz'?"
        moved = error.restated("none", prefix="5/")
        assert moved.similar == ("5/x/vmkernel", "5/a/kernel", "5/a/vmkernel.gz")

    @pytest.mark.parametrize("wanted", ["", "q", "nothing like it"])
    def test_nothing_is_similar(self, wanted: str) -> None:
        assert str(PathNotFound("no", wanted=wanted, names=NAMES)) == "no"

    def test_is_bounded(self) -> None:
        """Of names without end a few hundred are taken, and of long ones none."""
        taken = []

        def names() -> Iterator[str]:
            for number in itertools.count():
                taken.append(number)
                yield "x" * 1000 if number % 2 else f"name {number}"

        error = PathNotFound("no", wanted="name 98" * 100_000, names=names())
        assert len(taken) <= 500
        assert len(pickle.dumps(error)) < 20_000


@pytest.mark.parametrize("kind", BAD_INPUT)
class TestBadInput:
    def test_keeps_what_it_was_told(self, kind: type[CorruptImage]) -> None:
        error = kind("it is wrong", structure="thing", offset=512, field="part", expected=1, found=2)
        assert (error.message, error.structure, error.offset) == ("it is wrong", "thing", 512)
        assert (error.field, error.expected, error.found) == ("part", 1, 2)

    def test_needs_only_a_structure(self, kind: type[CorruptImage]) -> None:
        error = kind("it is wrong", structure="thing")
        assert (error.offset, error.field, error.expected, error.found) == (None, None, None, None)

    @pytest.mark.parametrize("again", [_by_pickle, copy.copy, copy.deepcopy])
    def test_survives_copying(self, kind: type[CorruptImage], again: Callable[[BaseException], BaseException]) -> None:
        error = kind("it is wrong", structure="thing", offset=7, field="part", expected="1", found=b"2")
        error.add_note("a note")
        copied = again(error)
        assert type(copied) is kind
        assert isinstance(copied, CorruptImage)
        assert str(copied) == str(error)
        assert vars(copied) == vars(error)
        assert copied.__notes__ == ["a note"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CorruptImage("bad", structure="MBR"), "MBR: bad"),
        (CorruptImage("bad", structure="MBR", offset=0), "MBR at byte 0x0: bad"),
        (CorruptImage("bad", structure="MBR", field="signature"), "MBR, signature: bad"),
        (
            CorruptImage("bad", structure="MBR", offset=510, field="signature", expected="55 AA", found="00 00"),
            "MBR, signature at byte 0x1fe: bad (expected 55 AA, found 00 00)",
        ),
        (CorruptImage("bad", structure="MBR", expected=0, found=None), "MBR: bad (expected 0, found None)"),
    ],
)
def test_bad_input_says_where_and_what(error: CorruptImage, text: str) -> None:
    assert str(error) == text


@given(
    st.sampled_from(BAD_INPUT),
    st.text(),
    st.fixed_dictionaries(
        {"structure": st.text()},
        optional={
            "offset": st.integers(0),
            "field": st.text(),
            "expected": st.integers() | st.text(),
            "found": st.binary() | st.none(),
        },
    ),
)
def test_any_bad_input_survives_pickling(kind: type[CorruptImage], message: str, fields: dict[str, object]) -> None:
    error = kind(message, **fields)  # type: ignore[arg-type]  # hypothesis drew the right ones
    copied = _by_pickle(error)
    assert type(copied) is kind
    assert (str(copied), vars(copied)) == (str(error), vars(error))


class TestPartialExtraction:
    def test_starts_empty(self) -> None:
        error = PartialExtraction("some files are damaged", structure="volume")
        assert (error.written, error.failed) == ((), ())

    def test_carries_its_lists_through_pickling(self) -> None:
        error = PartialExtraction("some files are damaged", structure="volume")
        error.written = ("a", "b")
        error.failed = (("c", TruncatedImage("it ends", structure="c", offset=3)),)
        copied = _by_pickle(error)
        assert isinstance(copied, PartialExtraction)
        assert copied.written == ("a", "b")
        [(path, inner)] = copied.failed
        assert (path, type(inner), str(inner)) == ("c", TruncatedImage, "c at byte 0x3: it ends")


class TestProblem:
    def test_of_an_error(self) -> None:
        error = CorruptImage("bad", structure="MBR", offset=510, field="signature", expected="55 AA", found="00 00")
        problem = Problem.of(error)
        assert problem == Problem("MBR", "signature: bad (expected 55 AA, found 00 00)", 510)
        assert str(problem) == "MBR at byte 0x1fe: signature: bad (expected 55 AA, found 00 00)"

    def test_of_an_error_without_details(self) -> None:
        assert str(Problem.of(CorruptImage("bad", structure="MBR"))) == "MBR: bad"

    def test_is_a_value(self) -> None:
        problem = Problem("MBR", "bad", 0)
        assert pickle.loads(pickle.dumps(problem)) == problem
        assert {problem: 1}[Problem("MBR", "bad", 0)] == 1
        with pytest.raises(AttributeError):
            problem.message = "good"  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (PathNotFound, errno.ENOENT),
        (NotADirectory, errno.ENOTDIR),
        (NotAFileSystem, errno.ENOTDIR),
        (NotAFile, errno.EISDIR),
        (DestinationExists, errno.EEXIST),
        (ReadOnly, errno.EROFS),
    ],
)
def test_an_os_error_has_its_number(kind: type[OSError], number: int) -> None:
    assert kind("what").errno == pickle.loads(pickle.dumps(kind("what"))).errno == number
