"""What a file that is no weights is instead, told by its first bytes."""

import json
import shlex
from pathlib import Path

from appliance.errors import ArtifactError
from appliance.weights.files import AGAIN

HEAD = 4096
"""Bytes to hand to `foreign`."""

_LFS = b"version https://git-lfs.github.com/spec/v1"
_RELEASE = "Give a GGUF or safetensors release of this model."
_LINK = (
    "Download the file by its direct link (on Hugging Face /resolve/, not /blob/), "
    "with an access token where the model is gated."
)

_ARCHIVES = (
    (b"\x1f\x8b", "a gzip archive", "gunzip or tar -xzf"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unzstd"),
    (b"\xfd7zXZ\0", "an xz archive", "unxz"),
    (b"BZh", "a bzip2 archive", "bunzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x"),
    (b"Rar!", "a RAR archive", "unrar x"),
)
_OLD_GGML = (b"lmgg", b"fmgg", b"tjgg", b"algg")


def is_lfs_pointer(head: bytes) -> bool:
    """Whether the file is what Git leaves where LFS did not run."""
    return head.startswith(_LFS)


def is_safetensors(head: bytes) -> bool:
    """Whether `head` begins like a safetensors file: a plausible length, then JSON."""
    return len(head) >= 9 and int.from_bytes(head[:8], "little") <= 100_000_000 and head[8:9] == b"{"


def recognised(path: Path, head: bytes, size: int) -> ArtifactError | None:
    """Tell what the file of `size` bytes that begins with `head` (up to HEAD bytes) is instead of weights, or None."""
    return _placeholder(path, head, size) or _pickle(path, head) or _archive(path, head) or _page(path, head, size)


def foreign(path: Path, head: bytes, size: int) -> ArtifactError:
    """Why the file is no GGUF file: what it is instead, or how it begins."""
    return recognised(path, head, size) or ArtifactError(
        f"{path} is not a GGUF file: begins with {_shown(head)}", hint=_RELEASE
    )


def _placeholder(path: Path, head: bytes, size: int) -> ArtifactError | None:
    if size == 0:
        return ArtifactError(f"{path} is empty: 0 bytes", hint=AGAIN)
    if is_lfs_pointer(head):
        return ArtifactError(
            f"{path} is a Git LFS pointer of {size:,} bytes, not the file itself{_lfs_size(head)}",
            hint=f"git -C {shlex.quote(str(path.parent))} lfs pull",
        )
    if not head.strip(b"\0"):
        return ArtifactError(f"{path} begins with {len(head):,} zero bytes: its download was not finished", hint=AGAIN)
    return None


def _lfs_size(head: bytes) -> str:
    for line in head.splitlines():
        word, _, number = line.partition(b" ")
        if word == b"size" and number.isdigit() and len(number) < 20:
            return f" ({int(number):,} bytes)"
    return ""


def _pickle(path: Path, head: bytes) -> ArtifactError | None:
    zipped = head.startswith(b"PK\x03\x04") and (b"data.pkl" in head or path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if zipped or (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")):
        return ArtifactError(f"{path} is a PyTorch pickle: to load one runs the code inside it", hint=_RELEASE)
    return None


def _archive(path: Path, head: bytes) -> ArtifactError | None:
    for magic, kind, tool in _ARCHIVES:
        if head.startswith(magic):
            return _packed(path, kind, tool)
    if head.startswith(b"PK\x03\x04"):
        return _packed(path, "a zip archive", "unzip")
    if head[257:262] == b"ustar":
        return _packed(path, "a tar archive", "tar -xf")
    if head.startswith(b"\x89HDF"):
        return ArtifactError(f"{path} is an HDF5 file (Keras), not a GGUF file", hint=_RELEASE)
    if head.startswith(_OLD_GGML):
        return ArtifactError(
            f"{path} is in the GGML format from before GGUF, which no current engine reads", hint=_RELEASE
        )
    return None


def _packed(path: Path, kind: str, tool: str) -> ArtifactError:
    return ArtifactError(f"{path} is {kind}, not weights", hint=f"Unpack it ({tool}) and give what is inside.")


def _page(path: Path, head: bytes, size: int) -> ArtifactError | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return ArtifactError(f"{path} is a web page of {size:,} bytes, not weights", hint=_LINK)
    if start.startswith(b"<?xml"):
        return ArtifactError(f"{path} is an XML page of {size:,} bytes, not weights", hint=_LINK)
    if start.startswith(b"{"):
        return _json_page(path, head, size)
    return None


def _json_page(path: Path, head: bytes, size: int) -> ArtifactError | None:
    said = _error_text(head)
    if said:
        return ArtifactError(f"{path} is a server's error answer, not weights: {said}", hint=_LINK)
    if _is_json_text(head):
        directory = shlex.quote(str(path.parent))
        return ArtifactError(
            f"{path} is a JSON file of {size:,} bytes, not weights", hint=f"Give the model's directory: {directory}"
        )
    return None


def _is_json_text(head: bytes) -> bool:
    """Whether `head` begins like a JSON object and is text."""
    rest = head.strip()[1:].lstrip()
    return rest[:1] in (b'"', b"}") and b"\0" not in head


def _error_text(head: bytes) -> str:
    if len(head) >= HEAD:
        return ""
    try:
        found: object = json.loads(head)
    except (ValueError, RecursionError):
        return ""
    for key in ("error", "message", "detail"):
        value: object = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return repr(value[:200])
    return ""


def _shown(head: bytes) -> str:
    start = head[:16]
    if start.isascii() and start.decode("ascii").isprintable():
        return repr(start.decode("ascii"))
    return "bytes " + start[:8].hex(" ")
