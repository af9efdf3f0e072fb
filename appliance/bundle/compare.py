"""What differs between two bundles."""

from dataclasses import dataclass

from appliance.bundle.index import Component, Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Components by what happened to them, and the bytes that one has and the other has not."""

    added: tuple[Component, ...]
    removed: tuple[Component, ...]
    changed: tuple[tuple[Component, Component], ...]
    bytes_added: int
    bytes_removed: int
    bytes_shared: int


def difference(old: Index, new: Index) -> Difference:
    """Return how `new` differs from `old`."""
    before = {(one.kind, one.name): one for one in old.components if one.kind != "document"}
    after = {(one.kind, one.name): one for one in new.components if one.kind != "document"}
    sizes_before, sizes_after = _sizes(old), _sizes(new)
    both = sizes_before.keys() & sizes_after.keys()
    return Difference(
        added=tuple(one for key, one in after.items() if key not in before),
        removed=tuple(one for key, one in before.items() if key not in after),
        changed=tuple((before[key], one) for key, one in after.items() if key in before and before[key].key != one.key),
        bytes_added=sum(size for digest, size in sizes_after.items() if digest not in both),
        bytes_removed=sum(size for digest, size in sizes_before.items() if digest not in both),
        bytes_shared=sum(sizes_after[digest] for digest in both),
    )


def _sizes(index: Index) -> dict[str, int]:
    """Return digest -> bytes, without what only describes the bundle itself."""
    payloads = {one.digest: one.size for one in index.payloads if one.kind not in ("manifest", "plan", "sbom")}
    return payloads | {one.digest: one.size for one in index.base}
