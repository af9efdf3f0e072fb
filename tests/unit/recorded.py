"""A Machine that changes nothing: programs answer what a test says, files lie in a dict, effects are listed in order."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.domain.changes import Command, Completed, File
from appliance.system.machine import Machine, OnLine, RealMachine

Argv = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program says."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0


class RecordedMachine:
    """Answers by the longest known beginning of argv, so `()` answers everything; an unknown program is absent."""

    def __init__(
        self,
        *,
        answers: Mapping[Argv, Answer] | None = None,
        files: Mapping[str, bytes] | None = None,
        programs: Mapping[str, str] | None = None,
    ) -> None:
        self.answers = dict(answers or {})
        self.files = dict(files or {})
        self.programs = dict(programs or {})
        self.links: dict[str, str] = {}
        self.effects: list[tuple[str, ...]] = []
        """("run", argv …), ("write", path), ("link", path, target), ("remove", path)."""

    def ran(self) -> list[Argv]:
        """Return every argv in order."""
        return [effect[1:] for effect in self.effects if effect[0] == "run"]

    def written(self) -> list[str]:
        """Return every path that was written, in order."""
        return [effect[1] for effect in self.effects if effect[0] == "write"]

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        self.effects.append(("run", *command.argv))
        known = [argv for argv in self.answers if command.argv[: len(argv)] == argv]
        absent = Answer(code=127, stderr=f"{command.argv[0]}: no such program")
        answer = self.answers[max(known, key=len)] if known else absent
        for line in answer.stdout.splitlines() if on_line else ():
            assert on_line
            on_line(line)
        return Completed(argv=command.argv, code=answer.code, stdout=answer.stdout, stderr=answer.stderr, seconds=0.25)

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        content = self.files.get(self._target(path))
        return None if content is None else content[:limit]

    def names(self, path: str) -> tuple[str, ...]:
        inside = self._target(path).rstrip("/") + "/"
        below = {*self.files, *self.links}
        return tuple(sorted({name[len(inside) :].split("/")[0] for name in below if name.startswith(inside)}))

    def which(self, program: str) -> str:
        return self.programs.get(program, "")

    def write(self, file: File) -> None:
        self.effects.append(("write", file.path))
        self.files[self._target(file.path)] = file.content

    def link(self, target: str, path: str) -> None:
        self.effects.append(("link", path, target))
        self.links[path] = target

    def remove(self, path: str) -> None:
        self.effects.append(("remove", path))
        self.files.pop(path, None)
        self.links.pop(path, None)

    def _target(self, path: str) -> str:
        """Follow the links on the way."""
        for link, target in self.links.items():
            if path == link or path.startswith(f"{link}/"):
                return self._target(posixpath.join(posixpath.dirname(link), target) + path[len(link) :])
        return path


class DiskMachine(RecordedMachine):
    """The same, but files and links are real: for what goes through a generation's directory."""

    def __init__(self, *, answers: Mapping[Argv, Answer] | None = None) -> None:
        super().__init__(answers=answers)
        self._real = RealMachine()

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        return self._real.read(path, limit)

    def names(self, path: str) -> tuple[str, ...]:
        return self._real.names(path)

    def write(self, file: File) -> None:
        self.effects.append(("write", file.path))
        self._real.write(file)

    def link(self, target: str, path: str) -> None:
        self.effects.append(("link", path, target))
        self._real.link(target, path)

    def remove(self, path: str) -> None:
        self.effects.append(("remove", path))
        self._real.remove(path)


CONFORMS: tuple[Machine, ...] = (RecordedMachine(), DiskMachine())
