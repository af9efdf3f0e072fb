"""The Docker daemon, through its own SDK: which images are there, pulls, builds, loads; logs and events."""

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from appliance.domain.host import Podman
from appliance.errors import ArtifactError, HostError

SOCKET: Final = "/var/run/docker.sock"
TIMEOUT: Final = 120
"""Seconds of silence until a call is given up; a build says something more often than that, a load does not."""
LOAD_TIMEOUT: Final = 3600
BLOCK: Final = 1 << 20
LABEL: Final = "org.llm-appliance.recipe"
"""On every layer of a build of ours, so that what is left of it can be found and removed."""

OnLine = Callable[[str], None]
OnBytes = Callable[[int, int], None]
"""Told (bytes more than before, bytes in all as far as is known)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image that the daemon has."""

    id: str
    tags: tuple[str, ...]
    size: int
    """Bytes, with what it shares with others."""
    env: dict[str, str]
    labels: dict[str, str]
    layers: tuple[str, ...] = ()
    """SHA-256 (hex) of each layer as a plain tar, the lowest first."""


class Daemon:
    """The daemon behind Docker's socket, or Podman's; an older one than the SDK is spoken to in its own version."""

    def __init__(self, podman: Podman | None = None) -> None:
        self._url = f"unix://{podman.socket if podman else SOCKET}"
        self._hint = f"systemctl status {'podman.socket' if podman else 'docker'}"

    def image(self, ref: str) -> Image | None:
        """Return an image, None when it is not there."""
        from docker.errors import ImageNotFound, NullResource

        with self._asked() as client:
            try:
                return _image(client.api.inspect_image(ref))
            except (ImageNotFound, NullResource):
                return None

    def images(self, label: str = LABEL) -> tuple[Image, ...]:
        """Return the tagged images that carry a label."""
        with self._asked() as client:
            return tuple(_image(row.attrs) for row in client.images.list(filters={"label": label}) if row.tags)

    def pull(self, ref: str, on_bytes: OnBytes) -> None:
        """Bring an image from its registry. Raises ArtifactError."""
        layers = _Layers(on_bytes)
        name, tag = split(ref)
        with self._asked(f"{ref} cannot be pulled") as client:
            for event in client.api.pull(name, tag=tag or None, stream=True, decode=True):
                _refuse(event, f"{ref} cannot be pulled")
                layers.hear(event)

    def build(self, recipe: Path, extras: dict[str, Path], args: dict[str, str], ref: str, on_line: OnLine) -> None:
        """Build a directory with a Dockerfile; `extras` are further files, by their names in it. Raises ArtifactError.

        Through the API's own builder: it is in every daemon, and needs no plugin of the client.
        """
        with tempfile.TemporaryFile() as stream, self._asked(f"{ref} cannot be built") as client:
            _pack(stream, recipe, extras)
            lines = client.api.build(
                fileobj=stream, custom_context=True, tag=ref, buildargs=args, rm=True, forcerm=True, decode=True
            )
            tail: list[str] = []
            for event in lines:
                said = str(event.get("stream") or event.get("status") or "").strip()
                tail = [*tail[-20:], said] if said else tail
                if said:
                    on_line(said)
                _refuse(event, f"{ref} cannot be built", "\n".join(tail))

    def load(self, path: Path) -> tuple[str, ...]:
        """Load a file that `save` wrote; return the names of what was in it. Raises ArtifactError."""
        names: list[str] = []
        with path.open("rb") as stream, self._asked(f"{path} cannot be loaded", LOAD_TIMEOUT) as client:
            for event in client.api.load_image(stream):
                _refuse(event, f"{path} cannot be loaded")
                # Docker has a line for each, Podman one for all.
                _, found, said = str(event.get("stream") or "").strip().partition("Loaded image: ")
                names += said.split(",") if found else []
        return tuple(_short(name) for name in names)

    def feed(self, blocks: Iterable[bytes], what: str) -> None:
        """Load what `save` would have written, block by block; what `blocks` raises ends it. Raises ArtifactError."""
        with self._asked(f"{what} cannot be loaded", LOAD_TIMEOUT) as client:
            for event in client.api.load_image(blocks):
                _refuse(event, f"{what} cannot be loaded")

    def save(self, refs: tuple[str, ...], path: Path, on_bytes: OnBytes) -> None:
        """Write images into one file, which shows when it is whole."""
        draft = path.with_name(f".{path.name}.new")
        total = sum(image.size for ref in refs if (image := self.image(ref)))
        try:
            with draft.open("xb") as stream, self.saved(refs, f"{path} cannot be written") as content:
                while block := content.read(BLOCK):
                    stream.write(block)
                    on_bytes(len(block), total)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def saved(self, refs: tuple[str, ...], what: str) -> Iterator[IO[bytes]]:
        """Open the tar of all these images; what they share is in it once. `what` begins messages."""
        with self._asked(what, LOAD_TIMEOUT) as client:
            words = client.api._url("/images/get")  # noqa: SLF001 - the SDK's own call takes one image only
            answer = client.api._get(words, params={"names": list(refs)}, stream=True)  # noqa: SLF001
            client.api._raise_for_status(answer)  # noqa: SLF001
            yield answer.raw

    def stacks(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of every image that is here; () of a daemon that takes whole images only."""
        with self._asked() as client:
            kept = dict(client.api.info().get("DriverStatus") or ())
            if "containerd" in str(kept.get("driver-type")):
                return ()
            ids = [row["Id"] for row in client.api.images(all=True)]
            return tuple(_image(client.api.inspect_image(one)).layers for one in ids)

    def root(self) -> str:
        """Return the directory that images lie in."""
        with self._asked() as client:
            return str(client.api.info().get("DockerRootDir") or "/var/lib/docker")

    def remove(self, ref: str) -> bool:
        """Take a name away, and the image with its last one; tell whether it is gone: one that is used stays."""
        from docker.errors import APIError, ImageNotFound

        with self._asked() as client:
            try:
                client.api.remove_image(ref)
            except ImageNotFound:
                return True
            except APIError:
                return False
            return True

    def prune(self, label: str = LABEL) -> None:
        """Remove what builds of ours left without a name."""
        with self._asked() as client:
            client.images.prune(filters={"dangling": True, "label": label})

    def log(self, container: str, **wanted: Any) -> Iterator[str]:
        """Yield the lines of a container's log, which the SDK's words choose; none where there is no such container."""
        from docker.errors import NotFound

        with self._asked(f"{container} shows no log") as client:
            try:
                chunks = client.api.logs(container, stream=True, **wanted)
            except NotFound:
                return
            rest = b""
            for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")

    def events(self, containers: tuple[str, ...]) -> Iterator[tuple[str, str, float]]:
        """Yield (container, what happens to it, seconds since 1970) as it happens, without an end."""
        with self._asked("nothing is told of what happens") as client:
            for event in client.api.events(decode=True, filters={"type": "container"}):
                name = event["Actor"]["Attributes"].get("name", "")
                if name in containers:
                    yield name, event["Action"], event["timeNano"] / 1e9

    @contextmanager
    def _asked(self, what: str = "Docker does not do what it is asked", timeout: float = TIMEOUT) -> Iterator[Any]:
        """Connect, and turn what the SDK raises into words."""
        import docker
        from requests.exceptions import RequestException

        try:
            client = docker.DockerClient(base_url=self._url, timeout=timeout, version="auto")
        except docker.errors.DockerException as error:
            raise HostError(f"no daemon answers at {self._url}: {_word(error)}", hint=self._hint) from error
        try:
            yield client
        except docker.errors.APIError as error:
            raise ArtifactError(f"{what}: {_word(error)}", hint=_hint(_word(error))) from error
        except (docker.errors.DockerException, RequestException) as error:
            raise HostError(f"{what}: {_word(error)}", hint=self._hint) from error
        finally:
            client.close()


class _Layers:
    """Adds up what a pull tells of each layer."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def hear(self, event: dict[str, Any]) -> None:
        """Hear one line of a pull."""
        detail = event.get("progressDetail") or {}
        layer, current = str(event.get("id", "")), int(detail.get("current") or 0)
        if event.get("status") != "Downloading" or not detail.get("total"):
            return
        more = current - self._done.get(layer, 0)
        self._done[layer], self._total[layer] = current, int(detail["total"])
        self._on_bytes(max(0, more), sum(self._total.values()))


def split(ref: str) -> tuple[str, str]:
    """Split a reference into name and tag, or name and digest; a registry's port is no tag."""
    if "@" in ref:
        name, _, digest = ref.partition("@")
        return split(name)[0], digest
    name, colon, tag = ref.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (ref, "latest")


def _pack(stream: IO[bytes], recipe: Path, extras: dict[str, Path]) -> None:
    """Write the build's context: the same files give the same bytes, so that the builder knows its layers again."""
    files = {path.relative_to(recipe).as_posix(): path for path in sorted(recipe.rglob("*")) if path.is_file()}
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, path in sorted({**files, **extras}.items()):
            member = archive.gettarinfo(path, name)
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            with path.open("rb") as content:
                archive.addfile(member, content)
    stream.seek(0)


def _image(row: dict[str, Any]) -> Image:
    config = row.get("Config") or {}
    pairs = (line.partition("=") for line in config.get("Env") or ())
    return Image(
        id=str(row["Id"]),
        tags=tuple(_short(str(tag)) for tag in row.get("RepoTags") or ()),
        size=int(row.get("Size") or 0),
        env={name: value for name, _, value in pairs},
        labels=dict(config.get("Labels") or {}),
        layers=tuple(one.removeprefix("sha256:") for one in (row.get("RootFS") or {}).get("Layers") or ()),
    )


def _short(name: str) -> str:
    """Leave the registry out that Podman writes and Docker does not."""
    return name.removeprefix("docker.io/")


def _refuse(event: dict[str, Any], what: str, before: str = "") -> None:
    # Podman says why in the words of its own errors where Docker has a line of its stream for it.
    if error := event.get("error") or ("cause" in event and event.get("message")):
        raise ArtifactError(f"{what}: {error}" + (f"\n{before}" if before else ""), hint=_hint(str(error)))


def _hint(error: str) -> str:
    if "unauthorized" in error or "denied" in error:
        return "docker login REGISTRY, or check the image's name"
    if "not found" in error or "manifest unknown" in error:
        return "check the image's name and tag; `llm-appliance image list` shows what is wanted"
    network = ("dial tcp", "timeout", "lookup", "connection refused", "no route")
    if any(word in error for word in network):
        return "a mirror: llm-appliance config set images.registry REGISTRY; or `image load FILE` from elsewhere"
    return ""


def _word(error: Exception) -> str:
    said = getattr(error, "explanation", None) or str(error)
    return " ".join(str(said).split())[:500]
