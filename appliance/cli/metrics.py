"""metrics show, install, gpu."""

from typing import Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Counters for Prometheus, and a dashboard for Grafana.")
    noun.command()(show)
    noun.command()(install)
    noun.command()(gpu)
    app.add_typer(noun, name="metrics")


def show(prefix: Prefix = "", as_json: Json = False) -> int:
    """Say where counters are, and who may see them."""
    from appliance.flows import metrics

    url = metrics.url(site(prefix, as_json=as_json))
    rows = {
        "gateway": (f"{url}/metrics", "requests, errors, times, tokens by model and key, replicas up"),
        "replicas": (f"{url}/gateway/stat", "the same of each replica, as JSON"),
        "engines": (f"{url}/gateway/engines", "where each engine's own counters are, as Prometheus finds them"),
        "gpus": ("llm-appliance metrics gpu", "memory of GPUs, as their vendors' tools tell it"),
    }
    lines = [f"{name:9} {where:42} {about}" for name, (where, about) in rows.items()]
    lines.append("From this machine while there are no keys; else with one: llm-appliance keys add NAME --metrics")
    data = {name: where for name, (where, _) in rows.items()}
    return finish(Result(command="metrics show", data=data, text="\n".join(lines)), as_json=as_json)


def install(
    directory: Annotated[
        str, typer.Argument(metavar="[DIR]", help="Where the files are written; left out, they are printed.")
    ] = "",
    url: Annotated[str, typer.Option(metavar="URL", help="The gateway, as Prometheus reaches it.")] = "",
    key_file: Annotated[
        str, typer.Option(metavar="FILE", help="Where Prometheus reads a key made with `keys add NAME --metrics`.")
    ] = "",
    ca_file: Annotated[str, typer.Option(metavar="FILE", help="What it checks the gateway's certificate by.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that say something else.")] = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Write a configuration for Prometheus and a dashboard for Grafana."""
    from appliance.flows import metrics

    here = site(prefix, as_json=as_json)
    files = metrics.files(here, url, key_file, ca_file)
    if not directory:
        text = files[metrics.NAMES[0]].rstrip()
        return finish(Result(command="metrics install", data={"files": files}, text=text), as_json=as_json)
    changed = metrics.install(here, directory, files, force=force)
    lines = [*changed, f"changed={len(changed)}"]
    data = {"changed": changed}
    return finish(Result(command="metrics install", data=data, text="\n".join(lines)), as_json=as_json)


def gpu(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="For node_exporter's textfile collector.")
    ] = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Print the GPUs' memory in Prometheus' text format, as it is now."""
    from appliance.flows import metrics

    text = metrics.gpus(site(prefix, as_json=as_json), output)
    return finish(Result(command="metrics gpu", data={"text": text}, text=text.rstrip()), as_json=as_json)
