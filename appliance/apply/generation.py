"""Generations on disk: each complete and numbered, a link to the one in force, a record of what was written."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from appliance import codec
from appliance.apply import schema
from appliance.domain.changes import Changeset, File, Record, Written
from appliance.domain.deployment import Deployment
from appliance.domain.layout import Layout
from appliance.errors import SpecError
from appliance.system.machine import Machine, sync

KEPT = 8
"""Generations that stay for a rollback."""


class Generations:
    """The generations below one state directory."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self._machine = machine
        self._home = Path(layout.state) / "generations"
        self._current = layout.current
        self._record = f"{layout.state}/record.json"

    def record(self) -> Record | None:
        """Return what is installed, None when nothing is. Raises SpecError on a record that cannot be read."""
        content = self._machine.read(self._record, codec.MAX_BYTES)
        if content is None:
            return None
        try:
            return schema.read(Record, content, source=self._record)
        except SpecError as error:
            error.hint = error.hint or self._way_back()
            raise

    def _way_back(self) -> str:
        """Return what mends a broken record: each generation keeps its own, beside its plan."""
        copy = f"{self._current}/record.json"
        if self._machine.read(copy):
            return f"the generation in force keeps its own: cp {copy} {self._record}"
        return f"{self._home} holds each generation's deployment.json; move the record away to install anew"

    def confirmed(self, record: Record | None) -> Record | None:
        """Return the last record that was healthy: this one, or the one it would fall back to."""
        if record is None or record.confirmed:
            return record
        path = f"{self.path(record.fallback)}/record.json"
        content = self._machine.read(path, codec.MAX_BYTES)
        return schema.read(Record, content, source=path) if content else None

    def save(self, record: Record) -> None:
        """Write the record; one of an earlier schema is kept beside it."""
        before = self._machine.read(self._record, codec.MAX_BYTES)
        if before and (old := schema.schema_of(before)) != record.schema:
            self._machine.write(File(path=f"{self._record}.schema-{old}", content=before))
        self._machine.write(File(path=self._record, content=codec.dump_json(record).encode()))

    def confirm(self, record: Record) -> None:
        """Write that the record's generation was healthy, also into the generation itself."""
        content = codec.dump_json(replace(record, confirmed=True)).encode()
        self._machine.write(File(path=f"{self.path(record.generation)}/record.json", content=content))
        self._machine.write(File(path=self._record, content=content))

    def drop(self, number: int) -> None:
        """Remove a generation; without its plan, which goes first, it counts as none."""
        Path(self.path(number), "deployment.json").unlink(missing_ok=True)
        shutil.rmtree(self.path(number))

    def forget(self) -> None:
        """Remove the record: nothing is installed any more."""
        self._machine.remove(self._record)

    def next_number(self) -> int:
        """Return the number after the highest that was ever begun."""
        return 1 + max((int(name) for name in self._machine.names(str(self._home)) if name.isdigit()), default=0)

    def path(self, number: int) -> str:
        """Return the directory of a generation."""
        return str(self._home / str(number))

    def write(self, number: int, changes: Changeset) -> None:
        """Write a generation whole; it shows under its number only when every byte is there."""
        draft = self._home / f".{number}.new"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            self._draft(draft, changes)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        draft.rename(self.path(number))
        sync(self._home)

    def _draft(self, draft: Path, changes: Changeset) -> None:
        for file in changes.files:
            path = draft / ("root" + file.path if file.path.startswith("/") else file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        for directory, _, names in os.walk(draft):
            for name in names:
                descriptor = os.open(f"{directory}/{name}", os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
            sync(Path(directory))

    def flip(self, number: int) -> None:
        """Put a generation in force with one rename."""
        self._machine.link(f"generations/{number}", self._current)

    def unlink(self) -> None:
        """Put no generation in force."""
        self._machine.remove(self._current)

    def system_files(self, number: int) -> tuple[File, ...]:
        """Return the files of a generation that belong elsewhere on the machine."""
        root = Path(self.path(number)) / "root"
        found = (path for path in sorted(root.rglob("*")) if path.is_file())
        return tuple(
            File(path="/" + str(path.relative_to(root)), content=path.read_bytes(), mode=path.stat().st_mode & 0o777)
            for path in found
        )

    def changes(self, number: int) -> Changeset:
        """Return everything that a generation was made of, byte for byte."""
        home = Path(self.path(number))
        own = (
            path
            for path in sorted(home.rglob("*"))
            if path.is_file() and "root" not in path.relative_to(home).parts[:1]
        )
        inner = tuple(
            File(path=str(path.relative_to(home)), content=path.read_bytes(), mode=path.stat().st_mode & 0o777)
            for path in own
            if path.name != "record.json"
        )
        plan = schema.read(Deployment, self.read(number, "deployment.json"), source=f"{home}/deployment.json")
        return Changeset(deployment=plan, files=(*inner, *self.system_files(number)))

    def read(self, number: int, path: str) -> bytes:
        """Return one of its files, named as the Changeset does; b"" for one that it has not."""
        inside = f"root{path}" if path.startswith("/") else path
        return self._machine.read(f"{self.path(number)}/{inside}", codec.MAX_BYTES) or b""

    def difference(self, old: int, new: int) -> frozenset[str]:
        """Return the paths that differ between two generations, as the Changeset names them; 0 = an empty one."""
        before, after = self._contents(old), self._contents(new)
        return frozenset(path for path in {*before, *after} if before.get(path) != after.get(path))

    def _contents(self, number: int) -> dict[str, bytes]:
        home = Path(self.path(number))
        names = {str(path.relative_to(home)): path for path in home.rglob("*") if path.is_file()}
        names.pop("record.json", None)
        return {name.removeprefix("root"): path.read_bytes() for name, path in names.items()}

    def prune(self, in_force: int) -> None:
        """Remove what a rollback would not reach any more, and drafts that a killed run left."""
        names = self._machine.names(str(self._home))
        older = sorted(int(name) for name in names if name.isdigit() and int(name) < in_force)
        for name in (*map(str, older[:-KEPT]), *(name for name in names if name.startswith("."))):
            shutil.rmtree(self._home / name, ignore_errors=True)


def written(files: tuple[File, ...]) -> tuple[Written, ...]:
    """Return what the record keeps of files."""
    return tuple(Written(path=file.path, sha256=digest(file.content), mode=file.mode) for file in files)


def digest(content: bytes) -> str:
    """Return SHA-256 as hex."""
    return hashlib.sha256(content).hexdigest()
