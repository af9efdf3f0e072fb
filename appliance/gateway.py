"""The gateway: nginx with Lua in front of every model; one endpoint for each, one for all."""

import json
from typing import Final

from appliance.domain.changes import Command, Page
from appliance.domain.deployment import Deployment, Gateway

DIRECTORY: Final = "nginx"
"""Below the generation; also nginx's prefix, so that one configuration is checked and run."""
TRIPLETS: Final = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def pages(deployment: Deployment) -> tuple[Page, ...]:
    """Return nginx's configuration, its Lua, and the routes that it rereads by itself."""
    gateway, layout = deployment.gateway, deployment.layout
    run = f"{layout.run}/gateway"
    log = f"{layout.log}/gateway/access.log" if deployment.runtime == "systemd" else "/dev/stdout"
    listen = f"0.0.0.0:{gateway.inside}" if gateway.inside else deployment.spec.listen
    return (
        Page(
            path=f"{DIRECTORY}/nginx.conf",
            template="nginx/nginx.conf.j2",
            names={
                "root": gateway.root,
                "triplet": gateway.triplet,
                "listen": listen,
                "workers": gateway.workers,
                "run": run,
                "access_log": log,
                # nginx that root starts would otherwise give its workers to nobody, who may enter nothing here.
                "user": "root" if deployment.gateway_user == "root" else "",
            },
        ),
        *(Page(path=f"{DIRECTORY}/{name}", template=f"nginx/{name}", names={}) for name in ("gateway.lua", "scan.lua")),
        Page(path=f"{DIRECTORY}/gateway.json", names={"json": routes(gateway)}),
    )


def routes(gateway: Gateway) -> str:
    """Return the routes as the Lua side reads them."""
    models = {
        route.name: {
            "upstream_model": route.upstream_model,
            "health": route.health,
            "replicas": [{"name": name, "address": address} for name, address in route.replicas],
        }
        for route in gateway.routes
    }
    return json.dumps({"version": 1, "models": models}, indent=2, sort_keys=True) + "\n"


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
