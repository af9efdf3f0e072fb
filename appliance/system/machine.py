"""The machine that we run on: programs, small files, links, accounts."""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from appliance.domain.changes import Command, Completed, File

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Final = {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
PASSED: Final = (
    "HOME", "TMPDIR", "SSL_CERT_FILE", "NO_COLOR",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE", "PIP_TRUSTED_HOST",
    "PIP_NO_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_CACHE_DIR",
)  # fmt: skip
"""What a person may set to say where mirrors and proxies are; all else stays behind."""
TIMED_OUT: Final = 124
"""Exit code of a program that was still running when its time was over, and was killed."""
TAIL: Final = 200
"""Lines of a streamed command's output that are kept for its error message."""

OnLine = Callable[[str], None]


class Machine(Protocol):
    """What detect, apply and acquire may do to a machine; tests pass a recorded one."""

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        """Run a program; an absent one gives code 127, one past its timeout 124."""

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """Return the first `limit` bytes of a file, None when absent or unreadable."""

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory, () when absent."""

    def which(self, program: str) -> str:
        """Return the absolute path of a program, "" when absent."""

    def write(self, file: File) -> None:
        """Write a file atomically: a reader sees the old bytes or the new ones."""

    def link(self, target: str, path: str) -> None:
        """Make `path` a symbolic link to `target` with one rename."""

    def remove(self, path: str) -> None:
        """Remove a file or link; absent is fine."""


def environment(extra: tuple[tuple[str, str], ...] = ()) -> dict[str, str]:
    """Return the fixed environment that programs run in, with `extra` on top."""
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    return {**ENVIRONMENT, **passed, **dict(extra)}


def go_out_by(https: str, none: str) -> None:
    """Make the proxy that is configured the one of this process and all that it starts; "" leaves what there is."""
    for name, value in (("http_proxy", https), ("https_proxy", https), ("no_proxy", none)):
        if value:
            os.environ[name] = os.environ[name.upper()] = value


class RealMachine:
    """This machine."""

    def __init__(self, log: OnLine | None = None) -> None:
        self._log = log or (lambda _line: None)

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        """Run `command`; with `on_line`, its output and errors are streamed to it line by line."""
        began = time.monotonic()
        code, out, err = self._run(command, on_line)
        done = Completed(argv=command.argv, code=code, stdout=out, stderr=err, seconds=time.monotonic() - began)
        self._log(f"run {' '.join(command.argv)} -> {code} in {done.seconds:.2f} s")
        return done

    def _run(self, command: Command, on_line: OnLine | None) -> tuple[int, str, str]:
        account: dict[str, str | int | list[str]] = (
            {"user": command.user, "group": command.group, "extra_groups": []} if command.user else {}
        )
        with ExitStack() as stack:
            sink = stack.enter_context(open(command.stdout, "wb")) if command.stdout else None  # noqa: PTH123
            return self._spawn(command, on_line, sink, account)

    def _spawn(
        self,
        command: Command,
        on_line: OnLine | None,
        sink: BinaryIO | None,
        account: dict[str, str | int | list[str]],
    ) -> tuple[int, str, str]:
        try:
            process = subprocess.Popen(
                # A long piece of work ends with us, so that none goes on beside the run that takes it up again.
                ("setpriv", "--pdeathsig", "KILL", *command.argv)
                if on_line and shutil.which("setpriv")
                else command.argv,
                stdin=subprocess.PIPE if command.input else subprocess.DEVNULL,
                stdout=sink or subprocess.PIPE,
                stderr=subprocess.STDOUT if on_line else subprocess.PIPE,
                env=environment(command.env),
                cwd=command.cwd,
                start_new_session=True,
                **account,  # type: ignore[call-overload]
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            return 127, "", str(error)
        try:
            if on_line:
                return _stream(process, command.timeout, on_line)
            out, err = process.communicate(command.input or None, timeout=command.timeout)
            return process.returncode, (out or b"").decode(errors="replace"), err.decode(errors="replace")
        except subprocess.TimeoutExpired:
            _kill(process)
            return TIMED_OUT, "", f"still running after {command.timeout:g} s"
        except BaseException:
            _kill(process)
            raise

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """Return the first `limit` bytes of a file, None when absent or unreadable."""
        try:
            with Path(path).open("rb") as stream:
                return stream.read(limit)
        except OSError:
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory, () when absent."""
        try:
            return tuple(sorted(entry.name for entry in os.scandir(path)))
        except OSError:
            return ()

    def which(self, program: str) -> str:
        """Return the absolute path of a program, "" when absent."""
        return shutil.which(program, path=PATH) or ""

    def write(self, file: File) -> None:
        """Write a file by rename in its own directory; mode and group are set before it shows.

        Where somebody made it a link, the file that it leads to is written, and the link stays.
        """
        path = Path(file.path).resolve() if Path(file.path).is_symlink() else Path(file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        try:
            self._write(draft, file)
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        sync(path.parent)

    def _write(self, draft: Path, file: File) -> None:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.content)
            os.fchmod(stream.fileno(), file.mode)
            if file.user or file.group:
                os.fchown(stream.fileno(), _user(file.user), _group(file.group))
            stream.flush()
            os.fsync(stream.fileno())

    def link(self, target: str, path: str) -> None:
        """Make `path` a symbolic link to `target` with one rename."""
        draft = Path(f"{path}.new")
        draft.unlink(missing_ok=True)
        draft.symlink_to(target)
        draft.replace(path)
        sync(draft.parent)

    def remove(self, path: str) -> None:
        """Remove a file or link; absent is fine, also where nothing can be removed."""
        if os.path.lexists(path):
            Path(path).unlink(missing_ok=True)


def _user(name: str) -> int:
    """Return an account's number; one that only containers know is its own."""
    return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid if name else -1


def _group(name: str) -> int:
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid if name else -1


def sync(directory: Path) -> None:
    """Make renames in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def user_exists(name: str) -> bool:
    """Tell whether an account of that name is there."""
    return user_comment(name) is not None


def user_comment(name: str) -> str | None:
    """Return the comment field of an account, None when there is no such account."""
    try:
        return pwd.getpwnam(name).pw_gecos
    except KeyError:
        return None


def group_exists(name: str) -> bool:
    """Tell whether a group of that name is there."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def user_name() -> str:
    """Return the name of the user that runs us, or the number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _stream(process: subprocess.Popen[bytes], timeout: float, on_line: OnLine) -> tuple[int, str, str]:
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _kill(process)

    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    tail: list[str] = []
    try:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            tail = [*tail[-TAIL:], line]
            on_line(line)
        code = process.wait()
    finally:
        timer.cancel()
    if expired.is_set():
        return TIMED_OUT, "\n".join(tail), f"still running after {timeout:g} s"
    return code, "\n".join(tail), ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A program that the kernel holds (a stuck driver, a dead NFS server) outlives even this; we go on without it.
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=2)
