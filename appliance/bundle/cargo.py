"""What a bundle is for: the models that it serves, as they were asked for, and the engines that serve them."""

import re
from dataclasses import dataclass, field, replace
from typing import Final

from appliance import codec
from appliance.domain.deployment import Artifact, Deployment, Model
from appliance.domain.spec import Images, ModelSpec
from appliance.errors import ArtifactError, SpecError

MADE: Final = re.compile(r"[:-][0-9a-f]{12}$")
"""What the name of an image of ours ends in: a digest of its recipe, and of the processor where that matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """The plan in a bundle. Where on the target each model goes is decided there, by its own GPUs and memory."""

    specs: tuple[ModelSpec, ...]
    models: tuple[Model, ...]
    artifacts: tuple[Artifact, ...]
    runtime: str = "auto"
    """What its engines are made for: `compose` for images, else whatever works there."""
    images: Images = field(default_factory=Images)
    """How images and compiled engines were made: their names follow from it, so that the target must say the same."""


def of(deployment: Deployment) -> Cargo:
    """Return what of a plan goes into a bundle: nothing in it depends on when, or how busy the machine was."""
    boxed = any(one.kind == "image" for one in deployment.artifacts)
    return Cargo(
        specs=deployment.spec.models,
        models=tuple(_timeless(model) for model in deployment.models),
        artifacts=deployment.artifacts,
        runtime=deployment.runtime if boxed else "auto",
        images=deployment.spec.images if boxed else Images(portable=deployment.spec.images.portable),
    )


def alike(one: Artifact, other: Artifact) -> bool:
    """Tell whether two are the same but for the processor that they are compiled for."""
    return one.kind in ("build", "image") and _anywhere(one) == _anywhere(other)


def _anywhere(one: Artifact) -> Artifact:
    ref = one.ref
    if one.kind == "image" and one.recipe:
        ref = MADE.sub("", ref)
    return replace(one, digest="", twin="", ref=ref)


def dump(cargo: Cargo) -> bytes:
    """Return the bytes of the plan of a bundle."""
    return codec.dump_canonical(cargo)


def load(content: bytes, *, source: str) -> Cargo:
    """Read the plan of a bundle. Raises ArtifactError."""
    try:
        return codec.load_json(Cargo, content, source=source)
    except SpecError as error:
        raise ArtifactError(
            f"plan in {error.message}", hint="another version of llm-appliance made it: run its .install"
        ) from None


def _timeless(model: Model) -> Model:
    files = tuple(replace(file, modified=0) for file in model.weights.files)
    return replace(model, weights=replace(model.weights, files=files))
