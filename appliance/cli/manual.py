"""The manual's pages, written from the commands themselves: one for the program, one for each verb.

`python -m appliance.cli.manual DIR` writes them as packages need them; SOURCE_DATE_EPOCH is their date.
"""

import os
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from appliance import __version__
from appliance.errors import MEANINGS

if TYPE_CHECKING:
    Command = Any
    """Typer's own copy of click has no names that others are meant to use."""

PROGRAM: Final = "llm-appliance"
SECTION: Final = 1
WIDTH: Final = 60
"""Letters of a line, before some of them become several."""
FILES: Final = (
    ("/etc/llm-appliance/appliance.yaml", "Settings of the whole; yours to edit."),
    ("/etc/llm-appliance/models.d/NAME.yaml", "One model; yours to edit."),
    ("/etc/llm-appliance/keys.json", "Digests of clients' keys."),
    ("/var/lib/llm-appliance/store", "Weights, by digest."),
    ("/var/lib/llm-appliance/generations/N", "Each state that was in force."),
)
Rows = list[tuple[str, str]]


def pages(day: str) -> dict[str, str]:
    """Return every page by its file's name; `day` is the date that they bear, 2026-11-28."""
    root = typer.main.get_command(_app())
    verbs: dict[str, Command] = dict(sorted(root.commands.items()))  # type: ignore[attr-defined]
    top = _Context(root, PROGRAM)
    names = {verb: f"{PROGRAM}-{verb}" for verb in verbs}
    parts = (
        _head(PROGRAM, root.help or "", day),
        _synopsis([top]),
        _section("DESCRIPTION", [_paragraph(root.help or "")]),
        _section("COMMANDS", _list([(verb, _first(command.help)) for verb, command in verbs.items()], see=names)),
        _section("OPTIONS", _list(top.options)),
        _section("EXIT STATUS", _list([(str(int(code)), f"{text}.") for code, text in MEANINGS.items()])),
        _section("FILES", _list(list(FILES))),
        _section("SEE ALSO", [",\n".join(f".BR {_word(name)} ({SECTION})" for name in names.values())]),
    )
    found = {f"{PROGRAM}.{SECTION}": "".join(parts)}
    for verb, command in verbs.items():
        found[f"{names[verb]}.{SECTION}"] = _page(verb, command, day)
    return found


def write(target: Path, day: str) -> None:
    """Write every page into a directory."""
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages(day).items():
        (target / name).write_text(text)


def main() -> None:
    """Write the pages to the directory on the command line."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    write(Path(sys.argv[1]), datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d"))


class _Context:
    """A command with the words that call it."""

    def __init__(self, command: "Command", name: str) -> None:
        self.command = command
        self.name = name
        # The program's own context says which words ask for help.
        parent = typer.main.get_command(_app()).make_context(PROGRAM, [], resilient_parsing=True)
        self._context = typer.Context(command, info_name=name, parent=parent)

    @property
    def usage(self) -> str:
        """Its arguments, in the order in which they are typed."""
        return " ".join(self.command.collect_usage_pieces(self._context)).replace("[[", "[").replace("]]", "]")

    @property
    def options(self) -> Rows:
        """What each argument and option means."""
        records = (one.get_help_record(self._context) for one in self.command.get_params(self._context))
        return [record for record in records if record]


def _page(verb: str, command: "Command", day: str) -> str:
    """Return the page of a verb, or of a noun with a section for each of its verbs."""
    inner = sorted(getattr(command, "commands", {}).items())
    name = f"{PROGRAM} {verb}"
    called = [_Context(one, f"{name} {word}") for word, one in inner] or [_Context(command, name)]
    parts = [_head(f"{PROGRAM}-{verb}", command.help or "", day), _synopsis(called)]
    parts.append(_section("DESCRIPTION", [_paragraph(command.help or "")]))
    if inner:
        parts.append(_section("COMMANDS", [part for one in called for part in _inner(one)]))
    else:
        parts.append(_section("OPTIONS", _list(called[0].options)))
    parts.append(_section("SEE ALSO", [f".BR {_word(PROGRAM)} ({SECTION})"]))
    return "".join(parts)


def _inner(one: _Context) -> Iterator[str]:
    yield f".SS {_word(one.name.removeprefix(PROGRAM).strip())}"
    yield _paragraph(one.command.help or "")
    yield from _list(one.options)


def _head(name: str, text: str, day: str) -> str:
    words = (_word(name.upper()), str(SECTION), day, _word(f"{PROGRAM} {__version__}"), "User Commands")
    title = " ".join(f'"{word}"' for word in words)
    # The dash between them is what apropos and whatis look for.
    return f".TH {title}\n" + _section("NAME", [f"{_word(name)} \\-\n{_text(_first(text).rstrip('.'))}"])


def _synopsis(called: list[_Context]) -> str:
    lines = [f".B {_word(one.name)}\n{_text(one.usage)}" for one in called]
    return _section("SYNOPSIS", ["\n.br\n".join(lines)])


def _section(title: str, parts: list[str]) -> str:
    return f".SH {title}\n" + "".join(f"{part}\n" for part in parts if part)


def _list(rows: Rows, see: dict[str, str] | None = None) -> list[str]:
    """Return each row as a tagged paragraph; `see` names a row's own page."""
    parts = []
    for tag, text in rows:
        more = f"\nSee\n.BR {_word(see[tag])} ({SECTION})." if see else ""
        parts.append(f".TP\n.B {_word(tag)}\n{_text(text)}{more}")
    return parts


def _paragraph(text: str) -> str:
    return "\n.PP\n".join(_text(block) for block in text.split("\n\n") if block.strip())


def _first(text: str | None) -> str:
    """Return the first sentence's line of a help text."""
    return (text or "").strip().partition("\n")[0]


def _text(text: str) -> str:
    """Return text in short lines; one that begins with a dot or a quote is no request."""
    lines = (_word(line) for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)


def _word(text: str) -> str:
    """Return text as troff prints it letter by letter."""
    said = text.replace("\\", "\\(rs").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "".join(sign if sign.isascii() else f"\\[u{ord(sign):04X}]" for sign in said)


def _app() -> typer.Typer:
    from appliance.cli.app import app

    return app


if __name__ == "__main__":
    main()
