"""From a model's spec to a Model: where its files are, what their headers say, and their digests."""

import os
from dataclasses import replace
from pathlib import Path

from appliance import resources
from appliance.acquire import hub
from appliance.catalog import providers
from appliance.domain.changes import Record
from appliance.domain.deployment import Model
from appliance.domain.spec import SMOKE, ModelSpec
from appliance.domain.weights import WeightFile, Weights
from appliance.errors import ArtifactError
from appliance.report import Progress, work
from appliance.weights.digest import model_digest, sha256
from appliance.weights.inspect import inspect

NONE = "none"
"""Source of a model without weights, for the dummy engine."""
REMOTE = "remote"
"""Format of the weights of a model that a provider serves."""


def resolve(
    item: ModelSpec, record: Record | None, here: hub.Access, *, whole: bool = True, carried: tuple[Model, ...] = ()
) -> Model:
    """Return the model with digests; files that did not change since they were recorded are not read again.

    Without `whole`, only headers of a new model are read and its digests stay empty: enough to tell whether it fits.
    A hub tells the digests with the headers, and is not asked at all about what is recorded or was carried here.
    """
    known = _recorded(item, record) or _named(item, carried)
    if hub.is_reference(item.source):
        return known or from_hub(item.name, item.source, here)
    if item.source == NONE or providers.is_remote(item.source):
        form = NONE if item.source == NONE else REMOTE
        weights = Weights(format=form, architecture=form, files=())
        return Model(name=item.name, source=item.source, weights=weights, digest=model_digest(()))
    path = resources.SMOKE / "smoke.gguf" if item.source == SMOKE else Path(item.source)
    if known and (not path.exists() or _unchanged(known)):
        return known
    weights = inspect(path)
    if not whole and not known:
        return Model(name=item.name, source=item.source, weights=weights, digest="")
    files = tuple(_digested(file, here.progress) for file in weights.files)
    if item.source == SMOKE:
        # Small enough to be read each time, so that a plan does not depend on when the appliance was unpacked.
        files = tuple(replace(file, modified=0) for file in files)
    return Model(name=item.name, source=item.source, weights=replace(weights, files=files), digest=model_digest(files))


def from_hub(name: str, source: str, here: hub.Access) -> Model:
    """Return a model from a hub, planned from its headers. Raises SpecError or ArtifactError."""
    found = hub.find(source, here)
    return Model(name=name, source=source, weights=found.weights, digest=model_digest(found.weights.files))


def pinned(item: ModelSpec, here: hub.Access) -> ModelSpec:
    """Return the model with its hub and the commit of now in its source. Raises SpecError or ArtifactError."""
    if not hub.is_reference(item.source):
        return item
    return replace(item, source=hub.find(item.source, here).source)


def _recorded(item: ModelSpec, record: Record | None) -> Model | None:
    return _named(item, record.deployment.models if record else ())


def _named(item: ModelSpec, models: tuple[Model, ...]) -> Model | None:
    return next((model for model in models if (model.name, model.source) == (item.name, item.source)), None)


def _unchanged(model: Model) -> bool:
    """Compare size and time of modification; a file that was replaced shows a new one of either."""
    try:
        statuses = [os.stat(file.path) for file in model.weights.files]  # noqa: PTH116
    except OSError:
        return False
    return all(
        (status.st_size, status.st_mtime_ns) == (file.size, file.modified)
        for status, file in zip(statuses, model.weights.files, strict=True)
    )


def _digested(file: WeightFile, progress: Progress) -> WeightFile:
    try:
        modified = os.stat(file.path).st_mtime_ns  # noqa: PTH116
        with work(progress, f"reading {file.name}", file.size) as bar:
            return replace(file, sha256=sha256(file.path, bar.advance), modified=modified)
    except OSError as error:
        raise ArtifactError(f"{file.path}: {error.strerror}") from error
