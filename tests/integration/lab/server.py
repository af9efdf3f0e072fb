"""One booted server: a container whose first process is systemd."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.integration.lab.images import base_image
from tests.integration.lab.machine import LabError, command
from tests.integration.lab.process import Process

LABEL = "llm-appliance-lab"
BRIDGE = "bridge"
BOOT_SECONDS = 90.0
STOP_SECONDS = 60
LOG_LINES = 200
# A server needs nearly everything, and `--privileged` fails where SYS_RESOURCE cannot be had. The clock is that of the
# machine, for all who are on it: a server may not set it.
BOOT_OPTIONS = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cap-drop", "SYS_TIME"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec,mode=1777"),
    *("-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns=host"),
    *("-v", "/var/lib/docker", "-e", "container=docker"),
    *("--device-cgroup-rule", "a *:* rwm"),
    *("--stop-signal", "SIGRTMIN+3", "--stop-timeout", str(STOP_SECONDS)),
)
# Places whose content changes without anybody installing anything.
VOLATILE = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/.dockerenv",
    "/var/log/journal",
    "/var/log/wtmp",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/timers",
    "/var/tmp/systemd-private-*",
)


class CommandFailed(LabError):
    """A command inside a server ended with an exit code that the test did not expect."""


@dataclass(frozen=True)
class Completed:
    """What a command inside a server left behind."""

    stdout: str
    stderr: str
    code: int


@dataclass(frozen=True)
class Mount:
    """A place of this machine that a server sees."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class FileState:
    """One name in a server's file system; content is a sha256 or where a link points to."""

    kind: str
    mode: str
    uid: int
    gid: int
    content: str


class Server:
    """A server that is up; every method waits for its result, and none of them for ever."""

    def __init__(self, container: str) -> None:
        self.container = container
        self._processes: list[Process] = []

    @classmethod
    @contextmanager
    def boot(
        cls,
        name: str,
        *,
        network: bool = True,
        volumes: Sequence[Mount] = (),
        cpus: float | None = None,
        keep: bool = False,
        image: str = "",
    ) -> Iterator[Server]:
        """Boots a fresh server, or one from a saved image, and removes it afterwards."""
        container = f"lab-{name}-{secrets.token_hex(4)}"
        options = [*BOOT_OPTIONS, "--name", container, "--hostname", name]
        options += ["--label", f"{LABEL}={identity(os.getpid())}"]
        options += ["--network", BRIDGE if network else "none"]
        for mount in volumes:
            access = "ro" if mount.read_only else "rw"
            options += ["-v", f"{mount.source.resolve()}:{mount.target}:{access}"]
        if cpus is not None:
            options += ["--cpus", str(cpus)]
        server = cls(container)
        try:
            command("docker", "run", "-d", *options, image or base_image(), timeout=120)
            server._wait_until_up()
            yield server
        except Exception:
            print(server.logs(), file=sys.stderr)
            raise
        finally:
            for process in server._processes:
                process.forget()
            if not keep:
                remove(container)

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float = 120,
    ) -> Completed:
        """Runs a command and waits for its end."""
        data = input.encode() if isinstance(input, str) else input
        flags = _flags(env, user) if data is None else ("-i", *_flags(env, user))
        words = ("docker", "exec", *flags, self.container, *argv)
        done = command(*words, data=data, timeout=timeout, check=False)
        completed = Completed(
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
            done.returncode,
        )
        if check and completed.code != 0:
            seen = f"{completed.stdout}{completed.stderr}"
            raise CommandFailed(f"exit code {completed.code}: {' '.join(argv)}\n{seen}")
        return completed

    def sh(
        self,
        script: str,
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float = 120,
    ) -> Completed:
        """Runs a bash script, for a test that is about what an operator would type."""
        return self.run("bash", "-c", script, check=check, env=env, user=user, timeout=timeout)

    def popen(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Process:
        """Starts a command and leaves it running."""
        pid_file = f"/tmp/.lab-{secrets.token_hex(4)}.pid"
        inside = ("sh", "-c", 'echo $$ >"$0"; exec "$@"', pid_file, *argv)
        words = ("docker", "exec", *_flags(env, user), self.container, *inside)
        process = Process(self.container, words, pid_file)
        self._processes.append(process)
        return process

    def put(self, local: Path, remote: str, *, mode: str | None = None) -> None:
        """Copies a file to the path `remote`, or what a directory holds into the one there."""
        into = ("docker", "exec", "-i", self.container)
        if not local.is_dir():
            bits = mode or f"{local.stat().st_mode & 0o7777:04o}"
            with local.open("rb") as source:
                install = ("install", "-D", "-m", bits, "/dev/stdin", remote)
                command(*into, *install, stdin=source, timeout=600)
            return
        self.run("mkdir", "-p", remote)
        packing = ("tar", "-C", str(local), "--owner=0", "--group=0", "-c", ".")
        with subprocess.Popen(packing, stdout=subprocess.PIPE) as packer:
            try:
                unpack = ("tar", "-x", "-f", "-", "-C", remote)
                command(*into, *unpack, stdin=packer.stdout, timeout=600)
            finally:
                packer.kill()

    def write(self, remote: str, text: str, *, mode: str = "0644") -> None:
        """Makes a file with this text, and the directories above it."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", remote, input=text)

    def get(self, remote: str) -> bytes:
        """The content of a file."""
        return command("docker", "exec", self.container, "cat", remote, timeout=600).stdout

    def read(self, remote: str) -> str:
        """The text of a file."""
        return self.get(remote).decode()

    def exists(self, remote: str) -> bool:
        """Whether there is something at this path, a dangling link included."""
        return self.run("find", remote, "-maxdepth", "0", check=False).code == 0

    def reboot(self) -> None:
        """Shuts the server down in good order and boots it again."""
        command("docker", "restart", self.container, timeout=STOP_SECONDS + 60)
        self._wait_until_up()

    def kill_power(self) -> None:
        """Ends every process at once and boots again; what the kernel had cached survives."""
        command("docker", "kill", "--signal", "KILL", self.container, timeout=60)
        command("docker", "wait", self.container, timeout=60)
        command("docker", "start", self.container, timeout=60)
        self._wait_until_up()

    def save(self, image: str) -> None:
        """Keeps the disk as it is under an image's name; what is in memory, and thus running, is not kept."""
        command("docker", "commit", self.container, image, timeout=300)

    def disconnect(self) -> None:
        """Pulls the network cable."""
        command("docker", "network", "disconnect", BRIDGE, self.container, timeout=60)

    def connect(self) -> None:
        """Plugs the network cable in, also into a server that was booted without one."""
        if "none" in self._networks():
            command("docker", "network", "disconnect", "none", self.container, timeout=60)
        command("docker", "network", "connect", BRIDGE, self.container, timeout=60)

    @property
    def address(self) -> str:
        """The address at which this machine and other servers reach it."""
        address = self._networks().get(BRIDGE, "")
        if not address:
            raise LabError(f"{self.container} has no network")
        return address

    @property
    def booted(self) -> float:
        """When it booted, in seconds on the clock of this machine since that was booted."""
        # Field 22 of the stat line, counted behind the program's name, in clock ticks.
        fields = self.read("/proc/1/stat").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")

    def files(self, ignore: Sequence[str] = ()) -> dict[str, FileState]:
        """Every name in the root file system but the volatile ones and the patterns ignored."""
        tests: list[str] = []
        for pattern in (*VOLATILE, *ignore):
            tests += ["-o", "-path", pattern]
        walk = ("find", "/", "-xdev", "(", *tests[1:], ")", "-prune", "-o")
        listing = self._list(*walk, "-printf", r"%p\0%y\0%m\0%U\0%G\0%l\0")
        hashing = self._list(*walk, "-type", "f", "-exec", "sha256sum", "-z", "--", "{}", "+")
        hashes = {path: sha256 for sha256, _, path in (entry.partition("  ") for entry in hashing)}
        found: dict[str, FileState] = {}
        entries = iter(listing)
        while entry := tuple(islice(entries, 6)):
            path, kind, mode, uid, gid, target = entry
            content = hashes.get(path, "") if kind == "f" else target
            found[path] = FileState(kind, mode, int(uid), int(gid), content)
        return found

    def logs(self) -> str:
        """What tells why something went wrong in there."""
        questions = (
            ("exec", self.container, "systemctl", "--failed", "--no-pager", "--plain"),
            ("exec", self.container, "journalctl", "--no-pager", "-n", str(LOG_LINES)),
            ("logs", "--tail", str(LOG_LINES), self.container),
        )
        parts = [f"=== {self.container}"]
        for question in questions:
            try:
                done = command("docker", *question, timeout=60, check=False)
            except LabError as error:
                parts.append(str(error))
            else:
                parts.append((done.stdout + done.stderr).decode(errors="replace"))
        return "\n".join(parts)

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        state = "silent"
        while time.monotonic() < deadline:
            state = self.run("systemctl", "is-system-running", check=False, timeout=30).stdout
            if state.strip() in ("running", "degraded"):
                return
            time.sleep(0.1)
        raise LabError(f"{self.container} is not up after {BOOT_SECONDS:g} s: {state.strip()}")

    def _networks(self) -> dict[str, str]:
        answer = command("docker", "inspect", self.container, timeout=60).stdout
        networks = json.loads(answer)[0]["NetworkSettings"]["Networks"]
        return {name: network["IPAddress"] for name, network in networks.items()}

    def _list(self, *argv: str) -> list[str]:
        """What a command printed, split at its zero bytes; names need not be text."""
        # The exit code is not asked for: a file may go away while it is being looked at.
        words = ("docker", "exec", self.container, *argv)
        output = command(*words, timeout=300, check=False).stdout
        return os.fsdecode(output).split("\0")[:-1]


@dataclass(frozen=True)
class Lab:
    """What the tests are given: a machine that can boot servers."""

    keep: bool = False

    @contextmanager
    def boot(
        self,
        name: str = "server",
        *,
        network: bool = True,
        volumes: Sequence[Mount] = (),
        cpus: float | None = None,
        image: str = "",
    ) -> Iterator[Server]:
        """Boots a fresh server, or one from a saved image, gone afterwards unless the servers are to be kept."""
        booting = Server.boot(name, network=network, volumes=volumes, cpus=cpus, keep=self.keep, image=image)
        with booting as server:
            yield server


def difference(
    before: Mapping[str, FileState], after: Mapping[str, FileState]
) -> dict[str, tuple[FileState | None, FileState | None]]:
    """What was added, removed or changed between two snapshots."""
    return {
        path: (before.get(path), after.get(path))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    }


def remove(*containers: str) -> None:
    """Removes servers, with their volumes and whatever runs in them."""
    if containers:
        command("docker", "rm", "--force", "--volumes", *containers, timeout=120, check=False)


def remove_leftovers() -> None:
    """Removes the servers of runs that have ended, not those of a run beside this one."""
    listing = ("docker", "ps", "-a", "--filter", f"label={LABEL}", "--format", "{{.ID}}")
    identities = command(*listing, timeout=60).stdout.decode().split()
    if not identities:
        return
    answer = json.loads(command("docker", "inspect", *identities, timeout=60).stdout)
    owners = {entry["Id"]: entry["Config"]["Labels"][LABEL] for entry in answer}
    remove(*(container for container, owner in owners.items() if not _alive(owner)))


def identity(pid: int) -> str:
    """Names a process so that a later one with the same number is another one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return f"{pid}.{fields[19]}"


def _alive(owner: str) -> bool:
    try:
        return identity(int(owner.partition(".")[0])) == owner
    except (OSError, ValueError):
        return False


def _flags(env: Mapping[str, str] | None, user: str | None) -> tuple[str, ...]:
    flags = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
    return tuple(flags) if user is None else (*flags, "--user", user)
