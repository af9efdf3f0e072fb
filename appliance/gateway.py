"""The gateway: nginx with Lua in front of every model; one endpoint for each, one for all."""

import ipaddress
import json
import re
from dataclasses import asdict
from typing import Final

from appliance.domain.changes import Command, Page
from appliance.domain.deployment import Deployment, Gateway, Remote, Route, Service
from appliance.errors import SpecError

DIRECTORY: Final = "nginx"
"""Below the generation; also nginx's prefix, so that one configuration is checked and run."""
TRIPLETS: Final = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
LUA: Final = (
    "gateway.lua",
    *(
        f"gateway/{name}.lua"
        for name in (
            "balance", "body", "counts", "engines", "errors", "file", "health", "keys", "limits", "mapped", "metrics",
            "multipart", "own", "page", "paths", "queue", "remote", "report", "requests", "resolver", "routes", "scan",
            "usage",
        )
    ),
)  # fmt: skip
"""What runs inside of nginx, as it lies below templates/nginx/."""
PAGE: Final = ("page/index.html", "page/page.css", "page/page.js", "page/page.svg")
"""What a browser is given at `/`, as it lies below templates/nginx/."""
URL: Final = re.compile(r"(https?)://(\[[0-9a-fA-F:.]+\]|[^/:@?#]+)(?::([0-9]{1,5}))?(/[^?#]*)?")
"""Scheme, host, port and path of a provider's address."""
DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def pages(deployment: Deployment) -> tuple[Page, ...]:
    """Return nginx's configuration, its Lua, and the routes that it rereads by itself."""
    log = f"{deployment.layout.log}/gateway/access.log" if deployment.runtime == "systemd" else "/dev/stdout"
    # nginx that root starts would otherwise give its workers to nobody, who may enter nothing here.
    user = "root" if deployment.gateway_user == "root" else ""
    names = {
        **configuration(deployment.gateway),
        "listen": f"0.0.0.0:{inside}" if (inside := deployment.gateway.inside) else deployment.spec.listen,
        "run": f"{deployment.layout.run}/gateway",
        "inside": f"unix:{deployment.layout.inside}",
        "access_log": log,
        "user": user,
    }
    return (
        Page(path=f"{DIRECTORY}/nginx.conf", template="nginx/nginx.conf.j2", names=names),
        *(Page(path=f"{DIRECTORY}/{name}", template=f"nginx/{name}", names={}) for name in (*LUA, *PAGE)),
        Page(path=f"{DIRECTORY}/gateway.json", names={"json": routes(deployment)}),
        Page(path=f"{DIRECTORY}/page.json", names={"json": shown(deployment)}),
    )


def configuration(gateway: Gateway) -> dict[str, object]:
    """Return what nginx.conf says of a gateway, whatever machine it is on."""
    remotes = {remote.url: remote for route in gateway.routes if (remote := route.remote)}
    hosts = {upstream(remote): remote for remote in remotes.values()}
    secure = any(url.startswith("https:") for url in remotes)
    return {
        "root": gateway.root,
        "triplet": gateway.triplet,
        "workers": gateway.workers,
        "remotes": [{"upstream": name} for name in sorted(hosts)],
        "ca_file": gateway.ca_file if secure else "",
        "tls": asdict(gateway.tls) if gateway.tls else None,
    }


def upstream(remote: Remote) -> str:
    """Return the name of nginx's block for a provider's host: scheme, host and port, in letters that it takes."""
    scheme, host, port, _ = _place(remote)
    return f"{scheme}-{host.replace(':', '-')}-{port}"


def _place(remote: Remote) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path. Raises SpecError for what is no address."""
    found = URL.fullmatch(remote.url)
    if not found:
        raise SpecError(f"{remote.url!r} is no provider's address", hint="for example https://api.example.com/v1")
    scheme, host, port, path = found.groups("")
    return scheme, host.strip("[]").lower(), int(port or DEFAULT_PORTS[scheme]), path.rstrip("/")


def routes(deployment: Deployment) -> str:
    """Return the routes as the Lua side reads them."""
    gateway = deployment.gateway
    document: dict[str, object] = {
        "version": 1,
        "models": {route.name: _route(route) for route in gateway.routes},
        "aliases": dict(gateway.aliases),
        "splits": {name: dict(parts) for name, parts in gateway.splits},
        "open": gateway.open,
        "keys": deployment.layout.keys,
    }
    if gateway.cors:
        document["cors"] = list(gateway.cors)
    hosts = deployment.spec.gateway.hosts.lower()
    if ipaddress.ip_address(gateway.host).is_loopback and hosts != "*":
        document["hosts"] = [name for name in hosts.split(",") if name]
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def shown(deployment: Deployment) -> str:
    """Return what the status page says of the plan: engines, and what they were given of the memory."""
    gateway, spec = deployment.gateway, deployment.spec
    replicas = {item.name: [one for one in deployment.services if one.model == item.name] for item in spec.models}
    models = {
        item.name: {
            "engine": _engine(replicas[item.name][0]),
            "task": item.tuning.task,
            "context": replicas[item.name][0].setting.context,
            "loads": {one.name: {load.device: load.total for load in one.loads} for one in replicas[item.name]},
        }
        for item in spec.models
    }
    document = {"on": spec.gateway.page, "models": models, "devices": [asdict(one) for one in gateway.devices]}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _engine(service: Service) -> str:
    if service.remote:
        return f"provider {_place(service.remote)[1]}"
    on = "" if service.accelerator == "cpu" else f" ({service.accelerator})"
    return f"{service.engine} {service.version}{on}"


def _route(route: Route) -> dict[str, object]:
    chosen: dict[str, object] = {
        "fallback": route.fallback or None,
        "queue": route.queue,
        "retry": "before_first_byte" if route.resend else None,
        "keepalive": route.keepalive or None,
        "nameless": route.nameless or None,
        "remote": remote(route.remote) if route.remote else None,
        "metrics": route.metrics or None,
    }
    limit = {"limit": route.limit} if route.limit else {}
    return {
        "upstream_model": route.upstream_model,
        "health": route.health,
        "balance": route.balance,
        "paths": dict(route.paths),
        "replicas": [{"name": name, "address": address, **limit} for name, address in route.replicas],
        **{key: value for key, value in chosen.items() if value is not None},
    }


def remote(place: Remote) -> dict[str, object]:
    """Return a provider as the Lua side reads it."""
    scheme, host, port, path = _place(place)
    name = f"[{host}]" if ":" in host else host
    return {
        "scheme": scheme,
        "host": host,
        "port": port,
        "authority": name if port == DEFAULT_PORTS[scheme] else f"{name}:{port}",
        "path": path,
        "query": place.query,
        "header": place.header.lower(),
        "key_file": place.key_file,
        "upstream": upstream(place),
    }


def check(deployment: Deployment, generation: str) -> tuple[Command, ...]:
    """`nginx -t` on the files of a generation, as the user that will run it."""
    gateway = deployment.gateway
    if gateway.image:
        return ()  # the runtime checks it with the nginx in that image
    return (
        Command(
            argv=(gateway.program, "-e", "stderr", "-p", f"{generation}/{DIRECTORY}/", "-c", "nginx.conf", "-t"),
            env=(("LD_LIBRARY_PATH", gateway.ld_library_path),),
            user=deployment.gateway_user,
            group=deployment.group,
            # It opens the log too, and another user's pipe it may not.
            stdout="/dev/null",
            timeout=30,
        ),
    )
