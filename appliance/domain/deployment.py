"""What will run here: services, gateway, artifacts, and the reason for each decision."""

from dataclasses import dataclass

from appliance.domain.gateway import Gateway
from appliance.domain.host import Podman
from appliance.domain.layout import Layout
from appliance.domain.release import Artifact
from appliance.domain.service import Service
from appliance.domain.spec import ApplianceSpec
from appliance.domain.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model whose files are known and digested."""

    name: str
    source: str
    weights: Weights
    digest: str
    """SHA-256 (hex) over the file names and digests: the model's directory in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A choice that was passed over, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a decision fell as it did."""

    subject: str
    chosen: str
    why: str
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One complete, serialisable plan: `apply` needs nothing else."""

    schema: int
    spec: ApplianceSpec
    layout: Layout
    runtime: str
    user: str
    """User that the engines run as; "" = whoever starts the appliance."""
    gateway_user: str
    group: str
    python: str
    """The interpreter of the appliance's own environment."""
    models: tuple[Model, ...]
    services: tuple[Service, ...]
    gateway: Gateway
    artifacts: tuple[Artifact, ...]
    reasons: tuple[Reason, ...]
    runtime_version: int = 0
    """systemd's, where that is the runtime, or starts it at boot."""
    podman: Podman | None = None
    """What runs the containers where Docker does not."""

    @property
    def started(self) -> tuple[Service, ...]:
        """The services that a runtime starts here."""
        return tuple(service for service in self.services if service.program)

    @property
    def passing(self) -> bool:
        """Whether it is only a step on the way from one plan to another."""
        return any(service.standin for service in self.services)

    @property
    def inside(self) -> str:
        """Where `Layout.inside` is on this machine, also when the gateway is in a container."""
        layout = self.layout
        return f"{layout.sockets}{layout.inside.removeprefix(layout.run)}" if self.gateway.image else layout.inside
