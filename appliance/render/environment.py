"""The variables of an engine: what holds for all, what its module says, what the operator adds."""

from appliance.domain.deployment import Deployment
from appliance.domain.service import Launch, Service
from appliance.engines import VISIBILITY, engine

OFFLINE = ("HF_HUB_OFFLINE", "1")
"""Every file is in the store before an engine starts; one that looks for updates would only wait for a network."""

Variables = tuple[tuple[str, str], ...]


def variables(deployment: Deployment, service: Service, launch: Launch) -> Variables:
    """Return each variable once; what stands further down has the last word."""
    item = next(item for item in deployment.spec.models if item.name == service.model)
    found = {
        **dict(_hubs(deployment, service)),
        **dict(launch.env),
        **dict(_gpus(service)),
        **dict(deployment.spec.environment),
        **dict(item.environment),
    }
    return tuple(found.items())


def _hubs(deployment: Deployment, service: Service) -> Variables:
    """Where models come from, for whatever an engine may ask a hub beside its weights, and where it may keep that."""
    if service.remote:
        return ()
    hub = deployment.spec.hub
    source = next(model.source for model in deployment.models if model.name == service.model)
    switch = getattr(engine(service.engine), "MODELSCOPE", "")
    return (
        OFFLINE,
        ("HF_HOME", f"{service.home}/huggingface"),
        *((("HF_ENDPOINT", hub.endpoint),) if hub.endpoint else ()),
        ("MODELSCOPE_CACHE", f"{service.home}/modelscope"),
        *((("MODELSCOPE_DOMAIN", hub.modelscope),) if hub.modelscope else ()),
        *(((switch, "True"),) if switch and source.startswith("ms:") else ()),
    )


def _gpus(service: Service) -> Variables:
    """Show a replica its own GPUs and no others; one that computes on the CPU sees none, whatever it was built for."""
    return ((VISIBILITY[service.vendor], ",".join(service.gpus)),) if service.gpus else ()
