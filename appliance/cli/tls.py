"""tls show, renew, use, acme."""

from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.flows.tls import Shown

Name = Annotated[
    list[str] | None,
    typer.Option(
        "--name", metavar="HOST", help="A host or address that it is for; may be repeated. Left out, as before."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="The gateway's certificate; no stream ends when it changes.")
    noun.command()(show)
    noun.command()(renew)
    noun.command()(use)
    noun.command()(acme)
    app.add_typer(noun, name="tls")


def show(
    authority: Annotated[
        bool, typer.Option("--ca", help="Print the authority's certificate instead, which clients have to trust.")
    ] = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show whom the certificate is for, how long it is valid, and its fingerprint."""
    from appliance.flows import tls

    here = site(prefix, as_json=as_json)
    if authority:
        text = tls.authority(here)
        return finish(Result(command="tls show", data={"authority": text}, text=text.rstrip()), as_json=as_json)
    return _report("tls show", tls.shown(here), as_json=as_json)


def renew(name: Name = None, prefix: Prefix = "", as_json: Json = False) -> int:
    """Make a new certificate, signed by the appliance's own authority, which stays what clients trust."""
    from appliance.certificates import check_name
    from appliance.flows import tls

    names = tuple(check_name(one) for one in name or ())
    return _report("tls renew", tls.renew(site(prefix, as_json=as_json), names), as_json=as_json)


def use(
    certificate: Annotated[str, typer.Argument(metavar="CERTIFICATE", help="PEM file of it and its chain.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="PEM file of its private key, mode 0600.")],
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Take over a certificate that somebody else has made; both files are copied, so it is for each renewal, too."""
    from appliance.flows import tls

    return _report("tls use", tls.use(site(prefix, as_json=as_json), certificate, key), as_json=as_json)


def acme(
    hosts: Annotated[list[str], typer.Argument(metavar="HOST", help="Names that lead to this machine.")],
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="Where the authority may write to.")] = "",
    agree_tos: Annotated[
        bool, typer.Option("--agree-tos", help="You agree to the authority's terms of service; needed the first time.")
    ] = False,
    server: Annotated[
        str, typer.Option(metavar="URL", help="The authority's ACME directory; Let's Encrypt's when left out.")
    ] = "",
    webroot: Annotated[
        str, typer.Option(metavar="DIR", help="What a web server here serves on port 80, where that is taken.")
    ] = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Get a certificate from an authority that all clients trust, by certbot, which renews it from then on."""
    import os

    from appliance.certbot import LETS_ENCRYPT, Order, check_host
    from appliance.certificates import check_name
    from appliance.flows import tls

    order = Order(
        hosts=tuple(dict.fromkeys(check_name(check_host(host)) for host in hosts)), email=email, agreed=agree_tos,
        server=server or LETS_ENCRYPT, webroot=os.path.abspath(webroot) if webroot else "",  # noqa: PTH100 - links stay
    )  # fmt: skip
    return _report("tls acme", tls.acme(site(prefix, as_json=as_json), order), as_json=as_json)


def _report(command: str, found: "Shown", *, as_json: bool) -> int:
    from datetime import UTC, datetime

    about = found.about
    ends = datetime.fromtimestamp(about.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    data = {
        "certificate": found.path, "names": about.names, "issuer": about.issuer, "expires": ends, "days": found.days,
        "sha256": about.sha256, "own": found.own, "authority": found.authority if found.own else "",
        "renewal": found.renewal,
    }  # fmt: skip
    lines = [
        f"certificate  {found.path}",
        f"for          {', '.join(about.names) or 'nobody: it names no host'}",
        f"issuer       {about.issuer}",
        f"expires      {ends}, in {found.days} days" if found.days >= 0 else f"expired      {ends}",
        f"sha256       {about.sha256}",
    ]
    lines += [f"renewal      {found.renewal}"] if found.renewal else []
    if found.own:
        lines += [f"authority    {found.authority}", "", "clients trust it by: llm-appliance tls show --ca >ca.pem"]
    return finish(Result(command=command, data=data, text="\n".join(lines)), as_json=as_json)
