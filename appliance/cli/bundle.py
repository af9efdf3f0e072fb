"""bundle create, inspect, verify, diff, install, extract, inventory, keygen: an appliance in one file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.contents import component, created, created_text, index_data, lines_of, title
from appliance.cli.doctor import Ignore
from appliance.cli.options import Catalog, DryRun, Json, Offline, OtherHost, Prefix
from appliance.cli.plans import Certificate, CertificateKey, Insecure, Listen, Runtime, preview, report, settings
from appliance.cli.site import finish, site
from appliance.errors import UsageError
from appliance.report import Result, amount_text

if TYPE_CHECKING:
    from appliance.domain.host import Host
    from appliance.domain.spec import ModelSpec
    from appliance.flows.bundle.create import Sign
    from appliance.flows.bundle.install import Wish
    from appliance.flows.planning import Terms
    from appliance.flows.site import Site

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
File = Annotated[str, typer.Argument(metavar="FILE", help="A bundle: its file, one of its parts, or its directory.")]
Places = Annotated[
    list[str] | None, typer.Option("--parts-dir", metavar="DIR", help="Where other parts lie; may be repeated.")
]
Trust = Annotated[
    list[str] | None, typer.Option("--trust", metavar="KEY", help="Public key that is believed: a file, or its base64.")
]
Unsigned = Annotated[bool, typer.Option("--allow-unsigned", help="Take a bundle that nobody signed.")]
FirstKey = Annotated[str, typer.Option("--first-key", hidden=True)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="An appliance in one file, for servers without a network.")
    for command in (create, inspect, verify, diff, install, extract, inventory, keygen):
        noun.command()(command)
    app.add_typer(noun, name="bundle")


def create(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The bundle to write: site.llmb.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME[=SOURCE]",
            help="A model, as add-model takes it; may be repeated. Left out, those that are configured here.",
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="SIZE", help="Parts of so many bytes: 4G, 700M.")] = "",
    base: Annotated[
        str,
        typer.Option(
            metavar="OLD", help="Leave out what an earlier bundle, or a target's inventory.json, has already."
        ),
    ] = "",
    serial: Annotated[int | None, typer.Option(min=0, help="Number of this bundle among those of its name.")] = None,
    sign: Annotated[str, typer.Option("--sign", metavar="KEYFILE", help="Secret key, of `bundle keygen`.")] = "",
    password_file: Annotated[str, typer.Option(metavar="FILE", help="Holds the password of that key.")] = "",
    package: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.deb|NAME",
            help="Carry a package along: a driver's file, or docker.io of the distribution with all it depends on.",
        ),
    ] = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="Compile engines for every processor, not only for this machine's.")
    ] = False,
    runtime: Runtime = "",
    catalog: Catalog = None,
    host: OtherHost = "",
    offline: Offline = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Write a bundle for a machine like this one, or for another from its `detect --json`."""
    from appliance.acquire.source import Source
    from appliance.flows import documents, planning
    from appliance.flows.bundle import create as flow
    from appliance.flows.bundle import look

    here = site(prefix, as_json=as_json)
    target = Path(output).absolute()
    other = documents.read_host(host) if host else None
    terms = planning.Terms(catalog=catalog, offline=offline)
    wanted = flow.Wanted(
        target=target,
        models=_models(here, model or [], terms, other),
        split=_size(split) if split else 0,
        base=look.known(base, target.name.removesuffix(".llmb")) if base else None,
        serial=serial,
        packages=tuple(package or ()),
        sign=_signing(sign, password_file) if sign else None,
        portable=portable,
        edit=settings(runtime, "", insecure=False),
    )
    done = flow.create(here, wanted, other, Source(offline=offline), terms=terms, dry_run=dry_run)
    return finish(Result(command="bundle create", data=created(done), text=created_text(done)), as_json=as_json)


def inspect(
    file: File, trust: Trust = None, parts_dir: Places = None, prefix: Prefix = "", as_json: Json = False
) -> int:
    """Show what a bundle holds and who signed it, from its index alone."""
    from appliance.flows.bundle import look

    seen = look.inspect(site(prefix, as_json=as_json), _wish(file, parts_dir, trust))
    believed = f"signed by {seen.claimed}, which is trusted here" if seen.key else ""
    signature = believed or seen.problem or "not signed"
    data = {
        **index_data(seen.index),
        "signed_by": seen.claimed,
        "trusted": seen.key is not None,
        "problem": seen.problem,
    }
    lines = [*lines_of(seen.index), f"{'signature':12} {signature}"]
    return finish(Result(command="bundle inspect", data=data, text="\n".join(lines)), as_json=as_json)


def verify(
    file: File, trust: Trust = None, allow_unsigned: Unsigned = False, parts_dir: Places = None, prefix: Prefix = "",
    as_json: Json = False,
) -> int:  # fmt: skip
    """Read every byte of a bundle and check it: signature, index, digests."""
    from appliance.flows.bundle import look

    wish = _wish(file, parts_dir, trust, allow_unsigned=allow_unsigned)
    reader = look.verify(site(prefix, as_json=as_json), wish)
    who = f"signed by {reader.key.id}" if reader.key else "not signed"
    data = {"name": reader.index.name, "bytes": reader.index.size, "signed_by": reader.key.id if reader.key else ""}
    text = f"{file}: intact, {amount_text(reader.index.size)}, {who}"
    return finish(Result(command="bundle verify", data=data, text=text), as_json=as_json)


def diff(
    old: Annotated[str, typer.Argument(help="The earlier bundle.")],
    new: Annotated[str, typer.Argument(help="The later one.")],
    as_json: Json = False,
) -> int:
    """Show what differs between two bundles, from their indexes alone."""
    from appliance.flows.bundle import look

    found = look.diff(Path(old), Path(new))
    lines = [f"+ {title(one)}" for one in found.added] + [f"- {title(one)}" for one in found.removed]
    lines += [f"~ {title(one)} -> {other.version or other.key[:12]}" for one, other in found.changed]
    amounts = (found.bytes_added, found.bytes_removed, found.bytes_shared)
    lines.append("{} more, {} less, {} in both".format(*map(amount_text, amounts)))
    data = {
        "added": [component(one) for one in found.added],
        "removed": [component(one) for one in found.removed],
        "changed": [{"old": component(one), "new": component(other)} for one, other in found.changed],
        "bytes": dict(zip(("added", "removed", "shared"), amounts, strict=True)),
    }
    return finish(Result(command="bundle diff", data=data, text="\n".join(lines)), as_json=as_json)


def install(
    file: File,
    trust: Trust = None,
    allow_unsigned: Unsigned = False,
    allow_older: Annotated[bool, typer.Option("--allow-older", help="Take one older than what is installed.")] = False,
    parts_dir: Places = None,
    first_key: FirstKey = "",
    ignore: Ignore = None,
    runtime: Runtime = "",
    listen: Listen = "",
    insecure: Insecure = False,
    tls_certificate: Certificate = "",
    tls_key: CertificateKey = "",
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Install from a bundle, or add what is in it to what is served already; no network is reached."""
    from appliance.flows import planning
    from appliance.flows.bundle import install as flow

    here = site(prefix, as_json=as_json)
    wish = _wish(file, parts_dir, trust, allow_unsigned=allow_unsigned, allow_older=allow_older, first=first_key)
    edit = settings(runtime, listen, insecure, tls_certificate, tls_key)
    terms = planning.Terms(ignore=tuple(ignore or ()), offline=True)
    if dry_run:
        shown = flow.preview(here, wish, edit, terms)
        here.progress.note(f"{amount_text(shown.bytes)} would be written")
        return preview("bundle install", shown.planned, as_json=as_json)
    return report("bundle install", flow.install(here, wish, edit, terms), as_json=as_json)


def extract(
    file: File,
    target: Annotated[str, typer.Argument(metavar="DIR", help="A new directory.")],
    trust: Trust = None,
    allow_unsigned: Unsigned = False,
    parts_dir: Places = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Write a bundle as a directory, every byte checked: an OCI image layout, and a bundle as well."""
    from appliance.flows.bundle import look

    wish = _wish(file, parts_dir, trust, allow_unsigned=allow_unsigned)
    index = look.extract(site(prefix, as_json=as_json), wish, Path(target).absolute())
    text = f"{target}: {len(index.payloads)} blobs, {amount_text(index.size)}"
    return finish(Result(command="bundle extract", data=index_data(index), text=text), as_json=as_json)


def inventory(prefix: Prefix = "", as_json: Json = False) -> int:
    """Say what this machine has, for `bundle create --base` elsewhere: carry the output of --json there."""
    from appliance import codec
    from appliance.flows.bundle import look

    found = look.inventory(site(prefix, as_json=as_json))
    text = f"{len(found.digests)} files, {len(found.keys)} engines and models; --json writes them down"
    return finish(Result(command="bundle inventory", data=codec.to_data(found), text=text), as_json=as_json)


def keygen(
    output: Annotated[str, typer.Argument(metavar="FILE", help="FILE.key is written, and FILE.pub.")],
    as_json: Json = False,
) -> int:
    """Make a pair of keys: bundles are signed with FILE.key, which stays secret; targets get FILE.pub."""
    from appliance.flows.bundle import sign

    key, secret, public = sign.keygen(Path(output).absolute())
    data = {"id": key.id, "key": key.text, "secret_file": str(secret), "public_file": str(public)}
    text = f"key {key.id}\nsecret  {secret}  (keep it; who has it can sign for you)\npublic  {public}\n{key.text}"
    return finish(Result(command="bundle keygen", data=data, text=text), as_json=as_json)


def _models(here: "Site", words: list[str], terms: "Terms", host: "Host | None") -> "tuple[ModelSpec, ...]":
    from appliance.domain.spec import ModelSpec
    from appliance.flows import names, planning

    there = {one.name: one for one in planning.read_spec(here)[0].models} if words else {}
    found = []
    for word in words:
        name, _, source = word.partition("=")
        if not source and name in there:
            found.append(there[name])
            continue
        asked = ModelSpec(name=name, source=source)
        found.append(names.resolve(here, asked, names.Wish(), terms, host).model)
    return tuple(sorted(found, key=lambda one: one.name))


def _signing(secret: str, password_file: str) -> "Sign":
    from appliance.flows.bundle import sign

    return sign.signing(Path(secret), Path(password_file) if password_file else None)


def _wish(
    file: str, parts_dir: list[str] | None, trust: list[str] | None, *, allow_unsigned: bool = False,
    allow_older: bool = False, first: str = "",
) -> "Wish":  # fmt: skip
    from appliance.flows.bundle.install import Wish
    from appliance.flows.bundle.trust import read_key

    return Wish(
        path=Path(file),
        places=tuple(map(Path, parts_dir or ())),
        trusted=tuple(read_key(word) for word in trust or ()),
        first=read_key(first) if first else None,
        allow_unsigned=allow_unsigned,
        allow_older=allow_older,
    )


def _size(text: str) -> int:
    """Read `700M` or `4G`: bytes, in units of 1024."""
    from appliance.bundle.parts import SMALLEST

    found = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not found or not found[1].isascii():
        raise UsageError(f"--split {text!r} is no size", hint="for example 4G, or 700M")
    size = int(found[1]) * UNITS[found[2].upper()]
    if size < SMALLEST:
        raise UsageError(f"--split {text}: parts of {size} bytes; at least {SMALLEST}", hint="for example 4G, or 700M")
    return size
