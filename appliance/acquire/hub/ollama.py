"""Ollama's registry, by the routes that its own client asks: a manifest for each tag, its layers as blobs by digest.

The GGUF is planned and stored as any other, so that every engine that reads GGUF can serve it. What else a model is
made of (template, system prompt, parameters, licence) comes along in small files `ollama.*` beside it; the engine of
that name gives them to its server. That server's own pull would need a network, which engines have none of here, would
keep the bytes where neither a digest of ours nor a rollback reaches them, and would serve that one engine only.

Routes and media types are those of ollama/ollama: `server/images.go`, `server/internal/client/ollama/registry.go`.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from appliance.acquire.hub.listing import Listing, RemoteFile
from appliance.acquire.hub.reference import Reference
from appliance.acquire.hub.settings import Settings
from appliance.errors import ArtifactError
from appliance.system.web import Remote, WebError, content, patiently

PREFIX: Final = "ollama"
TITLE: Final = "Ollama's registry"
ACCEPT: Final = "application/vnd.docker.distribution.manifest.v2+json"
LAYER: Final = "application/vnd.ollama.image."
SIDE: Final = ("template", "system", "params", "messages", "license")
LARGEST: Final = 4 << 20
"""Bytes of a manifest; one has less than a thousand."""
BLOB: Final = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One part of a model."""

    kind: str
    """`model`, `template`, `params` …, or the whole media type where that is of somebody else."""
    sha256: str
    size: int


def home(settings: Settings) -> str:
    """Return the endpoint."""
    return f"{settings.ollama}/v2/"


def look(reference: Reference, settings: Settings) -> Listing:
    """Ask which layers a tag is made of now. Raises WebError or ArtifactError."""
    body = _manifest(reference, settings)
    layers, config = _layers(body, settings.ollama)
    model = _model(reference, layers)
    name = f"{reference.repository.rpartition('/')[2]}-{reference.revision}.gguf"
    files = [RemoteFile(path=f"sha256:{model.sha256}/{name}", size=model.size, sha256=model.sha256)]
    files += _side(layers, config)
    projector = any(layer.kind == "projector" for layer in layers)
    return Listing(
        reference=replace(reference, sha256=hashlib.sha256(body).hexdigest()),
        files=tuple(files),
        note="its projector for images is left out: it is served for text" if projector else "",
    )


def remote(reference: Reference, path: str, settings: Settings) -> Remote:
    """Return the address of a layer, which stands at the beginning of its path."""
    return Remote(url=f"{_repository(reference, settings)}/blobs/{path.partition('/')[0]}")


def hints(reference: Reference, settings: Settings) -> tuple[str, str]:  # noqa: ARG001 - the protocol's
    """Return what to do when access is denied, and when the registry cannot be reached."""
    return (
        f"private models need Ollama's own key: `ollama pull {reference.repository}` where it is, then give the file",
        "behind a mirror: llm-appliance config set hub.ollama https://MIRROR",
    )


def _manifest(reference: Reference, settings: Settings) -> bytes:
    """Return the bytes whose digest pins a model: of the tag, or of that digest where one is named."""
    at = _repository(reference, settings)

    def ask(path: str) -> bytes:
        where = Remote(url=f"{at}/{path}", headers=(("Accept", ACCEPT),))
        return patiently(lambda: content(where, certificates=settings.certificates, limit=LARGEST))

    if not reference.sha256:
        return ask(f"manifests/{reference.revision}")
    try:
        body = ask(f"blobs/sha256:{reference.sha256}")
    except WebError as error:
        if error.status != 404:
            raise
        # A mirror may keep manifests by their tags only.
        body = ask(f"manifests/{reference.revision}")
    if hashlib.sha256(body).hexdigest() != reference.sha256:
        reason = f"another one is {reference.revision} now"
        raise WebError(at, status=404, reason=reason, headers={"x-error-code": "RevisionNotFound"})
    return body


def _layers(body: bytes, server: str) -> tuple[tuple[Layer, ...], Layer | None]:
    """Take a manifest apart; it is outside data. Raises WebError."""
    try:
        data = json.loads(body)
        layers = tuple(map(_layer, data["layers"]))
        config = data.get("config") or {}
        return layers, _layer({**config, "mediaType": f"{LAYER}config"}) if config.get("digest") else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WebError(server, kind="other", reason="it does not answer as Ollama's registry does") from None


def _layer(data: dict[str, Any]) -> Layer:
    """Read one layer. Raises KeyError, TypeError, ValueError."""
    digest, size = BLOB.fullmatch(data["digest"]), data["size"]
    if not digest or not isinstance(size, int) or size < 0:
        raise ValueError(data["digest"])
    # Parameters may stand behind the type: `application/vnd.ollama.image.tensor; name=…`.
    return Layer(kind=data["mediaType"].partition(";")[0].removeprefix(LAYER), sha256=digest[1], size=size)


def _model(reference: Reference, layers: tuple[Layer, ...]) -> Layer:
    """Return the layer with the weights. Raises ArtifactError."""
    kinds = [layer.kind for layer in layers]
    if "adapter" in kinds:
        raise ArtifactError(
            f"{reference} is an adapter on top of another model", hint="take that model, and --lora NAME=DIR"
        )
    found = [layer for layer in layers if layer.kind == "model"]
    if len(found) == 1:
        return found[0]
    if "tensor" in kinds:
        why = "is there as single tensors, which Ollama alone reads"
    else:
        why = f"is in {len(found)} parts" if found else "holds no weights: it is served by Ollama's cloud"
    raise ArtifactError(f"{reference} {why}", hint="take another tag, or hf:OWNER/REPO:Q4_K_M")


def _side(layers: tuple[Layer, ...], config: Layer | None) -> list[RemoteFile]:
    """Return the small layers under names of ours; there may be several licences."""
    found: list[RemoteFile] = []
    counts: dict[str, int] = {}
    for layer in (*layers, *((config,) if config else ())):
        kind = "template" if layer.kind == "prompt" else layer.kind
        if kind not in SIDE and layer is not config:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        name = f"ollama.{kind}" + (f"-{counts[kind]}" if counts[kind] > 1 else "")
        path = f"sha256:{layer.sha256}/{name}"
        found.append(RemoteFile(path=path, size=layer.size, sha256=layer.sha256, side=True))
    return found


def _repository(reference: Reference, settings: Settings) -> str:
    name = reference.repository if "/" in reference.repository else f"library/{reference.repository}"
    return f"{settings.ollama}/v2/{name}"
