"""What tensors are for, told by their names: token embedding, output, or one of the layers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_EMBEDDING = re.compile(
    r"(?:.*\.)?(?:embed_tokens(?:_per_layer)?|wte|word_embeddings|tok_embeddings|token_embeddings|embed_in|embeddings?|shared"
    r"|token_embd|per_layer_token_embd)\.[a-z_]+"
)
_OUTPUT = re.compile(r"(?:.*\.)?(?:lm_head|embed_out|output_layer|output)\.[a-z_]+")
_AHEAD = re.compile(r"(?:model\.)?mtp\.")
_LAYER = re.compile(r"\.(\d{1,4})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes by use; what is neither embedding, output nor in a layer counts nowhere."""

    embedding: int = 0
    output: int = 0
    layers: Mapping[str, int] = field(default_factory=dict)
    """By the name up to the layer's number (`model.layers.12.`), so that towers of one model stay apart."""
    ahead: int = 0
    """Of a part that is called `mtp`: it drafts tokens ahead, and engines that do not draft leave it out."""

    def largest(self, count: int) -> int:
        """Bytes of the largest layer among the first `count`: those after them are for drafting ahead."""
        return max((size for name, size in self.layers.items() if _index(name) < count or not count), default=0)

    def drafts(self, count: int) -> int:
        """Bytes that draft ahead: a part of its own, or layers of the largest tower behind the first `count`."""
        towers: Counter[str] = Counter()
        for name, size in self.layers.items():
            towers[_tower(name)] += size
        main = max(towers, key=lambda tower: towers[tower], default="")
        late = (size for name, size in self.layers.items() if _tower(name) == main and _index(name) >= count)
        return self.ahead + (sum(late) if count else 0)


def sizes(tensors: Iterable[tuple[str, int]]) -> Sizes:
    """Add up the tensors of one file, given as name and bytes."""
    embedding = output = ahead = 0
    layers: Counter[str] = Counter()
    for name, size in tensors:
        if _AHEAD.match(name):
            ahead += size
        elif layer := _LAYER.search(name):
            layers[name[: layer.end()]] += size
        elif _OUTPUT.fullmatch(name):
            output += size
        elif _EMBEDDING.fullmatch(name):
            embedding += size
    return Sizes(embedding=embedding, output=output, layers=layers, ahead=ahead)


def together(parts: Iterable[Sizes]) -> Sizes:
    """Add up the files of one model; a layer may lie in two of them."""
    embedding = output = ahead = 0
    layers: Counter[str] = Counter()
    for part in parts:
        embedding += part.embedding
        output += part.output
        ahead += part.ahead
        layers.update(part.layers)
    return Sizes(embedding=embedding, output=output, layers=layers, ahead=ahead)


def _tower(name: str) -> str:
    return name.rstrip(".").rpartition(".")[0]


def _index(name: str) -> int:
    return int(name.rstrip(".").rpartition(".")[2])
