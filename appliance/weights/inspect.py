"""From a path to checked weights: what it is, told by content, and whether it is whole."""

import shlex
import stat
from pathlib import Path

from appliance.domain.weights import Weights
from appliance.errors import ArtifactError
from appliance.weights.directory import safetensors_weights
from appliance.weights.files import check_printable, read_head, unreadable
from appliance.weights.gguf import MAGIC
from appliance.weights.sniff import HEAD, foreign, is_safetensors
from appliance.weights.splits import gguf_weights


def inspect(path: Path) -> Weights:
    """Read the headers at `path`: a GGUF file, any shard of a split one, or a safetensors directory.

    Links are followed; `WeightFile.path` is where they lead, `WeightFile.name` the name that was given.
    Reads headers only (bounded), so that the files' digests are empty. Raises ArtifactError.
    """
    # Made absolute before anything is said, so that messages make sense in a log.
    path = path.absolute()
    check_printable(str(path))
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(mode):
        return safetensors_weights(path)
    head, size = read_head(path, HEAD)
    if head.startswith(MAGIC):
        return gguf_weights(path)
    if is_safetensors(head):
        raise ArtifactError(
            f"{path} is one safetensors file; an engine needs config.json and the tokeniser beside it too",
            hint=f"Give its directory: {shlex.quote(str(path.parent))}",
        )
    raise foreign(path, head, size)
