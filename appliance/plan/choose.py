"""Which engine releases serve a model here, in the order of preference, and what they are made of on this machine."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from appliance.catalog import Catalog, requirements
from appliance.domain.deployment import Model, Reason, Refusal
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Artifact, Release
from appliance.domain.spec import ModelSpec
from appliance.engines import engine, engines, unable
from appliance.errors import HostError
from appliance.plan import drivers, fitness

RECIPE = "1"
"""Changes when the way of building changes, so that everything built before is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One release on GPUs of one kind: everything that can be told without counting memory says that it works."""

    release: Release
    """With the artifacts of the runtime's way only, each named by its digest."""
    gpus: tuple[Gpu, ...] = ()
    """All that may be used, equal among each other unless the operator named them; () = it computes on the CPU.
    They are `Host.devices`: a slice of a GPU is one of its own, and one process can use one slice only."""
    refused: tuple[Refusal, ...] = ()
    """What was passed over since the candidate before this one."""
    advice: str = ""
    """Which driver would let the GPUs work that are here and not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be said of one row of the catalog."""

    row: Release
    groups: tuple[tuple[Gpu, ...], ...]
    why: str
    """"" = it can serve the model on each of the groups."""
    absent: str
    """The vendor, where the only reason is that none of its GPUs is here."""
    reads: bool
    """The engine could serve this model, whatever the machine."""


def candidates(
    item: ModelSpec, model: Model, host: Host, catalog: Catalog, runtime: str = "systemd"
) -> tuple[Candidate, ...]:
    """Return what can serve the model, best first. Raises HostError with every reason when nothing can."""
    judged = tuple(verdicts(item, model, host, catalog, runtime))
    idle = not any(gpus for one in judged for gpus in one.groups)
    advice = _advice(judged, item, host, runtime) if idle else ""
    found: list[Candidate] = []
    passed: list[Verdict] = []
    for verdict in judged:
        if verdict.why:
            passed.append(verdict)
        for gpus in verdict.groups:
            row, unused = resolve(verdict.row, gpus, host, runtime), "" if gpus else advice
            found.append(Candidate(release=row, gpus=gpus, refused=together(passed), advice=unused))
            passed = []
    if not found:
        raise _nothing(item, model, passed, advice)
    return tuple(found)


def _advice(judged: Sequence[Verdict], item: ModelSpec, host: Host, runtime: str) -> str:
    """Say what would let the GPUs work that are here: another driver, or a compiler for what is built here."""
    driver = drivers.driver_that_would_do(host, [one.row for one in judged if one.reads], item.gpus, runtime)
    missing = next((one for one in judged if one.reads and "compiler (nvcc)" in one.why), None)
    compiler = f"{label(missing.row)} {missing.why}: install NVIDIA's CUDA toolkit" if missing else ""
    return "; ".join(filter(None, (driver, compiler)))


def release(
    item: ModelSpec, model: Model, host: Host, catalog: Catalog, runtime: str = "systemd"
) -> tuple[Release, Reason]:
    """Return the first candidate's release and why it is the one."""
    first = candidates(item, model, host, catalog, runtime)[0]
    return first.release, reason(item, first, first.refused)


def reason(item: ModelSpec, chosen: Candidate, refused: Sequence[Refusal]) -> Reason:
    """Return why this candidate was taken, after all those that were passed over."""
    asked = "asked for" if item.engine != "auto" else "the first of the catalog that works here"
    why = f"{asked}; {chosen.advice}" if chosen.advice else asked
    return Reason(subject=f"engine for {item.name}", chosen=label(chosen.release), why=why, refused=tuple(refused))


def label(row: Release) -> str:
    """Return how people are told of a release."""
    return f"{row.engine} {row.version} ({row.accelerator})"


def verdicts(item: ModelSpec, model: Model, host: Host, catalog: Catalog, runtime: str) -> Iterator[Verdict]:
    """Judge every row that is asked for, in the catalog's order, which is the order of preference."""
    if item.engine != "auto":
        engine(item.engine)
    rows = [row for row in catalog.releases if item.engine == row.engine or (item.engine == "auto" and not row.asked)]
    if not rows:
        raise HostError(f"the catalog holds no release of {item.engine}", hint="leave --engine out to choose")
    if item.version:
        rows = _of_version(item, rows)
    for row in rows:
        if host.arch not in row.arch and any(_same(row, other) and host.arch in other.arch for other in rows):
            continue  # the same release for another processor: the row for this one says what is to be said
        why = _refuse(row, item, model, host) or _idle(row, item, model, host)
        fit = fitness.Fit(why=why) if why else fitness.fit(row, host, item.gpus, runtime)
        yield Verdict(row=row, groups=fit.groups, why=fit.why, absent=fit.absent, reads=not why)


def _of_version(item: ModelSpec, rows: list[Release]) -> list[Release]:
    """Take the releases of the version that is asked for. Raises HostError with those that there are."""
    found = [row for row in rows if row.version == item.version]
    if not found:
        there = ", ".join(dict.fromkeys(f"{row.engine} {row.version}" for row in rows))
        engine_name = "" if item.engine == "auto" else f" of {item.engine}"
        raise HostError(f"the catalog holds no version {item.version}{engine_name}", hint=f"there are {there}")
    return found


def _refuse(row: Release, item: ModelSpec, model: Model, host: Host) -> str | None:
    """Ask the engine; one that a newer catalog names is not known here."""
    module = engines().get(row.engine)
    if module is None:
        return "this version of llm-appliance does not know the engine"
    return module.refuse(model, host, row) or unable(item, module, row.version) or None


def _idle(row: Release, item: ModelSpec, model: Model, host: Host) -> str:
    """Say why whole weights are not put on the CPU beside GPUs by themselves: moving some layers does better."""
    here = host.gpus or any(driver.failure for driver in host.drivers)
    if row.api != "cpu" or item.gpus == 0 or not here or model.weights.format == "none":
        return ""
    return "" if engine(row.engine).layers(model) else "would leave the GPUs idle and be slow; --gpus 0 asks for it"


def _same(row: Release, other: Release) -> bool:
    return (row.engine, row.version, row.accelerator) == (other.engine, other.version, other.accelerator)


def together(passed: Sequence[Verdict]) -> tuple[Refusal, ...]:
    """Say once what several releases of an engine in a row were passed over for."""
    groups = groupby(passed, key=lambda one: (one.row.engine, one.why if not one.absent else ""))
    return tuple(_refusal(tuple(group)) for _, group in groups)


def _refusal(passed: Sequence[Verdict]) -> Refusal:
    absent = list(dict.fromkeys(one.absent for one in passed if one.absent))
    *others, last = absent or [""]
    why = fitness.needs(f"{', '.join(others)} or {last}" if others else last) if absent else passed[0].why
    return Refusal(name=_span([one.row for one in passed]), why=why)


def gateway(catalog: Catalog, host: Host) -> Artifact:
    """Return nginx with Lua from this distribution's own packages."""
    subject = (RECIPE, host.os, host.os_version, host.arch, *catalog.gateway_packages)
    return Artifact(name="gateway", kind="debs", ref=" ".join(catalog.gateway_packages), digest=_digest(*subject))


def resolve(row: Release, gpus: tuple[Gpu, ...], host: Host, runtime: str) -> Release:
    """Name each artifact by everything that decides what its bytes will be on this machine."""
    artifacts = (_for(gpus, one) for one in fitness.ways(row, runtime))
    twin = next((_name(one, row, host) for one in row.artifacts if one.kind == "build"), "")
    named = tuple(
        replace(one, digest=_name(one, row, host), twin=twin if "NATIVE=ON" in one.pins else "") for one in artifacts
    )
    return replace(row, artifacts=named)


def portable(row: Release, host: Host) -> Release:
    """Return the release with all that is compiled here compiled for every processor of the architecture."""
    plain = replace(host, cpu_flags=())
    marked = (
        replace(one, portable=one.kind == "build" or (not row.torch and bool(requirements(one))))
        for one in row.artifacts
    )
    return replace(
        row, artifacts=tuple(replace(one, digest=_name(one, row, plain)) if one.portable else one for one in marked)
    )


def _for(gpus: tuple[Gpu, ...], artifact: Artifact) -> Artifact:
    """Say for which GPUs something is built, and of an image whose digest is known that it is that one."""
    if artifact.kind == "image" and artifact.digest:
        return replace(artifact, ref=f"{artifact.ref}@sha256:{artifact.digest}")
    codes = sorted({gpu.compute_capability.replace(".", "") for gpu in gpus if gpu.compute_capability})
    if artifact.kind != "build" or not codes:
        return artifact
    wanted = ";".join(f"{code}-real" for code in codes)
    return replace(artifact, pins=(*artifact.pins, f"CMAKE_CUDA_ARCHITECTURES={wanted}"))


def _name(artifact: Artifact, row: Release, host: Host) -> str:
    origin = (RECIPE, artifact.ref, artifact.source_sha256)
    if artifact.kind == "image":
        return artifact.digest or _digest(*origin)
    if artifact.kind == "build":
        compiler = (host.cuda_toolkit,) if row.api == "cuda" else ()
        return _digest(*origin, host.arch, *_processor(artifact, host), *artifact.pins, *compiler)
    if artifact.kind == "program":
        return _digest(*origin, dict(host.tools).get(artifact.ref, ""))
    lock = requirements(artifact)
    if not lock:
        return _digest(
            *origin,
            *artifact.pins,
            *artifact.indexes,
            *artifact.extras,
            *artifact.overrides,
            *artifact.provides,
            *artifact.libraries,
            host.python,
            host.arch,
        )
    # What has a torch is made of ready wheels; the others are compiled here, for this processor.
    flags = () if row.torch else _processor(artifact, host)
    return _digest(*origin, host.arch, *flags, host.python, lock)


def _processor(artifact: Artifact, host: Host) -> tuple[str, ...]:
    return ("portable",) if artifact.portable else host.cpu_flags


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _span(rows: Sequence[Release]) -> str:
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return label(first)
    versions = first.version if first.version == last.version else f"{first.version} … {last.version}"
    return f"{first.engine} {versions} ({len(rows)} builds)"


def _nothing(item: ModelSpec, model: Model, passed: Sequence[Verdict], advice: str) -> HostError:
    """Return the error with every reason, and the way out: another driver, or another form of the model."""
    said = "; ".join(f"{one.name}: {one.why}" for one in together(passed))
    gguf = "a GGUF file of the same model can be served by llama.cpp, on the CPU too"
    hints = (advice, gguf if model.weights.format == "safetensors" else "")
    return HostError(f"no engine can serve {item.name}: {said}", hint="; ".join(filter(None, hints)))
