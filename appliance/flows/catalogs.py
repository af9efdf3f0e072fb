"""The catalog of engines and models that holds here: replaced as a whole by a newer one, handed on, taken back."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import codec
from appliance.acquire.hub.reference import DIGEST, WEB
from appliance.catalog import document
from appliance.catalog.document import Difference, Document
from appliance.domain.changes import File
from appliance.errors import ArtifactError, SpecError, UsageError
from appliance.flows import planning
from appliance.flows.site import Site, require_rights
from appliance.system import web
from appliance.system.lock import lock
from appliance.system.web import Remote, WebError, host, patiently


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The catalog that every verb reads."""

    document: Document
    path: str
    """Where it is kept; "" = it came with this version."""

    @property
    def words(self) -> str:
        """Return which one it is, and its date."""
        made = f", made {self.document.made}" if self.document.made else ""
        if not self.path:
            return f"the one that comes with this version{made}"
        own = document.packaged().made
        older = f"; older than the one of this version, {own}: {document.UNDO}" if self.document.made < own else ""
        return f"updated{made}, kept in {self.path}{older}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """What an update, or taking it back, did."""

    now: InForce
    difference: Difference
    changed: bool


def in_force(site: Site, path: str | None = None) -> InForce:
    """Return the catalog in a file, else the one that holds here. Raises SpecError, UsageError."""
    if path is not None:
        return InForce(document=_whole(document.file(path)), path=path)
    state = site.layout.state
    found = document.kept(state)
    return InForce(
        document=found or document.packaged(), path=str(document.place(state)) if found else ""
    )  # fmt: skip


def update(site: Site, source: str, *, offline: bool = False, dry_run: bool = False) -> Updated:
    """Keep another catalog in place of the one that holds. Raises SpecError, UsageError, ArtifactError."""
    new = _whole(document.parse(_text(site, source, offline=offline), source=source.partition("#")[0]))
    content = codec.dump_json(new).encode()
    if len(content) > codec.MAX_BYTES:
        raise SpecError(f"{source}: {len(content)} bytes as it is kept; at most {codec.MAX_BYTES} are read")
    path = str(document.place(site.layout.state))
    now = InForce(document=new, path=path)
    if dry_run:
        return Updated(now=now, difference=_difference(site, new), changed=site.machine.read(path) != content)
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        difference = _difference(site, new)
        changed = site.machine.read(path, len(content) + 1) != content
        if changed:
            site.machine.write(File(path=path, content=content))
        return Updated(now=now, difference=difference, changed=changed)


def undo(site: Site) -> Updated:
    """Go back to the catalog that comes with this version, whatever the kept one is like."""
    require_rights(site)
    path = document.place(site.layout.state)
    with lock(Path(site.layout.state, "lock"), site.command):
        own, there = document.packaged(), path.exists()
        difference = _difference(site, own)
        site.machine.remove(str(path))
        return Updated(now=InForce(document=own, path=""), difference=difference, changed=there)


def _whole(new: Document) -> Document:
    """Return the document with the models of this version where it is about engines only."""
    return new if new.families else replace(new, families=document.packaged().families)


def _difference(site: Site, new: Document) -> Difference:
    try:
        old = document.kept(site.layout.state) or document.packaged()
    except SpecError:
        old = document.packaged()  # what nobody can read has nothing to be compared with
    return document.difference(old, new)


def _text(site: Site, source: str, *, offline: bool) -> str:
    """Return what a file holds, or an address. Raises UsageError, ArtifactError, SpecError."""
    if source.startswith(WEB):
        content = _fetched(site, source, offline=offline)
    else:
        try:
            with Path(source).open("rb") as stream:
                content = stream.read(planning.LARGEST)
        except OSError as error:
            hint = "a file here, or https://HOST/catalog.yaml#sha256=HEX"
            raise UsageError(f"{source}: {error.strerror}", hint=hint) from error
    if len(content) > codec.MAX_BYTES:
        raise SpecError(f"{source}: more than {codec.MAX_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"{source}: not UTF-8 at byte {error.start}") from error


def _fetched(site: Site, source: str, *, offline: bool) -> bytes:
    address, _, fragment = source.partition("#")
    digest = DIGEST.fullmatch(fragment)
    if not digest:
        raise UsageError(
            f"{address} comes without a digest, so nobody could tell whether it is the right one",
            hint=f"put #sha256=HEX behind it, from whoever publishes it: {address}#sha256=HEX",
        )
    settings = planning.access(site, planning.read_spec(site)[0], offline=offline).settings
    if settings.offline:
        raise ArtifactError(
            f"{address}: offline nothing is fetched", hint="fetch it elsewhere: llm-appliance catalog update FILE"
        )
    site.progress.step("download", address)
    try:
        content = patiently(
            lambda: web.content(Remote(url=address), certificates=settings.certificates, limit=codec.MAX_BYTES)
        )
    except WebError as error:
        said = f"answers {error.status}" if error.status else f"cannot be used ({error.kind}: {error.reason})"
        raise ArtifactError(f"{address}: {host(error.url)} {said}", hint="check the address and the network") from None
    found = hashlib.sha256(content).hexdigest()
    if found != digest[1].lower():
        raise ArtifactError(
            f"{address}: digest {found}, {digest[1].lower()} was promised", hint="ask its publisher for the right one"
        )
    return content
