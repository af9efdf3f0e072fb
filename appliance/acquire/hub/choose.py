"""Which files of a repository a model needs: one GGUF quantisation, or the safetensors and what belongs to them."""

import difflib
import fnmatch
import re
from dataclasses import dataclass

from appliance.acquire.hub.listing import Listing, RemoteFile
from appliance.acquire.hub.reference import Reference
from appliance.errors import ArtifactError
from appliance.report import amount_text
from appliance.weights.directory import is_side

INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.(?:gguf|safetensors)", re.DOTALL)
OTHER = re.compile(r"mmproj|imatrix|(^|[-_.])lora([-_.]|$)|vocab[-_.]only", re.IGNORECASE)
"""In names of GGUF files that are no whole models."""
SHOWN = 12
"""Choices that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is taken of a repository."""

    format: str
    """`gguf` or `safetensors`."""
    tensors: tuple[RemoteFile, ...]
    """In shard order; of safetensors all that there are, until the index has been read."""
    side: tuple[RemoteFile, ...] = ()
    """Configuration, tokeniser and template: small, and needed before anything can be planned."""


def choose(wanted: Reference, listing: Listing) -> Choice:
    """Return the files that are needed. Raises ArtifactError with what there is instead."""
    files = tuple(one for one in listing.files if _safe(one))
    top = tuple(one for one in files if "/" not in one.path)
    tensors = tuple(one for one in top if one.path.endswith(".safetensors"))
    gguf = _models(files)
    if wanted.hub == "https" or wanted.file or wanted.pick or (gguf and not tensors):
        return Choice(format="gguf", tensors=_gguf(wanted, gguf, files), side=tuple(one for one in files if one.side))
    if not tensors:
        raise _nothing(wanted, files)
    side = tuple(one for one in top if is_side(one.path))
    if "config.json" not in {one.path for one in side}:
        raise ArtifactError(
            f"{wanted} has .safetensors files but no config.json, so no engine knows what they are",
            hint="an adapter? Give the model that it is for"
            if any(one.path == "adapter_config.json" for one in side)
            else "take a release of the model in the layout of transformers, or its GGUF",
        )
    return Choice(format="safetensors", tensors=tensors, side=side)


def shards(choice: Choice, placed: frozenset[str]) -> tuple[RemoteFile, ...]:
    """Return the safetensors files that belong together; `placed` are those that the index names, if there is one."""
    by_name = {one.path: one for one in choice.tensors}
    if placed:
        missing = sorted(placed - set(by_name))
        if missing:
            raise ArtifactError(f"the index names {missing[0]!r}, which the repository does not hold")
        return tuple(by_name[name] for name in sorted(placed))
    if "model.safetensors" in by_name:
        return (by_name["model.safetensors"],)
    series = [one for one in choice.tensors if (found := SHARD.fullmatch(one.path)) and found["stem"] == "model"]
    return tuple(series) or choice.tensors


def _safe(file: RemoteFile) -> bool:
    """Whether a name can be used as a path and in a message: it is outside data."""
    parts = file.path.split("/")
    return bool(file.path) and file.path.isprintable() and "\\" not in file.path and not {"", ".", ".."} & set(parts)


def _models(files: tuple[RemoteFile, ...]) -> dict[str, tuple[RemoteFile, ...]]:
    """Return whole GGUF models: path without the shard's number -> files in order."""
    found: dict[str, list[RemoteFile]] = {}
    for one in files:
        if one.path.endswith(".gguf") and not OTHER.search(one.name):
            match = SHARD.fullmatch(one.path)
            found.setdefault(match["stem"] if match else one.path.removesuffix(".gguf"), []).append(one)
    return {stem: tuple(sorted(parts, key=lambda one: one.path)) for stem, parts in sorted(found.items())}


def _gguf(
    wanted: Reference, models: dict[str, tuple[RemoteFile, ...]], files: tuple[RemoteFile, ...]
) -> tuple[RemoteFile, ...]:
    fitting = {stem: parts for stem, parts in models.items() if any(fits(wanted, one.path) for one in parts)}
    if wanted.file and not fitting and (one := next((one for one in files if one.path == wanted.file), None)):
        return (one,)  # a name of ours for what is no model may be wrong; its header decides
    if len(fitting) == 1:
        (parts,) = fitting.values()
        _refuse_gaps(wanted, parts)
        return parts
    what = wanted.file or wanted.pick
    if fitting:
        raise ArtifactError(
            f"{wanted} {f'fits {len(fitting)} GGUF models' if what else f'holds {len(fitting)} GGUF models'}, "
            f"one must be chosen: {_listed(fitting)}",
            hint=f"for example {_example(wanted, next(iter(fitting.values())))}",
        )
    if not models and any(one.path.endswith(".safetensors") for one in files):
        raise ArtifactError(f"{wanted} holds no GGUF", hint=f"its safetensors are {wanted.hub}:{wanted.repository}")
    if not models:
        raise _nothing(wanted, files)
    hint = f"there are: {_listed(models)}"
    if near := _near(wanted, models, files):
        hint = f"did you mean {' or '.join(near)}?"
    raise ArtifactError(f"{wanted.base}: no GGUF file {what!r} is there", hint=hint)


def fits(wanted: Reference, path: str) -> bool:
    """Tell whether a GGUF file is one that a file name, a pattern or a quantisation asks for."""
    if wanted.file:
        return fnmatch.fnmatchcase(path, wanted.file)
    if wanted.pick:
        match = SHARD.fullmatch(path)
        stem = match["stem"] if match else path.removesuffix(".gguf")
        # The whole word: Q4_K is none of Q4_K_M's, and Q4_0 none of IQ4_0's.
        word = rf"(?:^|[-_./]){re.escape(wanted.pick)}(?:$|[-./])"
        return re.search(word, stem, re.IGNORECASE) is not None
    return True


def _refuse_gaps(wanted: Reference, parts: tuple[RemoteFile, ...]) -> None:
    match = SHARD.fullmatch(parts[0].path)
    count = int(match["count"]) if match else 1
    if len(parts) != count:
        raise ArtifactError(
            f"{wanted}: {len(parts)} of {count} shards are there", hint="the repository is not whole; take another"
        )


def _near(
    wanted: Reference, models: dict[str, tuple[RemoteFile, ...]], files: tuple[RemoteFile, ...]
) -> tuple[str, ...]:
    if wanted.pick:
        stems = difflib.get_close_matches(
            wanted.pick.lower(), [stem.rpartition("-")[2].lower() for stem in models], n=3
        )
        return tuple(dict.fromkeys(f":{stem.upper()}" for stem in stems))
    names = [one.path for one in files if one.path.endswith(".gguf")]
    by_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wanted.file.lower(), list(by_case), n=3)
    return tuple(by_case[name] for name in near)


def _listed(models: dict[str, tuple[RemoteFile, ...]]) -> str:
    shown = [
        f"{stem.rpartition('/')[2]} ({amount_text(sum(one.size for one in parts))})" for stem, parts in models.items()
    ]
    more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more


def _example(wanted: Reference, parts: tuple[RemoteFile, ...]) -> str:
    revision = f"@{wanted.revision}" if wanted.revision else ""
    return f"{wanted.hub or 'hf'}:{wanted.repository}{revision}/{parts[0].path}"


def _nothing(wanted: Reference, files: tuple[RemoteFile, ...]) -> ArtifactError:
    if not files:
        return ArtifactError(f"{wanted} is an empty repository")
    pickles = [one.path for one in files if one.path.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickles:
        return ArtifactError(
            f"{wanted} has weights as PyTorch pickles only ({pickles[0]}): to load one runs the code inside it",
            hint="take a safetensors or GGUF release of this model",
        )
    below = [one.path for one in files if one.path.endswith(".safetensors")]
    where = f"; {below[0]} lies in a directory, as those of pipelines do" if below else ""
    return ArtifactError(f"{wanted} holds no GGUF and no safetensors model among its {len(files)} files{where}")
