"""What a support bundle holds: each part is gathered by itself, and one that cannot be had says why in its place."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from appliance import codec, verify
from appliance.detect import detect
from appliance.domain.changes import Command, Record
from appliance.errors import ApplianceError
from appliance.flows import doctor, generations
from appliance.flows import status as status_flow
from appliance.flows.site import Site
from appliance.runtimes import GATEWAY, runtime
from appliance.system.http import call

LOG_LINES = 400
"""Of each log."""
LARGEST = 4 << 20
"""Bytes of one file."""
SECRET = ("keys.json", "secrets/")
"""Below `etc`: never read into a bundle."""
COMMANDS = (
    ("system/disk.txt", ("df", "-hT")),
    ("system/inodes.txt", ("df", "-i")),
    ("system/memory.txt", ("free", "-m")),
    ("system/processes.txt", ("ps", "-eo", "pid,ppid,user,rss,etimes,stat,comm")),
    ("system/kernel.txt", ("dmesg", "--level=emerg,alert,crit,err,warn")),
    ("system/nvidia-smi.txt", ("nvidia-smi",)),
)

Part = tuple[str, Callable[[], str]]


def parts(site: Site) -> Iterator[Part]:
    """Yield (name, what makes its text); a text is not redacted yet."""
    record = _record(site)
    yield "detect.json", lambda: codec.dump_json(detect(site.machine, state=site.layout.state))
    yield "doctor.json", lambda: _json([asdict(one) for one in doctor.examine(site).findings])
    yield from ((name, lambda argv=argv: _run(site, argv)) for name, argv in COMMANDS)
    yield from _files(site, site.layout.etc, "etc")
    if record is None:
        return
    yield "plan.json", lambda: codec.dump_json(record.deployment)
    yield "status.json", lambda: codec.dump_json(status_flow.look(site, record))
    yield "gateway.json", lambda: _ask(record, "/gateway/stat")
    yield "metrics.txt", lambda: _ask(record, "/metrics")
    yield "generations.json", lambda: _generations(site)
    yield from _files(site, f"{site.layout.state}/generations/{record.generation}", "generation")
    yield from _services(site, record)


def secrets(site: Site, environ: dict[str, str]) -> Iterator[str]:
    """Yield the values of all secrets that we know of, so that they are found wherever they got to."""
    etc = Path(site.layout.etc)
    record = _record(site)
    paths = [etc / "secrets" / name for name in site.machine.names(str(etc / "secrets"))]
    if record:
        spec = record.deployment.spec
        paths += [Path(one.remote.key_file) for one in record.deployment.services if one.remote and one.remote.key_file]
        paths += [Path(spec.hub.token_file)] if spec.hub.token_file else []
        pairs = (*spec.environment, *(pair for item in spec.models for pair in item.environment))
        yield from (value for name, value in pairs if _secret_name(name))
    for path in paths:
        yield from (site.machine.read(str(path), 1 << 16) or b"").decode(errors="replace").split()
    yield from (value for name, value in environ.items() if _secret_name(name))


def _secret_name(name: str) -> bool:
    return any(word in name.upper() for word in ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"))


def _record(site: Site) -> Record | None:
    try:
        return site.generations.record()
    except ApplianceError:
        return None


def _files(site: Site, home: str, name: str) -> Iterator[Part]:
    """Yield every file of ours below a directory, but those that hold secrets."""
    for directory, _, files in os.walk(home):
        for file in sorted(files):
            path = f"{directory}/{file}"
            inside = path.removeprefix(f"{home}/")
            if not inside.startswith(SECRET) and not inside.endswith((".key", ".pem", ".lua")):
                yield f"{name}/{inside}", lambda path=path: _read(site, path)  # type: ignore[misc]


def _services(site: Site, record: Record) -> Iterator[Part]:
    deployment = record.deployment
    module = runtime(deployment.runtime)
    for name in (GATEWAY, *(service.name for service in deployment.started)):
        command = module.logs(deployment, (name,), follow=False, lines=LOG_LINES)
        yield f"logs/{name}.log", lambda command=command: _run(site, command.argv)  # type: ignore[misc]
    access = f"{deployment.layout.log}/gateway/access.log"
    yield "logs/access.log", lambda: _run(site, ("tail", f"--lines={LOG_LINES}", access))
    if deployment.runtime == "systemd":
        units = ("llm-appliance*",)
        yield "units/show.txt", lambda: _run(site, ("systemctl", "show", "--all", *units))
        # What systemd goes by: our files, drop-ins, and where they are.
        yield "units/cat.txt", lambda: _run(site, ("systemctl", "cat", *units))
        yield "units/list.txt", lambda: _run(site, ("systemctl", "list-units", "--all", "--no-pager", *units))
    elif deployment.runtime == "compose":
        yield "units/compose.txt", lambda: _run(site, ("docker", "ps", "--all", "--no-trunc"))


def _read(site: Site, path: str) -> str:
    content = site.machine.read(path, LARGEST)
    return f"cannot be read: {path}\n" if content is None else content.decode(errors="replace")


def _run(site: Site, argv: tuple[str, ...]) -> str:
    done = site.machine.run(Command(argv=argv, timeout=15))
    ended = f"[{' '.join(argv)} ends with {done.code}]\n" if done.code else ""
    return f"{done.stdout}{done.stderr}{ended}"


def _ask(record: Record, path: str) -> str:
    answer = call(verify.door(record.deployment), path, timeout=5)
    return answer.body.decode(errors="replace") if answer.status == 200 else f"HTTP {answer.status} {answer.error}\n"


def _generations(site: Site) -> str:
    rows = [{"number": one.number, "made": one.made, "healthy": one.healthy, "current": one.current,
             "models": one.models} for one in generations.kept(site)]  # fmt: skip
    return _json(rows)


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n"
