"""What is known of a model's files after reading their headers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One file of a model."""

    name: str
    """File name inside the model's directory, no path separators."""
    path: str
    """Absolute path where it was found."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Hex digest; empty until the file was read whole."""
    modified: int = 0
    """Time of modification when it was read, in nanoseconds since the epoch."""


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
    """GGUF file type as a name (`F16`, `Q4_K_M`), or torch dtype (`bfloat16`)."""
    chat_template: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of 16-bit KV cache for one token over all layers (keys and values)."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2
