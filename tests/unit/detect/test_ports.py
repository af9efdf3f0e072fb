"""Ports: who listens, and who that is."""

from appliance.detect import ports
from appliance.domain.host import Port
from tests.unit.recorded import RecordedMachine

ROW = "{:4}: {}:{:04X} {}:0000 0A 00000000:00000000 00:00000000 00000000     0        0 {} 1 0000 100 0 0 10 0\n"
ANY4, ANY6 = "0" * 8, "0" * 32


def table(*rows: tuple[str, int, int]) -> bytes:
    return (
        "  sl ...\n" + "".join(ROW.format(n, at, port, at, inode) for n, (at, port, inode) in enumerate(rows))
    ).encode()


def process(pid: int, name: str) -> dict[str, bytes]:
    return {f"/proc/{pid}/comm": name.encode() + b"\n", f"/proc/{pid}/fd/3": b"", f"/proc/{pid}/fd/12": b""}


FILES = {
    "/proc/net/tcp": table((ANY4, 80, 100), (ANY4, 22, 200), ("0100007F", 8080, 300), ("0200007F", 8080, 301)),
    "/proc/net/tcp6": table((ANY6, 80, 101), (ANY6, 9100, 400)),
    **process(900, "nginx"),
    **process(1000, "nginx"),
    **process(77, "sshd"),
    **process(30, "one"),
    **process(31, "two"),
}
LINKS = {
    "/proc/900/fd/3": "socket:[100]", "/proc/900/fd/12": "socket:[101]",
    "/proc/1000/fd/3": "socket:[100]", "/proc/1000/fd/12": "socket:[101]",
    "/proc/77/fd/3": "socket:[200]", "/proc/77/fd/12": "/dev/null",
    "/proc/30/fd/3": "socket:[300]", "/proc/31/fd/3": "socket:[301]",
}  # fmt: skip


def test_a_port_has_the_process_that_opened_it_first() -> None:
    found = ports.listening(RecordedMachine(files=FILES), lambda link: LINKS.get(link, ""))
    assert found == (
        Port(port=22, holder="sshd (pid 77)"),
        Port(port=80, holder="nginx (pid 900)"),
        Port(port=8080, holder="one (pid 30), two (pid 31)"),
        Port(port=9100),
    )


def test_whom_we_may_not_look_at_has_no_name() -> None:
    machine = RecordedMachine(files={name: FILES[name] for name in ("/proc/net/tcp", "/proc/net/tcp6")})
    assert [port.port for port in ports.listening(machine)] == [22, 80, 8080, 9100]
    assert ports.holder(machine, 8080) == ports.holder(machine, 1) == ""


def test_processes_are_looked_at_once_and_no_further_than_needed() -> None:
    asked: list[str] = []

    def target(link: str) -> str:
        asked.append(link)
        return LINKS.get(link, "")

    files = {**FILES, "/proc/net/tcp": table((ANY4, 22, 200)), "/proc/net/tcp6": b""}
    ports.listening(RecordedMachine(files=files), target)
    assert sorted({link.split("/")[2] for link in asked}) == ["30", "31", "77"]
    assert len(asked) == len(set(asked))


def test_nobody_listens_nobody_is_looked_at() -> None:
    asked: list[str] = []

    def target(link: str) -> str:
        asked.append(link)
        return ""

    assert ports.listening(RecordedMachine(files=process(1, "init")), target) == ()
    assert asked == []
