"""What goes where: one bar for each device, as wide as its memory."""

from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.service import Load

WIDTH = 40
"""Characters of a bar."""
LETTERS = {"weights": "W", "KV cache": "K"}
"""Items that people ask for; all the rest is what engines need to compute."""
OTHER = "e"
HELD = "x"


def bars(deployment: Deployment, host: Host) -> list[str]:
    """Return a table of devices, each with its bar, what is promised of it and to whom."""
    rows = [row for row in (_row(deployment, host, *device) for device in _devices(host)) if row]
    widths = [max(len(row[column]) for row in rows) for column in range(2)] if rows else [0, 0]
    lines = [f"{name:{widths[0]}}  {what:{widths[1]}}  {rest}" for name, what, rest in rows]
    legend = f"W weights  K KV cache  {OTHER} engine  {HELD} held by others  . free"
    return [*lines, f"{'':{widths[0]}}  {'':{widths[1]}}  {legend}"] if rows else []


def _devices(host: Host) -> list[tuple[str, str, int, int]]:
    """Return (device, what it is, its bytes, bytes that others hold)."""
    gpus = [
        (gpu.device, gpu.name, gpu.memory, gpu.memory - gpu.memory_free if gpu.memory_free is not None else 0)
        for gpu in host.devices
        if gpu.memory is not None
    ]
    return [("ram", f"{host.cpus} cores", host.memory, 0), *gpus]


def _row(
    deployment: Deployment, host: Host, device: str, what: str, memory: int, held: int
) -> tuple[str, str, str] | None:
    """Return one line's cells; None for a machine that does not say how much memory it has."""
    if not memory:
        return None
    unified = {gpu.device for gpu in host.devices if gpu.unified}
    loads = [
        (service.name, load)
        for service in deployment.services
        for load in service.loads
        if load.device == device or (device == "ram" and load.device in unified)
    ]
    promised = sum(load.total for _, load in loads)
    names = ", ".join(dict.fromkeys(name for name, _ in loads))
    bar = _bar([load for _, load in loads], memory, max(0, held - promised) if loads else held)
    return device, what, f"[{bar}] {promised / 2**30:6.1f} of {memory / 2**30:6.1f} GiB  {names}".rstrip()


def _bar(loads: list[Load], memory: int, held: int) -> str:
    """Draw item by item; every one that is there shows, be it as small as it may."""
    amounts: dict[str, int] = {}
    for load in loads:
        for name, amount in load.items:
            letter = LETTERS.get(name, OTHER)
            amounts[letter] = amounts.get(letter, 0) + amount
    if held:
        amounts[HELD] = held
    cells = {letter: max(1, round(amount * WIDTH / memory)) for letter, amount in amounts.items() if amount}
    while sum(cells.values()) > WIDTH:
        cells[max(cells, key=lambda letter: cells[letter])] -= 1
    return "".join(letter * count for letter, count in cells.items()).ljust(WIDTH, ".")
