"""How the contents of a bundle are shown."""

from typing import TYPE_CHECKING, Any

from appliance.report import amount_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.bundle.index import Component, Index
    from appliance.flows.bundle.create import Created


def created(done: "Created") -> dict[str, Any]:
    """Return what a bundle that was made is, for programs."""
    return {
        "files": [str(path) for path in done.files],
        "bytes": done.size,
        "signed_by": done.key.id if done.key else "",
        "installer": str(done.installer) if done.installer else "",
        "installer_sha256": done.installer_sha256,
        "bundle": index_data(done.index) if done.index else None,
    }


def created_text(done: "Created") -> str:
    """Return what a bundle that was made is, for people."""
    if done.index is None:
        return f"{done.files[0]}: about {amount_text(done.size)} would be written"
    lines = [*lines_of(done.index), ""]
    lines += [str(path) for path in done.files]
    if done.installer:
        lines += [str(done.installer), f"sha256 {done.installer_sha256}  (compare it there: sha256sum)"]
    signed = f"signed by {done.key.id}: carry its public key there by another way" if done.key else "not signed"
    return "\n".join([*lines, signed])


def lines_of(index: "Index") -> list[str]:
    """Return what a bundle holds and needs, line by line."""
    target = index.target
    needs = [f"{target.os} {target.os_version}", target.arch, f"glibc >= {target.glibc}"]
    needs += [f"Python {target.python} (in it)"] if target.python and index.of("python") else []
    needs += [f"{vendor} driver >= {lowest}" for vendor, lowest in target.drivers]
    needs += ["Docker or Podman, with Compose"] if target.docker else []
    needs += [f"processor with {' '.join(target.cpu_flags)}"] if target.cpu_flags else []
    lines = [
        f"{'bundle':12} {index.name}, serial {index.serial}, {amount_text(index.size)}, llm-appliance {index.appliance}"
    ]
    lines.append(f"{'for':12} {', '.join(needs)}")
    for one in index.of("engine", "gateway", "model", "files"):
        there = "  (the target has it)" if one.base else f"  {amount_text(one.unpacked)}"
        lines.append(f"{one.kind:12} {title(one)}{there}")
    added = index.of("package")
    if added:
        lines.append(f"{'packages':12} {len(added)}, {amount_text(sum(one.unpacked for one in added))}: {_some(added)}")
    starters = index.of("appliance", "python")
    if starters:
        lines.append(f"{'to start':12} {len(starters)} files, {amount_text(sum(one.unpacked for one in starters))}")
    if index.base:
        size = sum(one.size for one in index.base)
        lines.append(f"{'left out':12} {len(index.base)} blobs, {amount_text(size)}, which the target must have")
    return lines


def _some(packages: "Sequence[Component]") -> str:
    """Name the first few packages; what Docker depends on is sixty."""
    names = ", ".join(one.name for one in packages[:8])
    return names if len(packages) <= 8 else f"{names} …"


def title(one: "Component") -> str:
    """Return how a component is called."""
    return f"{one.name} {one.version}".rstrip() + (f" from {one.source}" if one.kind == "model" else "")


def component(one: "Component") -> dict[str, Any]:
    """Return a component for programs."""
    return {
        "kind": one.kind, "name": one.name, "version": one.version, "source": one.source, "licence": one.licence,
        "bytes": one.unpacked, "key": one.key, "left_out": one.base,
    }  # fmt: skip


def index_data(index: "Index") -> dict[str, Any]:
    """Return an index for programs."""
    from dataclasses import asdict

    return {
        "name": index.name, "serial": index.serial, "appliance": index.appliance, "bytes": index.size,
        "target": asdict(index.target), "components": [component(one) for one in index.components],
        "payloads": len(index.payloads), "base": [asdict(one) for one in index.base],
    }  # fmt: skip
