"""How everything does, as text: without the command line's parser, whose import takes as long as the look itself."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from appliance.cli.site import finish, site
from appliance.errors import ExitCode, InterruptedRunError
from appliance.report import Result, amount_text

if TYPE_CHECKING:
    from appliance.domain.changes import Record
    from appliance.domain.status import DeviceStatus, ServiceStatus, Status
    from appliance.flows.site import Site


def once(*, as_json: bool) -> int:
    """Answer `status` and `status --json`."""
    from appliance.flows.site import installed

    here = site("", as_json=as_json)
    return show(here, "status", installed(here), as_json=as_json)


def repeated(look: Callable[[], int], interval: float, *, as_json: bool) -> int:
    """Look again and again until Ctrl-C; on a terminal each look takes the place of the one before."""
    code, screen = 0, sys.stdout.isatty() and not as_json
    try:
        while True:
            if screen:
                sys.stdout.write("\x1b[H\x1b[J")
            code = look()
            sys.stdout.flush()
            time.sleep(interval)
    except InterruptedRunError:
        return code


def show(here: "Site", command: str, record: "Record", *, as_json: bool) -> int:
    """Print how everything does."""
    from appliance.flows import status as flow

    found = flow.look(here, record)
    bad = flow.bad(found) if command == "status" else any(one.state == "failed" for one in found.services)
    code = ExitCode.UNHEALTHY if bad else ExitCode.OK
    data = None if not as_json else _data(found)
    text = "" if as_json else "\n".join(lines(found, shutil.get_terminal_size((0, 0)).columns))
    return finish(Result(command=command, data=data, text=text, exit_code=code), as_json=as_json)


def lines(found: "Status", width: int = 0) -> list[str]:
    """Return the table: a line for each service, then devices, then what somebody edited. `width` 0 = unbounded."""
    said = [f"{'NAME':18} {'STATE':9} {'FOR':>8} {'PID':>8}  {'ENGINE':27} {'RAM OF PLANNED':24} ENDPOINT"]
    for one in found.services:
        said += _service(one, width)
    said += ["", *_devices(found.devices)]
    if found.problem:
        said += ["", f"the gateway tells nothing: {found.problem}"]
    said += ["", found.certificate] if found.certificate else []
    said += _edits(found)
    return said


def _service(one: "ServiceStatus", width: int) -> list[str]:
    engine = f"{one.engine} {one.version}".strip()
    engine += f" {one.accelerator}" if one.accelerator not in {"", "cpu"} else ""
    head = (
        f"{one.name:18} {one.state:9} {duration(one.seconds):>8} {one.pid or '-':>8}  {engine:27} "
        f"{_memory(one):24} {one.endpoint}"
    )
    note = ", ".join(part for part in (one.detail, one.hint) if part)
    rows = [head.rstrip(), *([f"{'':18} {note}"] if note else [])]
    return [rows[0][:width] if width else rows[0], *rows[1:]]


def _memory(one: "ServiceStatus") -> str:
    """Return what it holds of what was planned: of RAM; GPUs have a table of their own."""
    ram = dict(one.planned).get("ram", 0)
    parts = [f"{_size(one.memory)} of {_size(ram)}" if ram else _size(one.memory)] if one.memory else []
    return " ".join([*parts, *(f"+ {name}" for name in one.gpus)])


def _devices(devices: "tuple[DeviceStatus, ...]") -> list[str]:
    said = [f"{'DEVICE':18} {'USED':>10} {'PLANNED':>10} {'TOTAL':>10}  HELD BY"]
    for one in devices:
        used = "?" if one.used is None else _size(one.used)
        total = "?" if one.total is None else _size(one.total)
        held = ", ".join(f"{name} {_size(amount)}" for name, amount in sorted(one.held, key=lambda item: -item[1])[:6])
        more = f", {len(one.held) - 6} more" if len(one.held) > 6 else ""
        note = f"  {one.failure}" if one.failure else ""
        name = f"{one.name} {one.label}".strip()
        said.append(f"{name:18} {used:>10} {_size(one.planned):>10} {total:>10}  {held}{more}{note}".rstrip())
    return said


def _edits(found: "Status") -> list[str]:
    """Return what somebody edited, and what that means."""
    ours = [one for one in found.edits if not one.yours]
    yours = [one for one in found.edits if one.yours]
    dropins = [path for one in found.services for path in one.dropins]
    said = [f"edited by hand: {one.path}{' (removed)' if one.gone else ''}" for one in ours]
    said += ["  `llm-appliance plan` shows the difference; `install` keeps a copy beside the new one"] if ours else []
    said += [f"not in force yet: {one.path}{' (removed)' if one.gone else ''}" for one in yours]
    said += ["  `llm-appliance plan` shows what it would change; `install` puts it in force"] if yours else []
    said += [f"drop-in of yours: {path}" for path in dict.fromkeys(dropins)]
    return ["", *said] if said else []


def _data(found: "Status") -> dict[str, Any]:
    from dataclasses import asdict

    def service(one: "ServiceStatus") -> dict[str, Any]:
        return {**asdict(one), "engine": f"{one.engine} {one.version}".strip(), "planned": dict(one.planned)}

    return {
        "runtime": found.runtime,
        "generation": found.generation,
        "endpoint": found.endpoint,
        "services": [service(one) for one in found.services],
        "devices": [{**asdict(one), "held": dict(one.held)} for one in found.devices],
        "edits": [asdict(one) for one in found.edits],
        "problem": found.problem,
        "certificate": found.certificate,
    }


def _size(amount: int) -> str:
    return amount_text(amount)


def duration(seconds: int) -> str:
    """Write a time for people, in its largest unit."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} d"
