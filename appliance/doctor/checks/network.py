"""The port of the gateway, and proxies on the way out."""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.check import error, info, looks_for, warning
from appliance.doctor.facts import Facts
from appliance.domain.finding import Finding
from appliance.domain.host import Host

LOCAL: Final = frozenset({"localhost", "127.0.0.1", "127.0.0.0/8", "*"})


@looks_for("port-taken", "another program has the port that the gateway is to listen on")
def port(host: Host, facts: Facts) -> Iterator[Finding]:
    """Our own gateway does not count."""
    if not facts.port_taken:
        return
    spec = facts.spec
    held = next((item.holder for item in host.ports if item.port == spec.port), "")
    holder = facts.port_holder or held
    yield error(
        spec.listen,
        f"port {spec.port} is taken{' by ' + holder if holder else ''}",
        f"ss -ltnp 'sport = :{spec.port}'",
        f"stop it, or choose another: llm-appliance install --listen {_next(spec.listen, spec.port)}",
        prevents=True,
    )


def _next(listen: str, port: int) -> str:
    return f"{listen.rpartition(':')[0]}:{port + 1 if port < 65535 else 8080}"


@looks_for("proxy-case", "a proxy variable is set in one spelling only")
def spelling(host: Host, facts: Facts) -> Iterator[Finding]:
    """Some of them, curl and apt, take http_proxy in lower case only, others want capitals."""
    names = {name for name, _ in host.proxies}
    for name in sorted({name.lower() for name in names}):
        there = names & {name, name.upper()}
        if len(there) != 1:
            continue
        have = there.pop()
        want = name if have == name.upper() else name.upper()
        message = f"{have} is set and {want} is not; programs differ in which they read"
        remedy = f'export {want}="${have}"'
        yield warning(have, message, remedy) if want == "http_proxy" else info(have, message, remedy)


@looks_for("proxy-local", "calls to this machine itself would go to the proxy")
def local(host: Host, facts: Facts) -> Iterator[Finding]:
    """OpenAI's client and most others honour the variables, also for 127.0.0.1."""
    values = {name.lower(): value for name, value in host.proxies}
    proxied = [name for name in ("http_proxy", "all_proxy") if values.get(name)]
    spared = {part.strip() for part in values.get("no_proxy", "").split(",")}
    if proxied and not spared & LOCAL:
        message = f"{proxied[0]} is set and no_proxy does not name this machine: clients here would ask the proxy"
        yield warning("no_proxy", message, 'export no_proxy="localhost,127.0.0.1,::1${no_proxy:+,$no_proxy}"')
