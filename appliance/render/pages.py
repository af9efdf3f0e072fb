"""Renders every page of a deployment into a Changeset."""

import hashlib
import json
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING

from appliance import certbot, codec, gateway, resources
from appliance.domain.changes import Changeset, File, Page, Unit
from appliance.domain.deployment import Deployment
from appliance.domain.service import Program
from appliance.engines import engine, health
from appliance.errors import ApplianceError
from appliance.render import quoting
from appliance.render.environment import variables
from appliance.runtimes import runtime

if TYPE_CHECKING:
    import jinja2

DEPLOYMENT = "deployment.json"
"""The plan itself, in the generation that it made."""
COMPLETION = (
    Page(path="/usr/local/share/bash-completion/completions/llm-appliance", template="completion/llm-appliance.bash"),
    Page(path="/usr/local/share/zsh/site-functions/_llm-appliance", template="completion/_llm-appliance"),
    Page(
        path="/usr/local/share/fish/vendor_completions.d/llm-appliance.fish", template="completion/llm-appliance.fish"
    ),
)
"""What makes each shell complete our command line; under a prefix `--show-completion` is there."""


def render(deployment: Deployment, spec_files: tuple[File, ...] = ()) -> Changeset:
    """Return all files of a deployment; `spec_files` are the operator's own, byte for byte."""
    units, together = _together(deployment, launches(deployment))
    pages = (
        *(COMPLETION if deployment.layout.prefix == "/" else ()),
        *gateway.pages(deployment),
        *certbot.pages(deployment),
        *runtime(deployment.runtime).pages(deployment, units),
        *together,
        *(page for unit in units for page in engine(unit.service.engine).pages(unit.service)),
    )
    plan = File(path=DEPLOYMENT, content=codec.dump_json(deployment).encode())
    files = tuple(_file(page) for page in pages)
    return Changeset(deployment=deployment, files=(plan, *spec_files, *files))


def launches(deployment: Deployment) -> tuple[Unit, ...]:
    """Return each service with its argv and environment."""
    return tuple(
        Unit(
            service=service, launch=replace(launch, env=variables(deployment, service, launch)), health=health(service)
        )
        for service in deployment.started
        for launch in (engine(service.engine).launch(service),)
    )


def _together(deployment: Deployment, units: tuple[Unit, ...]) -> tuple[tuple[Unit, ...], tuple[Page, ...]]:
    """Start services that are several programs by the one that watches over them, which reads a page of its own.

    The page's digest is among the words: when the page changes the unit does, and so the service is restarted.
    """
    started, pages = [], []
    for unit in map(_relayed, units):
        if not unit.launch.programs:
            started.append(unit)
            continue
        text = json.dumps([asdict(program) for program in unit.launch.programs], indent=1) + "\n"
        page = Page(path=f"launch/{unit.service.name}.json", names={"json": text})
        argv = (
            deployment.python, "-m", "appliance.system.launch", f"{deployment.layout.current}/{page.path}",
            hashlib.sha256(text.encode()).hexdigest(),
        )  # fmt: skip
        pages.append(page)
        started.append(replace(unit, launch=replace(unit.launch, argv=argv, programs=())))
    return tuple(started), tuple(pages)


def _relayed(unit: Unit) -> Unit:
    """Start what leads from the socket to the port as soon as the engine is ready: until then nobody can come in."""
    service, launch = unit.service, unit.launch
    if not service.relayed:
        return unit
    place = f"127.0.0.1:{service.port}"
    *first, last = launch.programs or (Program(argv=launch.argv),)
    if unit.health and not last.ready and not last.once:
        last = replace(last, ready=f"{place}{unit.health}")
    relay = Program(argv=("{python}", "-m", "appliance.system.relay", service.socket, place))
    return replace(unit, launch=replace(launch, argv=(), programs=(*first, last, relay)))


def _file(page: Page) -> File:
    if "json" in page.names:
        return File(path=page.path, content=str(page.names["json"]).encode(), mode=page.mode)
    source = resources.data(f"templates/{page.template}")
    if not page.template.endswith(".j2"):
        return File(path=page.path, content=source.read_bytes(), mode=page.mode)
    import jinja2

    # The digest covers what this file depends on and nothing else: another model must not change this one's unit.
    digest = hashlib.sha256(repr((page.template, sorted(page.names.items()))).encode()).hexdigest()[:12]
    try:
        text = _environment().get_template(page.template).render(**page.names, digest=digest)
    except jinja2.UndefinedError as error:
        raise ApplianceError(f"template {page.template}: {error}") from error
    return File(path=page.path, content=text.encode(), mode=page.mode)


@cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.data("templates")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML: each output grammar has its own filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(quoting.FILTERS)
    return environment
