"""The script beside a bundle that installs it on a machine with nothing but a minimal system.

Who has to be believed, and from when on. Whoever runs the script as root believes it, as they would any installer: so
its own digest is printed when it is made, to be compared (`sha256sum`), and its signature lies beside it for those who
have minisign. It holds the digest of each file that it starts with: Python's packages, the appliance's wheels,
install.sh. It cuts those out of the bundle by the offsets that it holds, too, checks them with coreutils' sha256sum,
and runs none before all matched. From then on the appliance itself goes on, which checks the signature of the index
before it reads it, and every other byte by the index. The script holds the public key as well: on a machine that trusts
no key yet, the first installation pins it; on one that does, that key is not believed.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance import resources
from appliance.bundle import parts
from appliance.bundle.index import Index, Payload
from appliance.domain.changes import File
from appliance.flows.bundle.ingredients import STARTERS
from appliance.system.download import file_digest
from appliance.system.machine import RealMachine

if TYPE_CHECKING:
    from appliance.flows.bundle.create import Created, Sign

TEMPLATE: Final = "installers/bundle.sh"
ROOM: Final = 4
"""Times the size of the files that it starts with: them, what they unpack to, and one more copy meanwhile."""
MARK: Final = "# @values@\n"
"""The line that the values of one bundle take the place of."""


def beside(created: "Created", sign: "Sign | None") -> "Created":
    """Write the script next to a bundle that holds all it starts with; return what there is now."""
    index, first = created.index, created.files[0]
    assert index is not None
    here = {one.digest: one for one in index.payloads}
    starters = [one for one in index.components if one.kind in STARTERS]
    added = [one for one in index.of("package") if not one.base]
    room = 0 if first.stat().st_size == index.size else first.stat().st_size - parts.HEADER
    path = first.with_name(f"{first.name.rpartition('.')[0] if room else first.name}.install")
    signature = path.with_name(f"{path.name}.minisig")
    for stale in (path, signature):
        stale.unlink(missing_ok=True)
    if not starters or any(one.base for one in starters):
        return created
    # A package that Python needs, too, is one payload and lies in both places.
    lines = [
        f"{kind or payload.kind} {one.files[0]} {payload.digest} {_cuts(payload, created.files, room)}"
        for kind, ones in (("", starters), ("package", added))
        for one in ones
        for payload in (here[one.payloads[0]],)
    ]
    template = resources.data(TEMPLATE).read_text()
    content = template.replace(
        MARK, _values(index, first.name, created.key.text if created.key else "", lines)
    ).encode()
    machine = RealMachine()
    machine.write(File(path=str(path), content=content, mode=0o755))
    if sign:
        machine.write(File(path=str(signature), content=sign(content)[0]))
    return replace(created, installer=path, installer_sha256=file_digest(path))


def _values(index: Index, first: str, key: str, lines: list[str]) -> str:
    target = index.target
    size = sum(one.unpacked for one in index.of(*STARTERS))
    more = sum(one.unpacked for one in index.of("package"))
    pairs = (
        ("bundle", first), ("name", index.name), ("key", key), ("arch", target.arch), ("os", target.os),
        ("os_version", target.os_version), ("python", target.python),
        ("docker", "yes" if target.docker else ""), ("room", str(ROOM * size // 1024)),
        ("more", str(more // 1024)),
    )  # fmt: skip
    values = "".join(f"{name}={shlex.quote(value)}\n" for name, value in pairs)
    return f"{values}files() {{\n    cat <<'FILES'\n" + "".join(f"{line}\n" for line in lines) + "FILES\n}\n"


def _cuts(payload: Payload, files: tuple[Path, ...], room: int) -> str:
    """Return where a payload lies: FILE:SKIP:BYTES for each file with a piece; a part has `room`, 0 = no parts."""
    if not room:
        return f"{files[0].name}:{payload.offset}:{payload.size}"
    cuts, place, left = [], payload.offset, payload.size
    while left:
        number, inside = divmod(place, room)
        some = min(left, room - inside)
        cuts.append(f"{files[number].name}:{inside + parts.HEADER}:{some}")
        place, left = place + some, left - some
    return " ".join(cuts)
