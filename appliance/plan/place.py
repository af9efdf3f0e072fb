"""What a model gets, and what was tried for it."""

from dataclasses import dataclass

from appliance.domain.deployment import Refusal
from appliance.domain.host import Gpu
from appliance.domain.service import Load, Setting
from appliance.plan.choose import Candidate
from appliance.plan.room import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one replica gets."""

    gpus: tuple[Gpu, ...]
    setting: Setting
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a model gets."""

    candidate: Candidate
    places: tuple[Place, ...]
    """One for each replica."""
    steps: tuple[Refusal, ...]
    """Settings that were tried before and did not fit."""
    refused: tuple[Refusal, ...] = ()
    """Releases that were passed over, for what they need or for the memory that they take."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last layout of a candidate that did not fit."""

    setting: Setting
    loads: tuple[Load, ...]
    gpus: tuple[Gpu, ...]
    left: Room
    """What there was for it: the replicas before it have theirs."""
