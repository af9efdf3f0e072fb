"""Which models are known by name: one YAML file for each family, sizes and variants as data."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

from appliance import codec
from appliance.domain.weights import Layers
from appliance.errors import SpecError

DIRECTORY = Path(__file__).parent
KINDS: Final = ("chat", "embed", "rerank", "transcribe")
FORMATS: Final = ("bf16", "fp8", "mxfp8", "int8", "awq", "gptq", "int4", "nvfp4", "mxfp4", "gguf")
CACHES: Final = ("full", "window", "latent", "index", "recurrent")
REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9.:_-]{0,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a memory plan asks of a model beside its cache."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    feed_forward: int = 0
    """0 = not known."""
    experts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """Flags that an engine wants for a model: the parsers of its tool calls and thoughts, and how it is run."""

    engine: str
    flags: dict[str, str]
    """Without dashes; "" = a flag without a value."""
    since: str = ""
    """Oldest release that knows all of them."""
    recalled: bool = False
    """From memory; the names are the engine's, whether they go with this model was not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One form in which a model is published."""

    format: str
    hf: str
    """Repository at Hugging Face."""
    ms: str = ""
    """Repository at ModelScope; "" = none is known."""
    bits: int = 0
    """Of most weights; 0 for GGUF, where the quantisation says it."""
    bytes: int = 0
    """Of all weights, where that is known."""
    file: str = ""
    """GGUF file, with `{quantisation}` in it; "" = the repository has to be asked."""
    quantisations: tuple[str, ...] = ()
    """GGUF only."""
    recalled: bool = False
    """The quantisations are from memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model: a size of a family."""

    id: str
    kind: str
    parameters: float
    """Billions."""
    context: int
    """Tokens that it was trained for."""
    shape: Shape
    cache: tuple[Layers, ...]
    """() = it keeps nothing."""
    variants: tuple[Variant, ...]
    """As it was published first."""
    active: float = 0
    """Billions of parameters that one token uses; 0 = all."""
    architecture: str = ""
    """config.json's class; "" = not known."""
    aliases: tuple[str, ...] = ()
    ollama: str = ""
    """Its tag there, which is a name of it here too."""
    vision: bool = False
    licence: str = ""
    licence_verified: bool = False
    gated: bool = False
    """Its repository wants an account that has agreed to its terms."""
    gated_verified: bool = False
    recalled: bool = False
    """Shape and cache are from memory, on the large side."""
    options: tuple[Flags, ...] = ()
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One file."""

    family: str
    models: tuple[Entry, ...]
    aliases: tuple[str, ...] = ()
    """Names of the whole family; several families may share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """All families."""

    families: tuple[Family, ...] = field(default=())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every model."""
        return tuple(entry for family in self.families for entry in family.models)


def load(path: str | None = None, *, state: str = "") -> Shelf:
    """Return the models of a file, else of the catalog that is kept below `state`, else those of this version.

    A file that has engines only leaves the models as they are. Raises SpecError, UsageError.
    """
    from appliance.catalog import document

    for found in (document.file(path) if path is not None else None, document.kept(state)):
        if found and found.families:
            return found.models
    return shelf()


@cache
def shelf() -> Shelf:
    """Return the models that this version knows; read only when a name has to be looked up (0.2 s)."""
    paths = sorted(DIRECTORY.glob("*.yaml"), key=lambda path: path.stem)
    return check(Shelf(families=tuple(read(path.read_text(), source=f"catalog models/{path.name}") for path in paths)))


def read(text: str, *, source: str) -> Family:
    """Return one family. Raises SpecError with the path of what is wrong."""
    found = codec.load_yaml(Family, text, source=source)
    for problem in problems(found):
        raise SpecError(f"{source}: {problem}")
    return named(found)


def named(found: Family) -> Family:
    """Return a family whose models know it."""
    return replace(found, models=tuple(replace(entry, family=found.family) for entry in found.models))


def unnamed(found: Family) -> Family:
    """Return a family as its file has it."""
    return replace(found, models=tuple(replace(entry, family="") for entry in found.models))


def check(found: Shelf, source: str = "catalog models") -> Shelf:
    """Return the shelf when no name stands for two models of one size. Raises SpecError."""
    owners: dict[str, str] = {}
    for entry in found.entries:
        for name in dict.fromkeys(map(normal, (entry.id, *entry.aliases, *filter(None, (entry.ollama,))))):
            if name in owners:
                raise SpecError(f"{source}: {name} names both {owners[name]} and {entry.id}")
            owners[name] = entry.id
    return found


def normal(name: str) -> str:
    """Return a name as it is compared: `Qwen3:8B` is `qwen3-8b`."""
    return re.sub(r"[:_/]", "-", name.lower())


def problems(found: Family) -> Iterator[str]:
    """Tell what the types cannot hold, with the path of what is wrong."""
    for name in (found.family, *found.aliases):
        if not NAME.fullmatch(name):
            yield f"{name!r} cannot be a family's name"
    for number, entry in enumerate(found.models):
        yield from (f"models.{number} ({entry.id}): {problem}" for problem in _entry_problems(entry))


def _entry_problems(entry: Entry) -> Iterator[str]:
    for name in (entry.id, *entry.aliases, *filter(None, (entry.ollama,))):
        if not NAME.fullmatch(name):
            yield f"{name!r} cannot be a name"
    if entry.family:
        yield "family: is said at the top of the file"
    if entry.kind not in KINDS:
        yield f"kind: {entry.kind!r} is none of {', '.join(KINDS)}"
    if not (entry.parameters > 0 and entry.context > 0 and entry.variants):
        yield "parameters, context and variants must be said"
    for group in entry.cache:
        if group.kind not in CACHES or group.count < 1:
            yield f"cache: {group.kind!r} × {group.count}"
    for number, variant in enumerate(entry.variants):
        yield from (f"variants.{number}: {problem}" for problem in _variant_problems(variant))


def _variant_problems(variant: Variant) -> Iterator[str]:
    if variant.format not in FORMATS:
        yield f"format: {variant.format!r} is none of {', '.join(FORMATS)}"
    for repository in filter(None, (variant.hf, variant.ms)):
        if not REPOSITORY.fullmatch(repository):
            yield f"{repository!r} is no OWNER/REPOSITORY"
    if (variant.format == "gguf") != bool(variant.quantisations):
        yield "quantisations belong to gguf, and to nothing else"
    if (variant.format == "gguf") == bool(variant.bits):
        yield "bits must be said, but for gguf"
    if variant.file and "{quantisation}" not in variant.file:
        yield "file: {quantisation} is not in it"
