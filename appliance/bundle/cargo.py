"""What a bundle is for: the models that it serves, as they were asked for, and the engines that serve them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from appliance import codec
from appliance.domain.deployment import Deployment, Model
from appliance.domain.release import Artifact
from appliance.domain.spec import Images, ModelSpec
from appliance.errors import ArtifactError, SpecError

ATTACHED: Final = "attached"
"""Directory below the state with adapters and chat templates that came in bundles."""
PLACE: Final = re.compile(r"([0-9a-f]{64})((?:/[^/\\\x00-\x1f\x7f]{1,255})?)")
"""How a plan in a bundle names such files: by the digest of a component, and by their name in it."""
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


def of(deployment: Deployment, attached: Mapping[str, str] = MappingProxyType({})) -> Cargo:
    """Return what of a plan goes into a bundle: nothing in it depends on when, or how busy the machine was.

    `attached` names the files that are pointed to by path. Of keys it only says that there must be one.
    """
    boxed = any(one.kind == "image" for one in deployment.artifacts)
    return Cargo(
        specs=tuple(_moved(one, attached.__getitem__, f"{one.name}.key") for one in deployment.spec.models),
        models=tuple(_timeless(model) for model in deployment.models),
        artifacts=deployment.artifacts,
        runtime=deployment.runtime if boxed else "auto",
        images=deployment.spec.images if boxed else Images(portable=deployment.spec.images.portable),
    )


def landed(one: ModelSpec, state: str, secrets: str) -> ModelSpec:
    """Return a model's wish with paths of this machine: below the state, and below the directory of keys."""

    def path(word: str) -> str:
        found = PLACE.fullmatch(word)
        if not found or found[2] in ("/.", "/.."):
            raise ArtifactError(f"{one.name}: {word[:80]!r} is no file of a bundle")
        return f"{state}/{ATTACHED}/{found[1][:16]}{found[2]}"

    return _moved(one, path, f"{secrets}/{one.name}.key")


def paths(one: ModelSpec) -> tuple[str, ...]:
    """Return the files and directories beside its weights that a model is served with."""
    found = (one.tuning.chat_template, *(path for _, path in one.adapters))
    return tuple(path for path in found if path)


def _moved(one: ModelSpec, path: Callable[[str], str], key: str) -> ModelSpec:
    template = one.tuning.chat_template
    return replace(
        one,
        tuning=replace(one.tuning, chat_template=path(template) if template else ""),
        adapters=tuple((name, path(where)) for name, where in one.adapters),
        key_file=key if one.key_file else "",
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
