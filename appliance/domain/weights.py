"""What is known of a model's files after reading their headers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One file of a model."""

    name: str
    """File name inside the model's directory, no path separators."""
    path: str
    """Absolute path where it was found; "" for a file of a hub."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Hex digest; empty until the file was read whole."""
    modified: int = 0
    """Time of modification when it was read, in nanoseconds since the epoch."""
    url: str = ""
    """Where its bytes come from, whatever mirror is set up: `hf:OWNER/REPO@COMMIT/FILE`, `ms:…`, `https://…`; "" for a
    file of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Layers of one kind: what they keep of the tokens that were seen."""

    kind: str
    """`full` (keys and values of every token), `window` (of the last `window` tokens, or of the chunk), `latent` (one
    compressed row for each token, MLA), `index` (keys beside it that choose tokens), `recurrent` (a state of fixed
    size)."""
    count: int
    """Layers; those that keep several things are counted in several groups."""
    kv_heads: int = 0
    key: int = 0
    """Elements of one key head; of a latent row: latent and rotary part together."""
    value: int = 0
    """Elements of one value head; 0 where keys serve as values, too."""
    window: int = 0
    """Tokens."""
    convolution: int = 0
    """Elements of a recurrent layer's convolution state, for each sequence."""
    state: int = 0
    """Elements of its recurrent state, for each sequence."""
    state_bits: int = 0
    """Bits of an element of that state where the configuration says; 0 = as many as the weights have."""

    @property
    def row(self) -> int:
        """Elements kept for one token in one layer."""
        return self.kv_heads * (self.key + self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model's files and what their headers say; 0 or "" where the header says nothing."""

    format: str
    """`gguf` or `safetensors`."""
    architecture: str
    """GGUF `general.architecture` (`qwen3`), or the first of config.json's `architectures`."""
    files: tuple[WeightFile, ...]
    """In shard order; the first is the one an engine is pointed at."""
    context_length: int = 0
    """Tokens the model was trained for."""
    layers: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    """Elements of one key head."""
    parameters: int = 0
    quantisation: str = ""
    """GGUF file type as a name (`F16`, `Q4_K_M`), quantisation method (`mxfp4`, `fp8`, `awq`), or torch dtype."""
    chat_template: bool = False
    heads: int = 0
    """Query heads: tensor parallelism divides them."""
    hidden: int = 0
    """Elements of one token's state between layers."""
    feed_forward: int = 0
    """Inner elements of one feed-forward block (of all experts that one token uses together)."""
    vocabulary: int = 0
    experts: int = 0
    cache: tuple[Layers, ...] = ()
    """All layers by what they keep; () where the header does not say, or for a model that keeps nothing."""
    embedding: int = 0
    """Bytes of the token embedding's tensors."""
    output: int = 0
    """Bytes of the output's tensor; 0 = the embedding is used for it too."""
    layer: int = 0
    """Bytes of the largest layer."""
    code: bool = False
    """Its repository brings Python along, which is never taken into the store."""
    draft: int = 0
    """Bytes of layers that draft tokens ahead (MTP): engines leave them out unless they are told to draft."""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def tensors(self) -> int:
        """Bytes that engines load: the files that hold tensors, less what only drafts."""
        return sum(file.size for file in self.files if file.name.endswith((".gguf", ".safetensors"))) - self.draft

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of 16-bit cache that grow with every token, over all layers that keep all tokens."""
        return 2 * sum(group.count * group.row for group in self.cache if group.kind in ("full", "latent"))
