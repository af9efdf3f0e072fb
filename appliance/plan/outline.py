"""A model before its files are here: weights of about the right size, made of the catalog's facts."""

from typing import Final

from appliance.catalog.models import Entry, Variant
from appliance.domain.weights import WeightFile, Weights
from appliance.plan.formats import bits

ROUNDED: Final = 1.03
"""Parameters are told in rounded billions; what is planned for must not turn out to be larger."""
FEED_FORWARD: Final = 4
"""Inner width of a feed-forward block over the hidden one, where it is not known; models have 2.5 to 5.5."""


def outline(entry: Entry, variant: Variant, quantisation: str = "") -> Weights:
    """Return the weights as their headers will tell of them, as far as a memory plan reads it.

    Embedding and output stay at 16 bits beside quantised layers in safetensors; GGUF's bits are those of the file.
    """
    shape, each = entry.shape, bits(variant, quantisation) / 8
    table = shape.vocabulary * shape.hidden
    edge = int(table * (each if variant.format == "gguf" else 2))
    parameters = int(entry.parameters * ROUNDED * 1e9)
    body = int(max(parameters - 2 * table, parameters // 4) * each)
    size = max(variant.bytes, edge + body) if variant.bytes else 2 * edge + body
    gguf = variant.format == "gguf"
    file = WeightFile(name=f"{entry.id}.{'gguf' if gguf else 'safetensors'}", path="", size=size)
    full = next((group for group in entry.cache if group.kv_heads), None)
    return Weights(
        format="gguf" if gguf else "safetensors",
        architecture=entry.architecture or entry.family,
        files=(file,),
        context_length=entry.context,
        layers=shape.layers,
        kv_heads=full.kv_heads if full else 0,
        head_dim=full.key if full else 0,
        parameters=parameters,
        quantisation=quantisation or {"bf16": "bfloat16"}.get(variant.format, variant.format),
        chat_template=entry.kind == "chat",
        heads=shape.heads,
        hidden=shape.hidden,
        feed_forward=shape.feed_forward or FEED_FORWARD * shape.hidden,
        vocabulary=shape.vocabulary,
        experts=shape.experts,
        cache=entry.cache,
        embedding=edge,
        output=edge,
        layer=max(0, size - 2 * edge) // shape.layers,
    )
