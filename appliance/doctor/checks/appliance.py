"""The appliance itself, where it is installed: files, links, services."""

from collections.abc import Iterator

from appliance import certbot
from appliance.doctor.check import error, info, looks_for, warning
from appliance.doctor.facts import Facts
from appliance.doctor.remedy import as_root
from appliance.doctor.validity import trouble
from appliance.domain.finding import WARNING, Finding
from appliance.domain.host import Host

INSTALL = "llm-appliance install"


@looks_for("spec-broken", "the operator's files cannot be read")
def spec(host: Host, facts: Facts) -> Iterator[Finding]:
    """Nothing can be planned until they can."""
    message, hint = facts.spec_failure
    if message:
        yield error(facts.layout.etc, message, *filter(None, (hint,)), prevents=True)


@looks_for("record-broken", "the record of what is installed cannot be read")
def record(host: Host, facts: Facts) -> Iterator[Finding]:
    """Without it nobody knows what is ours."""
    message, hint = facts.record_failure
    if message:
        yield error(f"{facts.layout.state}/record.json", message, *filter(None, (hint,)), prevents=True)


@looks_for("catalog-broken", "the updated catalog cannot be read")
def catalog(host: Host, facts: Facts) -> Iterator[Finding]:
    """Nothing can be planned until it can, or is taken back."""
    message, hint = facts.catalog_failure
    if message:
        yield error(f"{facts.layout.state}/catalog.json", message, *filter(None, (hint,)), prevents=True)


@looks_for("run-unfinished", "the last run ended before everything was healthy")
def unfinished(host: Host, facts: Facts) -> Iterator[Finding]:
    """The next run finishes its job, or takes it back."""
    if facts.record and not facts.record.confirmed:
        message = f"generation {facts.record.generation} was put in force and never found healthy"
        yield error("appliance", message, as_root(host, INSTALL))


@looks_for("generation-link", "the link to the generation in force is broken, or points elsewhere")
def link(host: Host, facts: Facts) -> Iterator[Finding]:
    """Services read their configuration through it."""
    if not facts.record:
        return
    wanted = f"generations/{facts.record.generation}"
    current = facts.layout.current
    if not facts.installed.generation_there:
        message = f"{facts.layout.state}/{wanted} is gone"
    elif not facts.installed.link:
        message = f"{current} is not there"
    elif facts.installed.link != wanted:
        message = f"{current} points to {facts.installed.link}, the record says {wanted}"
    else:
        return
    yield error(current, message, as_root(host, INSTALL))


@looks_for("file-missing", "files that were written are not there any more")
def files_missing(host: Host, facts: Facts) -> Iterator[Finding]:
    """The operator's own are no concern of ours: a model's that went is a model that is to go."""
    for path in facts.installed.missing:
        if path.startswith(f"{facts.layout.etc}/"):
            yield info(path, "is gone since the last install", as_root(host, INSTALL) + "   # puts that in force")
        else:
            yield error(path, "was written and is not there any more", as_root(host, INSTALL))


@looks_for("file-edited", "files that were written have been edited by hand")
def files_edited(host: Host, facts: Facts) -> Iterator[Finding]:
    """Drop-ins are the place for an operator's own settings; those are never touched."""
    for path in facts.installed.edited:
        if path.startswith(f"{facts.layout.etc}/"):
            yield info(path, "was edited since the last install", as_root(host, INSTALL) + "   # puts that in force")
            continue
        name = path.rpartition("/")[2]
        keep = (as_root(host, f"systemctl edit {name}") + "   # the place for it",) if name.endswith(".service") else ()
        message = "was edited by hand; the next change replaces it, and keeps a copy beside it"
        yield warning(path, message, *keep, as_root(host, INSTALL))


@looks_for("service-down", "a service that should run does not")
def services(host: Host, facts: Facts) -> Iterator[Finding]:
    """One that is stopped may have been stopped on purpose."""
    states = facts.installed.states
    for state in states:
        detail = f": {state.detail}" if state.detail else ""
        if state.state == "failed":
            yield error(state.name, f"failed{detail}", f"llm-appliance logs {_logged(state.name, facts)}")
    stopped = [state for state in states if state.state == "stopped"]
    if stopped:
        detail = f": {stopped[0].detail}" if stopped[0].detail else ""
        names = ", ".join(state.name for state in stopped)
        yield warning(names, f"stopped{detail}", as_root(host, "llm-appliance start"))


def _logged(name: str, facts: Facts) -> str:
    """Return the name that `logs` takes: replicas have it too, so it is the service's own."""
    services = facts.record.deployment.services if facts.record else ()
    return next((item.model for item in services if item.name == name), name)


@looks_for("gateway-silent", "the gateway runs and does not answer")
def gateway(host: Host, facts: Facts) -> Iterator[Finding]:
    """Not told where it is known to be down."""
    running = any(state.name == "gateway" and state.state == "running" for state in facts.installed.states)
    if running and facts.installed.answers is False:
        where = facts.record.deployment.spec.listen if facts.record else facts.spec.listen
        yield error("gateway", f"runs and does not answer on {where}", "llm-appliance logs gateway")


@looks_for("certificate-ends", "the gateway's certificate ends soon, has ended, or is not valid yet")
def certificate(host: Host, facts: Facts) -> Iterator[Finding]:
    """Clients refuse to talk to the gateway from that day on."""
    found = trouble(facts.certificate, facts.now)
    if not found:
        return
    use, place = as_root(host, "llm-appliance tls use"), certbot.lineage(facts.layout)
    if facts.spec.tls == certbot.kept(facts.layout):
        remedy: tuple[str, ...] = (as_root(host, "certbot renew"), f"{use} {place}/fullchain.pem {place}/privkey.pem")
    elif facts.certificate_own:
        remedy = (as_root(host, "llm-appliance tls renew"),)
    else:
        remedy = (f"{use} CERTIFICATE KEY   # once it has been renewed where it came from",)
    say = warning if found[0] == WARNING else error
    yield say(facts.spec.tls.certificate, found[1], *remedy)


@looks_for("account-missing", "a user that services run as is not there")
def account(host: Host, facts: Facts) -> Iterator[Finding]:
    """Installing makes it again."""
    if facts.record and facts.record.deployment.user and facts.engine.uid < 0:
        yield error(facts.engine.name, "there is no such user any more", as_root(host, INSTALL))


@looks_for("engine-missing", "an engine's or the gateway's program is not there")
def programs(host: Host, facts: Facts) -> Iterator[Finding]:
    """Its directory is taken for whole, so it has to go before it is made again."""
    for service, path in facts.installed.programs_missing:
        home = _home(path, facts.layout.state)
        clear = (as_root(host, f"rm -rf {home}"),) if home else ()
        yield error(service, f"{path} is not there", *clear, as_root(host, INSTALL))


def _home(path: str, state: str) -> str:
    """Return the directory that was made whole: `engines/NAME` or `gateway/DIGEST` below the state directory."""
    parts = path.removeprefix(f"{state}/").split("/")
    inside = path.startswith(f"{state}/") and len(parts) > 2 and parts[0] in ("engines", "gateway")
    return f"{state}/{parts[0]}/{parts[1]}" if inside else ""
