"""A bundle as the source of artifacts and weights: each lands where a download or a build would have put it."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from appliance.acquire.bundle import images
from appliance.acquire.bundle.here import KEPT, known, take_over
from appliance.acquire.bundle.reader import Reader
from appliance.acquire.hub import keep
from appliance.bundle import cargo
from appliance.bundle import tree as trees
from appliance.bundle.index import Component
from appliance.bundle.tree import Node, Tree
from appliance.domain.deployment import Model
from appliance.domain.host import Podman
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.report import Bar, Progress, amount_text, work
from appliance.system.machine import sync
from appliance.system.transfer import part


class Bundle:
    """What a bundle brings to this machine."""

    def __init__(self, reader: Reader, state: str, flags: tuple[str, ...], podman: Podman | None = None) -> None:
        """`flags` are those of this machine's processor; `podman` is what has its images in Docker's place."""
        self._flags, self._podman = flags, podman
        self.reader, self.cargo = reader, cargo.load(reader.read(_plan(reader)), source=str(reader.path))
        self._state = Path(state)
        self._there: dict[str, Path] | None = None

    @property
    def models(self) -> tuple[Model, ...]:
        """The models in it."""
        return self.cargo.models

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The engines and the gateway in it."""
        return self.cargo.artifacts

    def component(self, artifact: Artifact) -> Component | None:
        """Return what holds an artifact, None when nothing does.

        Code that was compiled for a processor runs on one that has more.
        """
        by_key = {one.key: one for one in self.reader.index.of("engine", "gateway") if not one.base}
        if artifact.digest in by_key:
            return by_key[artifact.digest]
        if set(self.reader.index.target.cpu_flags) - set(self._flags):
            return None
        alike = (one for one in self.cargo.artifacts if cargo.alike(one, artifact))
        return next((by_key[one.digest] for one in alike if one.digest in by_key), None)

    def size(self, artifact: Artifact) -> int:
        """Return the bytes that it takes on the disk."""
        one = self.component(artifact)
        return one.unpacked if one else 0

    def has_model(self, model: Model) -> bool:
        """Tell whether a model's weights are in it, or in it and on this machine together."""
        return any(one.key == model.digest and not one.base for one in self.reader.index.of("model"))

    def bring(self, component: Component, target: Path, progress: Progress) -> None:
        """Unpack a directory and show it when it is whole. Raises ArtifactError."""
        tree = self._tree(component)
        draft = target.with_name(f".{target.name}.bundle.new")
        progress.step("unpack", f"{component.name} {component.version}: {amount_text(component.unpacked)}")
        with work(progress, component.name, component.unpacked) as bar:
            for node in tree.nodes:
                (draft / node.path).parent.mkdir(parents=True, exist_ok=True)
            self._unpack_small(tree, draft, bar)
            for node in tree.nodes:
                if node.digest:
                    self._place(node.digest, node.size, draft / node.path, bar)
                    _set_mode(draft / node.path, _mode(node))
        for node in tree.nodes:
            if node.link:
                _link(draft / node.path, node.link)
        _settle_python(draft)
        self._remember(component, target)
        os.sync()  # one for many small files, in place of one for each
        draft.rename(target)
        sync(target.parent)

    def load(self, component: Component, artifact: Artifact, progress: Progress) -> None:
        """Give an image to Docker, under the name that this machine's plan has for it. Raises ArtifactError."""
        images.load(self.reader, component, artifact.ref, progress, self._podman)

    def weights(self, model: Model, progress: Progress) -> None:
        """Bring a model's files into the store's waiting room. Raises ArtifactError."""
        files = [file for file in model.weights.files if not keep.waiting(file, str(self._state)).exists()]
        progress.step("unpack", f"{model.name}: {amount_text(sum(file.size for file in files))}")
        with work(progress, model.name, sum(file.size for file in files)) as bar:
            for file in files:
                target = keep.waiting(file, str(self._state))
                target.parent.mkdir(parents=True, exist_ok=True)
                self._place(file.sha256, file.size, part(target), bar)
                part(target).chmod(0o644)
                part(target).rename(target)
                sync(target.parent)

    def attach(self, progress: Progress) -> None:
        """Put adapters and chat templates in place. Raises ArtifactError."""
        for one in self.reader.index.of("files"):
            target = self._state / cargo.ATTACHED / one.key[:16]
            if not target.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.bring(one, target, progress)

    def missing_base(self) -> tuple[str, ...]:
        """Return the digests of what the bundle builds on and this machine has not."""
        index = self.reader.index
        base = {one.digest for one in index.base}
        boxes = tuple(one for one in index.components if one.image)
        ours = images.layers(boxes)
        lost = images.absent(boxes, frozenset(base), self._podman)
        return (*sorted(base - self._known().keys() - ours), *sorted(lost))

    def _tree(self, component: Component) -> Tree:
        if not component.payloads:
            raise ArtifactError(
                f"{self.reader.path}: {component.name} is not in this bundle, only in the one before it"
            )
        return trees.load(self.reader.read(component.payloads[0]), source=f"{self.reader.path}: {component.name}")

    def _unpack_small(self, tree: Tree, draft: Path, bar: Bar) -> None:
        small = [node for node in tree.nodes if not node.link and not node.digest]
        for node in small:
            if not node.size:
                (draft / node.path).write_bytes(b"")
                (draft / node.path).chmod(_mode(node))
        if not tree.pack:
            return
        payload = self.reader.payload(tree.pack)
        if payload.size != sum(node.size for node in small):
            raise ArtifactError(f"{self.reader.path}: {self.reader.label(payload)} is not as long as its files")
        with _Files([node for node in small if node.size], draft, bar) as take:
            self.reader.copy(payload, (take,))

    def _place(self, digest: str, size: int, target: Path, bar: Bar) -> None:
        """Write a payload, going on where an earlier run stopped; or take what is on this machine already."""
        if not self.reader.has(digest):
            self._from_here(digest, target, bar)
            return
        payload = self.reader.payload(digest)
        if payload.size != size:
            raise ArtifactError(
                f"{self.reader.path}: {self.reader.label(payload)}: {payload.size:,} bytes, not {size:,}"
            )
        stream = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            check, have = self.reader.check(payload), min(os.fstat(stream).st_size, payload.size)
            start = check.take_over(lambda view, at: os.preadv(stream, (view,), at), have, bar.advance)
            os.ftruncate(stream, start)
            if start < payload.size or not start:
                self.reader.write(payload, stream, check, start, bar.advance)
                os.fsync(stream)
        finally:
            os.close(stream)

    def _from_here(self, digest: str, target: Path, bar: Bar) -> None:
        path = self._known().get(digest)
        if path is None:
            raise ArtifactError(
                f"{self.reader.path} builds on blob {digest[:16]}, which is not on this machine",
                hint="install the bundle that it was made after, or one that is whole",
            )
        target.unlink(missing_ok=True)
        take_over(path, target, digest, bar)

    def _known(self) -> dict[str, Path]:
        if self._there is None:
            self._there = known(self._state)
        return self._there

    def _remember(self, component: Component, target: Path) -> None:
        home = self._state / KEPT / target.parent.name
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{target.name}.json").write_bytes(self.reader.read(component.payloads[0]))


def _plan(reader: Reader) -> str:
    plans = [one.digest for one in reader.index.payloads if one.kind == "plan"]
    if len(plans) != 1:
        raise ArtifactError(f"{reader.path}: {len(plans)} plans are in it, there must be one")
    return plans[0]


def _set_mode(path: Path, mode: int) -> None:
    """Set a file's mode; one that is linked elsewhere, too, becomes a copy, for there it stays as it is."""
    status = path.stat()
    if status.st_mode & 0o777 != mode and status.st_nlink > 1:
        own = path.with_name(f".{path.name}.own")
        shutil.copyfile(path, own)
        own.replace(path)
    path.chmod(mode)


def _mode(node: Node) -> int:
    return 0o755 if node.executable else 0o644


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(_python() if target == trees.PYTHON else target)


def _python() -> str:
    """Return the interpreter that the appliance's own environment was made with."""
    return os.path.realpath(sys.executable)


def _settle_python(root: Path) -> None:
    """Say in an environment which Python it is of: this machine's."""
    config = root / "pyvenv.cfg"
    if not config.is_file():
        return
    home = str(Path(_python()).parent)
    lines = [f"home = {home}" if line.startswith("home") else line for line in config.read_text().splitlines()]
    config.write_text("\n".join(lines) + "\n")


class _Files:
    """Takes small files one after the other."""

    def __init__(self, nodes: list[Node], root: Path, bar: Bar) -> None:
        self._nodes, self._root, self._bar = iter(nodes), root, bar
        self._left, self._kept = 0, bytearray()
        self._node: Node | None = None

    def __enter__(self) -> Callable[[memoryview], None]:
        return self._take

    def __exit__(self, *_: object) -> None:
        self._kept.clear()

    def _take(self, view: memoryview) -> None:
        self._bar.advance(len(view))
        while view:
            if self._node is None:
                self._node = next(self._nodes)
                self._left = self._node.size
            some = view[: self._left]
            self._kept += some
            self._left -= len(some)
            view = view[len(some) :]
            if not self._left:
                path = self._root / self._node.path
                with suppress(FileNotFoundError):
                    path.unlink()
                path.write_bytes(self._kept)
                path.chmod(_mode(self._node))
                self._node = None
                self._kept = bytearray()
