"""The forms that known models are published in, put into the order in which they are tried."""

from dataclasses import dataclass
from typing import Final

from appliance.catalog.models import Entry, Variant
from appliance.catalog.models.names import Found
from appliance.domain.weights import Weights
from appliance.errors import HostError
from appliance.plan import formats
from appliance.plan.outline import outline

TOLD: Final = 16
"""Forms that are named where the one asked for is not known."""
HUBS: Final = {"hf": "Hugging Face", "ms": "ModelScope", "ollama": "Ollama"}
USUAL: Final = ("Q4_K_M", "Q4_K", "MXFP4", "Q8_0")
"""What Ollama's tag of a size is quantised in, the first of these that the model is known in (inferred)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One form of one model."""

    entry: Entry
    variant: Variant
    quantisation: str
    """GGUF only."""
    hub: str
    weights: Weights
    """Of about the right size."""

    @property
    def label(self) -> str:
        """Return how people are told of it."""
        form = self.variant.format.upper() + (
            f" {self.variant.bits}-bit" if self.variant.format in ("awq", "gptq") else ""
        )
        return f"{self.entry.id} {self.quantisation or form}"

    @property
    def source(self) -> str:
        """Return where it comes from, as a spec says it."""
        if self.hub == "ollama":
            return f"ollama:{self.entry.ollama}"
        repository = self.variant.ms if self.hub == "ms" else self.variant.hf
        return f"{self.hub}:{repository}" + (f":{self.quantisation}" if self.quantisation else "")


def choices(entry: Entry, hub: str = "hf", quantisation: str = "") -> tuple[Choice, ...]:
    """Return the forms of a model that may be taken, the best first; () = there is none on that hub."""
    found = [
        Choice(entry=entry, variant=variant, quantisation=name, hub=hub, weights=outline(entry, variant, name))
        for variant in entry.variants
        if there(entry, variant, hub)
        for name in (formats.matching(variant, quantisation) if quantisation else formats.ladder(variant))
    ]
    if hub == "ollama":  # a tag is one file, in one quantisation
        names = (name for variant in entry.variants for name in variant.quantisations)
        first = min(
            names, key=lambda name: USUAL.index(name.upper()) if name.upper() in USUAL else len(USUAL), default=""
        )
        return tuple(one for one in found if one.quantisation == first)[:1]
    return tuple(sorted(found, key=_quality))


def there(entry: Entry, variant: Variant, hub: str) -> bool:
    """Tell whether a form of a model is published on a hub."""
    if hub == "ollama":
        return bool(entry.ollama) and variant.format == "gguf"
    return bool(variant.ms if hub == "ms" else variant.hf)


def offers(found: Found, quantisation: str, hub: str) -> tuple[Choice, ...]:
    """Return the forms of all models, the largest model first; of two equal ones that which the catalog has first."""
    ordered = sorted(found.entries, key=lambda entry: -entry.parameters)
    return tuple(one for entry in ordered for one in choices(entry, hub, quantisation))


def _quality(one: Choice) -> tuple[bool, int, int, int]:
    """Safetensors first: where no GPU reads them they are passed over."""
    form = one.variant.format
    order = formats.ORDER.index(form) if form in formats.ORDER else len(formats.ORDER)
    gguf = form == "gguf"
    return gguf, -one.variant.bits, order if not gguf else 0, 0 if gguf else -one.weights.size


def no_form(found: Found, quantisation: str, hub: str) -> HostError:
    """Return the error for a form that nothing is published in."""
    known = [one for entry in found.entries for one in entry.variants if there(entry, one, hub)]
    names = dict.fromkeys(name for one in known for name in (one.quantisations or (one.format,)))
    which = found.entries[0].id if len(found.entries) == 1 else found.entries[0].family
    what = f"in {quantisation}" if quantisation else "in 4 bits or more"
    return HostError(
        f"the catalog knows no {which} {what} at {HUBS[hub]}", hint=f"there are: {', '.join([*names][:TOLD]) or 'none'}"
    )
