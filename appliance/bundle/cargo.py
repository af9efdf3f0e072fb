"""What a bundle is for: the models that it serves, as they were asked for, and the engines that serve them."""

from dataclasses import dataclass, replace

from appliance import codec
from appliance.domain.deployment import Artifact, Deployment, Model
from appliance.domain.spec import ModelSpec
from appliance.errors import ArtifactError, SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """The plan in a bundle. Where on the target each model goes is decided there, by its own GPUs and memory."""

    specs: tuple[ModelSpec, ...]
    models: tuple[Model, ...]
    artifacts: tuple[Artifact, ...]


def of(deployment: Deployment) -> Cargo:
    """Return what of a plan goes into a bundle: nothing in it depends on when, or how busy the machine was."""
    return Cargo(
        specs=deployment.spec.models,
        models=tuple(_timeless(model) for model in deployment.models),
        artifacts=deployment.artifacts,
    )


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
