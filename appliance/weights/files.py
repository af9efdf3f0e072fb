"""Opening a model's files: only regular files, and every failure in words."""

import difflib
import errno
import itertools
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from appliance.domain.weights import WeightFile
from appliance.errors import ArtifactError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_MAX_ENTRIES = 10_000
"""Names in a directory; a model has some hundreds at most."""

_SHOWN = 3

AGAIN = "Download or copy the file again, then run the same command."


def check_printable(path: str) -> None:
    """Refuse a path that would break a log line, a unit file or a configuration page.

    Raises ArtifactError.
    """
    if not path.isprintable():
        raise ArtifactError(
            f"{path!a}: the name has control characters or is not valid UTF-8",
            hint="Rename the file with letters, digits, dots and dashes, then run the same command.",
        )


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file for reading and tell its size in bytes; links are followed.

    Raises ArtifactError, also for an input/output error while the block reads.
    """
    check_printable(str(path))
    try:
        # Asked before opening: to open a device can have effects, and to open a pipe waits for its writer.
        _refuse_special(path, path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            # Asked again of what was opened: the name may point elsewhere by now.
            status = os.fstat(stream.fileno())
            _refuse_special(path, status.st_mode)
            yield stream, status.st_size
    except OSError as error:
        raise unreadable(path, error) from error


def read_head(path: Path, length: int) -> tuple[bytes, int]:
    """Read the first `length` bytes (fewer where the file is shorter) and the whole size in bytes.

    Raises ArtifactError.
    """
    with open_regular(path) as (stream, size):
        return stream.read(length), size


def weight_file(path: Path, size: int) -> WeightFile:
    """`path` as a WeightFile of `size` bytes: the name as given, the path with every link resolved.

    Hub caches link `model.gguf` to a blob whose name is a digest; the name that people and engines know is the link's.
    Raises ArtifactError.
    """
    real = os.path.realpath(path)
    check_printable(real)
    return WeightFile(name=path.name, path=real, size=size)


def unreadable(path: Path, error: OSError) -> ArtifactError:
    """`error`, met on `path`, as an error for a person."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _missing(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return ArtifactError(
            f"{path}: permission denied for user id {os.geteuid()}",
            hint=f"See which part refuses with: namei -l {shlex.quote(str(path))}",
        )
    if error.errno == errno.ELOOP:
        return ArtifactError(f"{path}: its links go round in a circle", hint=f"ls -l {shlex.quote(str(path))}")
    return ArtifactError(f"{path}: cannot be read: {error.strerror or error}", hint=f"ls -l {shlex.quote(str(path))}")


def entries(directory: Path) -> tuple[str, ...]:
    """Sorted names in `directory`. Raises ArtifactError, also for more than 10,000."""
    try:
        with os.scandir(directory) as found:
            names = sorted(entry.name for entry in itertools.islice(found, _MAX_ENTRIES + 1))
    except OSError as error:
        raise unreadable(directory, error) from error
    if len(names) > _MAX_ENTRIES:
        raise ArtifactError(
            f"{directory} has more than {_MAX_ENTRIES:,} names: this is no model's directory",
            hint="Give a .gguf file, or a directory with config.json and .safetensors files.",
        )
    return tuple(names)


def listed(names: Sequence[str]) -> str:
    """Name the first three of `names`, with dots where there are more; safe to print."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise ArtifactError(
            f"{path} is {kind}, not a file with weights",
            hint="Give a .gguf file, or a directory with config.json and .safetensors files.",
        )


def _missing(path: Path) -> ArtifactError:
    if path.is_symlink():
        return ArtifactError(
            f"{path} is a link to {os.path.realpath(path)!r}, which does not exist",
            hint="Download the model again: its cache was cleaned, or the link was copied without its file.",
        )
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    if not missing.parent.is_dir():
        return ArtifactError(
            f"{path} does not exist: {missing.parent} is a file, not a directory",
            hint=f"ls -l {shlex.quote(str(missing.parent))}",
        )
    message = f"{path} does not exist" if missing == path else f"{path} does not exist: there is no directory {missing}"
    return ArtifactError(message, hint=_near(missing))


def _near(missing: Path) -> str:
    try:
        names = entries(missing.parent)
    except ArtifactError:
        # What is beside it is a help, not the answer: the answer is already that it does not exist.
        names = ()
    known = [name for name in names if name.isprintable()]
    by_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(missing.name.lower(), list(by_case), n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(str(missing.parent / by_case[name]) for name in near) + "?"
    return f"See what is there: ls -l {shlex.quote(str(missing.parent))}"
