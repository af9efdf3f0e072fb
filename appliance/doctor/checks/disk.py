"""Where things are kept: room, and what the file system allows."""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.check import error, looks_for, size, warning
from appliance.doctor.checks.models import copied
from appliance.doctor.facts import Facts, Place
from appliance.doctor.remedy import as_root
from appliance.domain.finding import Finding
from appliance.domain.host import Host

BUILD: Final = 2 << 30
"""Bytes that a first installation takes at its peak: compiler, objects, nginx, and some for logs."""
RESERVE: Final = 1 << 30
"""Bytes that should be left in any case: generations, logs, caches."""
INODES: Final = 100_000
"""A torch environment has about 40,000 files; another is made before the old one goes."""
NO_INODES: Final = 2_000
MEMORY: Final = frozenset({"tmpfs", "ramfs"})
NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "beegfs", "glusterfs", "virtiofs"})
FOREIGN: Final = frozenset({"vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk", "drvfs"})
"""They hold neither links nor permissions of ours."""


@looks_for("disk-full", "there is not enough room where weights and engines are kept")
def room(host: Host, facts: Facts) -> Iterator[Finding]:
    """An installation counts exactly what it needs before it begins, so that this alone does not prevent one."""
    weights = sum(step.size for source in facts.sources for step in copied(source, facts))
    needed = weights + (RESERVE if facts.record else BUILD)
    free = facts.state.free
    if free < needed:
        parts = f"engines and logs {size(needed - weights)}" + (f", weights {size(weights)}" if weights else "")
        message = f"{size(free)} free on {facts.state.mount}, {size(needed)} wanted ({parts})"
        yield error(facts.state.path, message, f"du -xsh {facts.state.mount.rstrip('/')}/* | sort -h | tail",
                    f"or mount a larger disk at {facts.state.path}")  # fmt: skip


@looks_for("inodes-low", "the file system has few inodes left: no more files can be made")
def inodes(host: Host, facts: Facts) -> Iterator[Finding]:
    """Some file systems make them as they are needed and report none."""
    place = facts.state
    if not place.inodes or place.inodes_free >= INODES:
        return
    message = f"{place.inodes_free} of {place.inodes} inodes are free on {place.mount}"
    remedy = f"du -x --inodes -d 3 {place.mount} | sort -n | tail"
    few = place.inodes_free < NO_INODES
    yield error(place.path, message, remedy) if few else warning(place.path, message, remedy)


@looks_for("state-volatile", "what is installed lies in memory and is gone after a reboot")
def volatile(host: Host, facts: Facts) -> Iterator[Finding]:
    """It takes away memory that models need, too."""
    if facts.state.kind in MEMORY:
        message = f"{facts.state.mount} is {facts.state.kind}: gone after a reboot, and it takes memory from models"
        yield warning(facts.state.path, message, "choose a directory on a disk: --prefix DIR")


@looks_for("state-network", "what is installed lies on a network file system")
def network(host: Host, facts: Facts) -> Iterator[Finding]:
    """Weights are mapped into memory: a server that goes away stops every engine in the middle of an answer."""
    kind = facts.state.kind
    if kind in NETWORK or kind.startswith("fuse."):
        message = f"{facts.state.mount} is {kind}: models load slowly, and stop when its server goes away"
        yield warning(facts.state.path, message, "choose a directory on a disk of this machine")


@looks_for("state-filesystem", "the file system cannot hold links or permissions")
def foreign(host: Host, facts: Facts) -> Iterator[Finding]:
    """A generation is put in force with a link."""
    if facts.state.kind in FOREIGN:
        message = f"{facts.state.mount} is {facts.state.kind}: it holds neither links nor permissions"
        yield error(facts.state.path, message, "choose a directory on ext4, xfs or btrfs", prevents=True)


@looks_for("state-readonly", "the file system is mounted read-only")
def readonly(host: Host, facts: Facts) -> Iterator[Finding]:
    """The kernel remounts a disk so when it finds an error on it."""
    if "ro" in facts.state.options:
        remedy = (as_root(host, f"mount -o remount,rw {facts.state.mount}"), as_root(host, "dmesg | tail"))
        message = f"{facts.state.mount} is mounted read-only"
        yield error(facts.state.path, message, *remedy, prevents=True)


@looks_for("state-noexec", "programs cannot be started where engines are kept or built")
def noexec(host: Host, facts: Facts) -> Iterator[Finding]:
    """Engines and nginx run from the state directory; compilers from the cache, while something is to be built."""
    for place, prevents in ((facts.state, True), (facts.cache, facts.record is None)):
        if "noexec" in place.options:
            message = f"{place.mount} is mounted noexec: no program in {place.path} can be started"
            yield error(place.path, message, _remount(host, place), prevents=prevents)


@looks_for("tmp-noexec", "programs cannot be started in /tmp")
def tmp_noexec(host: Host, facts: Facts) -> Iterator[Finding]:
    """Triton and other just-in-time compilers load what they have written there."""
    if "noexec" in facts.temporary.options:
        message = f"{facts.temporary.mount} is mounted noexec: engines that compile at run time may fail"
        yield warning(facts.temporary.path, message, _remount(host, facts.temporary))


def _remount(host: Host, place: Place) -> str:
    return as_root(host, f"mount -o remount,exec {place.mount}") + "   # and in /etc/fstab, to stay"
