"""Forms of weights: how good each is, how many bits it takes, and which GPUs compute with it."""

from typing import Final

from appliance.catalog.models import Variant
from appliance.domain.host import Gpu
from appliance.domain.version import version

GGUF: Final = {
    "BF16": 16.0, "F16": 16.0, "Q8": 8.5, "Q6": 6.6, "Q5": 5.75, "Q4": 4.9, "IQ4": 4.5, "MXFP4": 4.6, "Q3": 4.0,
    "IQ3": 3.7, "Q2": 3.2, "IQ2": 2.8, "IQ1": 2.1,
}  # fmt: skip
"""Beginning of a quantisation's name -> bits of one weight over the whole file, scales and mixtures included; rounded
up, for one name stands for several mixtures (Q4_K_S 4.6, Q4_K_M 4.9)."""
LADDER: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K", "MXFP4", "MXFP4_MOE", "Q4_K_S", "Q4_0")
"""GGUF quantisations that are taken when none is asked for, the best first: 8 bits lose nothing that can be measured,
below 4 bits the answers suffer."""
SCALES: Final = {16: 16.0, 8: 8.1, 5: 5.3, 4: 4.5}
"""Bits as they are called -> bits with the scales."""
ORDER: Final = ("bf16", "fp8", "mxfp8", "int8", "nvfp4", "mxfp4", "awq", "gptq", "int4")
"""Formats of safetensors in the order of quality, and among 4 bits those that GPUs compute with first."""
NVIDIA: Final = {"mxfp8": "10.0", "int8": "7.5", "nvfp4": "10.0", "awq": "7.5", "gptq": "7.0", "int4": "8.0"}
"""Format -> lowest compute capability whose kernels are made for it; what engines refuse themselves is not here."""
AMD: Final = {"fp8": ("gfx942", "gfx950", "gfx12"), "mxfp4": ("gfx942", "gfx950"), "awq": ("gfx",), "gptq": ("gfx",)}
"""Format -> beginnings of the compiler names of the GPUs with kernels for it."""
UNKNOWN: Final = {"lmdeploy": ("int8", "nvfp4", "mxfp8", "int4")}
"""Engine -> formats that it does not read."""


def bits(variant: Variant, quantisation: str) -> float:
    """Return the bits that one weight takes."""
    if variant.format != "gguf":
        return SCALES.get(variant.bits, float(variant.bits))
    base = quantisation.upper().removeprefix("UD-")
    return next((amount for name, amount in GGUF.items() if base.startswith(name)), 8.5)


def ladder(variant: Variant) -> tuple[str, ...]:
    """Return the quantisations of a GGUF repository that are taken unasked, the best first; ("",) for other formats."""
    if variant.format != "gguf":
        return ("",)
    there = {name.upper().removeprefix("UD-"): name for name in reversed(variant.quantisations)}
    plain = {name.upper(): name for name in variant.quantisations}
    # A publisher's own mixture of the same name (UD-) where the plain one is not there.
    found = [plain.get(name) or there.get(name) for name in LADDER]
    large = {"Q8_0": "Q8_K_XL", "Q6_K": "Q6_K_XL", "Q5_K_M": "Q5_K_XL", "Q4_K_M": "Q4_K_XL"}
    found = [one or there.get(large.get(name, "")) for one, name in zip(found, LADDER, strict=True)]
    return tuple(dict.fromkeys(one for one in found if one))


def matching(variant: Variant, wanted: str) -> tuple[str, ...]:
    """Return what of a variant is meant by a quantisation that was asked for, the best first; () = nothing.

    `q4` is every quantisation that begins so, `q4_k_m` that one, `int4` every safetensors release of 4 bits.
    """
    word = wanted.lower().replace("-", "_")
    if variant.format != "gguf":
        named = {"fp16": "bf16", "f16": "bf16"}.get(word, word)
        same_bits = named in ("int4", "int8") and variant.format in ("awq", "gptq", "int4", "int8")
        return ("",) if variant.format == named or (same_bits and variant.bits == int(named[3:])) else ()
    exact = tuple(name for name in variant.quantisations if name.lower().replace("-", "_") == word)
    if exact:
        return exact
    begins = [name for name in variant.quantisations if name.lower().removeprefix("ud-").startswith(word)]
    known = ladder(variant)
    return tuple(sorted(begins, key=lambda name: known.index(name) if name in known else len(known)))


def refuse(form: str, engine: str, gpus: tuple[Gpu, ...]) -> str:
    """Return why an engine does not compute with a form on these GPUs, "" where it does; () = on the CPU."""
    if form == "gguf" or (form == "bf16" and gpus):
        return ""
    if not gpus:
        return "safetensors are for GPUs; on the CPU llama.cpp's GGUF is faster"
    if form in UNKNOWN.get(engine, ()):
        return f"{engine} does not read {form}"
    return next((why for gpu in gpus if (why := _refuse(form, gpu))), "")


def _refuse(form: str, gpu: Gpu) -> str:
    if gpu.vendor == "nvidia":
        least = NVIDIA.get(form, "")
        old = version(gpu.compute_capability) < version(least)
        return f"{form} needs compute capability {least}, {gpu.name} has {gpu.compute_capability}" if old else ""
    known = AMD.get(form, ()) if gpu.vendor == "amd" else ()
    return "" if gpu.architecture.startswith(known) and known else f"there are no kernels for {form} on {gpu.name}"
