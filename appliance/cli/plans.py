"""install, plan, apply, verify, uninstall."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.cli.doctor import Ignore
from appliance.cli.options import Catalog, DryRun, Json, Offline, OtherHost, Prefix, Replan
from appliance.cli.site import finish, remove_program, site
from appliance.errors import ExitCode, UsageError
from appliance.report import Result, amount_text

if TYPE_CHECKING:
    from appliance.domain.status import HandEdit
    from appliance.flows.converge import Converged
    from appliance.flows.planning import Edit, Planned
    from appliance.flows.site import Site

Runtime = Annotated[str, typer.Option("--runtime", help="auto, systemd, compose or supervisord.")]
Listen = Annotated[str, typer.Option("--listen", metavar="ADDRESS:PORT", help="Where the gateway listens.")]
Certificate = Annotated[
    str, typer.Option("--tls-certificate", metavar="FILE", help="PEM file of the gateway's certificate and its chain.")
]
CertificateKey = Annotated[
    str, typer.Option("--tls-key", metavar="FILE", help="Its private key; the gateway's user must be able to read it.")
]
Source = Annotated[
    str, typer.Option("--tls", metavar="own|off", help="own: a certificate by an authority of this appliance's own.")
]
ForNames = Annotated[
    list[str] | None,
    typer.Option(
        "--tls-name", metavar="HOST", help="Host or address that it is for; may be repeated. Else this one's."
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow an address that is not loopback, without keys.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(install)
    app.command()(plan)
    app.command()(apply)
    app.command()(verify)
    app.command()(uninstall)


def install(
    runtime: Runtime = "",
    listen: Listen = "",
    insecure: Insecure = False,
    tls_certificate: Certificate = "",
    tls_key: CertificateKey = "",
    tls: Source = "",
    tls_name: ForNames = None,
    catalog: Catalog = None,
    replan: Replan = False,
    ignore: Ignore = None,
    offline: Offline = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Install, or bring what is installed in line with the configuration."""
    from appliance.acquire.source import Source
    from appliance.certificates import check_name
    from appliance.flows import converge, planning

    here = site(prefix, as_json=as_json)
    edit = encrypted(here, settings(runtime, listen, insecure, tls_certificate, tls_key), tls)
    names = tuple(check_name(one) for one in tls_name or ())
    terms = planning.Terms(catalog=catalog, replan=replan, ignore=tuple(ignore or ()), offline=offline, names=names)
    if dry_run:
        planned = planning.planned(here, lambda spec: converge.with_smoke(edit(spec)), terms)
        return preview("install", planned, as_json=as_json)
    done = converge.install(here, Source(offline=offline), edit=edit, terms=terms)
    return report("install", done, as_json=as_json)


def plan(
    runtime: Runtime = "",
    listen: Listen = "",
    insecure: Insecure = False,
    tls_certificate: Certificate = "",
    tls_key: CertificateKey = "",
    catalog: Catalog = None,
    replan: Replan = False,
    host: OtherHost = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show what would run and why; exit code 10 when that differs from what is installed."""
    from appliance import codec
    from appliance.flows import converge, documents, planning

    edit = settings(runtime, listen, insecure, tls_certificate, tls_key)
    terms = planning.Terms(catalog=catalog, replan=replan)
    other = documents.read_host(host) if host else None
    here = site(prefix, as_json=as_json)
    planned = planning.planned(here, lambda spec: converge.with_smoke(edit(spec)), terms, other)
    deployment = planned.changes.deployment
    data = {"deployment": codec.to_data(deployment), "pending": planned.pending}
    code = ExitCode.PENDING if planned.pending else ExitCode.OK
    return finish(Result(command="plan", data=data, text=_plan_text(planned), exit_code=code), as_json=as_json)


def apply(
    file: Annotated[str, typer.Argument(help="A plan that `plan --json` wrote; - reads standard input.")],
    offline: Offline = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Put a plan from a file in force, exactly as it stands."""
    from appliance.acquire.source import Source
    from appliance.flows import converge, documents

    here = site(prefix, as_json=as_json)
    deployment = documents.load_plan(file)
    if dry_run:
        return preview("apply", converge.preview_plan(here, deployment), as_json=as_json)
    return report("apply", converge.apply_plan(here, deployment, Source(offline=offline)), as_json=as_json)


def verify(
    weights: Annotated[bool, typer.Option("--weights", help="Read all weights too, and compare digests.")] = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Ask every model for one real completion through the gateway."""
    from dataclasses import asdict

    from appliance.flows import operate
    from appliance.flows.site import installed

    here = site(prefix, as_json=as_json)
    read = operate.require_intact(here, installed(here)) if weights else 0
    checks = operate.check(here, installed(here))
    lines = [f"{item.model}: {item.answer.strip()!r} in {item.seconds:.2f} s{_exact(item.exact)}" for item in checks]
    lines += [f"weights: {amount_text(read)} are what was put into the store"] if weights else []
    data = {"checks": [asdict(item) for item in checks], "weights": read}
    return finish(Result(command="verify", data=data, text="\n".join(lines)), as_json=as_json)


def uninstall(
    purge_models: Annotated[bool, typer.Option("--purge-models", help="Remove the weights in the store too.")] = False,
    purge_keys: Annotated[bool, typer.Option("--purge-keys", help="Remove keys of clients and providers too.")] = False,
    keep_configuration: Annotated[
        bool, typer.Option("--keep-configuration", help="Leave appliance.yaml and models.d/ for the next install.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Remove exactly what was written here; weights and keys stay unless told otherwise."""
    import sys

    from appliance.flows import operate

    here = site(prefix, as_json=as_json)
    record = here.generations.record()
    paths = tuple(item.path for item in record.files) if record else ()
    if dry_run:
        paths = tuple(path for path in paths if not (keep_configuration and path.startswith(f"{here.layout.etc}/")))
        lines = [*paths, *(record.users if record else ()), *(record.groups if record else ())]
        return finish(Result(command="uninstall", data={"files": lines}, text="\n".join(lines)), as_json=as_json)
    if purge_models and sys.stdin.isatty() and not yes:
        typer.confirm("Remove all weights in the store too?", abort=True, err=True)
    left = operate.uninstall(
        here, purge_models=purge_models, purge_keys=purge_keys, keep_configuration=keep_configuration
    )
    text = "uninstalled" + "".join(f"\nleft behind: {path}" for path in left)
    code = finish(Result(command="uninstall", data={"removed": paths, "left": left}, text=text), as_json=as_json)
    remove_program(here.layout.prefix)
    return code


def preview(command: str, planned: "Planned", more: dict[str, Any] | None = None, *, as_json: bool) -> int:
    """Print what would change; `more` is for the JSON."""
    from appliance import codec

    text = _plan_text(planned) + ("\n\n" + planned.diff if planned.diff else "")
    deployment = codec.to_data(planned.changes.deployment)
    data = {"pending": planned.pending, "diff": planned.diff, "deployment": deployment, **(more or {})}
    return finish(Result(command=command, data=data, text=text), as_json=as_json)


def report(command: str, done: "Converged", more: dict[str, Any] | None = None, *, as_json: bool) -> int:
    """Print what was done, and how to use it; `more` is for the JSON."""
    from dataclasses import asdict

    from appliance.verify import url

    deployment, changed = done.deployment, done.report.changed
    base = url(deployment)
    data = {
        "changed": len(changed),
        "paths": changed,
        "generation": done.report.generation,
        "kept": done.report.kept,
        "edits": [asdict(item) for item in done.report.edits],
        "endpoint": f"{base}/v1",
        "models": [{"name": item.name, "endpoint": f"{base}/{item.name}/v1"} for item in deployment.models],
        "checks": [asdict(item) for item in done.checks],
        **(more or {}),
    }
    lines = [f"changed={len(changed)}"]
    lines += [f"kept your edit of a file of ours: {path}" for path in done.report.kept]
    lines += edited(done.report.edits)
    lines += [f"{item.model} answers: {item.answer.strip()}" for item in done.checks]
    lines += ["", f"all models   {base}/v1"] + [f"{item.name:12} {base}/{item.name}/v1" for item in deployment.models]
    return finish(Result(command=command, data=data, text="\n".join(lines)), as_json=as_json)


def edited(edits: "tuple[HandEdit, ...]") -> list[str]:
    """Return what somebody edited in files of ours, as differences from what was written."""
    said = [f"edited by hand: {one.path}{' (removed)' if one.gone else ''}" for one in edits]
    return said + [f"  {line}" for one in edits for line in one.diff.splitlines()]


def settings(runtime: str, listen: str, insecure: bool, certificate: str = "", key: str = "") -> "Edit":
    """Return the edit that the options ask for; an option that is not given leaves what is configured."""
    from appliance.domain.spec import ApplianceSpec, Tls
    from appliance.specfile import parse_listen

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        host, port = parse_listen(listen) if listen else (spec.host, spec.port)
        tls = Tls(certificate=_absolute(certificate), key=_absolute(key)) if certificate or key else spec.tls
        return replace(
            spec, runtime=runtime or spec.runtime, host=host, port=port, insecure=insecure or spec.insecure, tls=tls
        )

    return edit


def encrypted(here: "Site", edit: "Edit", word: str) -> "Edit":
    """Return the edit that switches to a certificate of our own, or to none. Raises UsageError."""
    from appliance.domain.spec import ApplianceSpec, Tls
    from appliance.flows.certificate import kept

    if word not in ("", "own", "off"):
        raise UsageError(f"--tls {word!r} is none", hint="own or off; one that you have: --tls-certificate, --tls-key")
    if not word:
        return edit

    def both(spec: ApplianceSpec) -> ApplianceSpec:
        return replace(edit(spec), tls=kept(here.layout) if word == "own" else Tls())

    return both


def _absolute(path: str) -> str:
    import os

    return os.path.abspath(path) if path else ""  # noqa: PTH100 - links stay: certificates are renewed behind them


def _plan_text(planned: "Planned") -> str:
    from appliance.cli.bars import bars

    deployment = planned.changes.deployment
    lines = []
    for reason in deployment.reasons:
        several = reason.why.split("; ")
        lines.append(f"{reason.subject:24} {reason.chosen}" + ("" if several[1:] else f": {reason.why}"))
        lines += [f"{'':24}   {part}" for part in several if several[1:]]
        lines += [f"{'':24}   not {one.name}: {one.why}" for one in reason.refused]
    lines += ["", *bars(deployment, planned.host), ""]
    if planned.elsewhere:
        return "\n".join([*lines, "a plan for another machine: `llm-appliance install` there makes the same"])
    lines.append(f"{len(planned.pending)} files would change" if planned.pending else "nothing would change")
    lines += [f"  {path}" for path in planned.pending]
    return "\n".join([*lines, *edited(planned.edits)])


def _exact(exact: bool) -> str:
    return ", exactly the known answer" if exact else ""
