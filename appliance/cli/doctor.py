"""doctor."""

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.errors import ExitCode
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.domain.finding import Finding
    from appliance.flows.doctor import Diagnosis

COLOURS = {"error": "\033[31m", "warning": "\033[33m", "info": "\033[36m"}
PLAIN = "\033[0m"


def known_checks(incomplete: str) -> list[str]:
    """Return the ids of checks that begin so, for the shells' completion."""
    from appliance.doctor import checks

    return [name for name in checks() if name.startswith(incomplete)]


Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="ID", help="Go on although this check fails; may be repeated.", autocompletion=known_checks
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    ignore: Ignore = None,
    list_checks: Annotated[bool, typer.Option("--list", help="Show what is looked for, and look for nothing.")] = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Look for everything that is wrong here, and say what mends it; exit code 4 when there are errors."""
    if list_checks:
        return _show_checks(as_json=as_json)
    from appliance.flows import doctor as flow

    ignored = flow.known(tuple(ignore or ()))
    diagnosis = flow.examine(site(prefix, as_json=as_json))
    data = {
        "findings": [{**_plain(item), "ignored": item.id in ignored} for item in diagnosis.findings],
        "checks": diagnosis.checks,
    }
    code = ExitCode.HOST if diagnosis.errors(ignored) else ExitCode.OK
    result = Result(command="doctor", data=data, text=_text(diagnosis, ignored, colour=_colour()), exit_code=code)
    return finish(result, as_json=as_json)


def _show_checks(*, as_json: bool) -> int:
    from appliance.doctor import checks

    rows = [{"id": item.id, "about": item.about} for item in checks().values()]
    text = "\n".join(f"{row['id']:24} {row['about']}" for row in rows)
    return finish(Result(command="doctor", data={"checks": rows}, text=text), as_json=as_json)


def _plain(finding: "Finding") -> dict[str, object]:
    fields = asdict(finding)
    del fields["prevents"]
    return fields


def _colour() -> bool:
    return bool(sys.stdout and sys.stdout.isatty()) and not os.environ.get("NO_COLOR")


def _text(diagnosis: "Diagnosis", ignored: tuple[str, ...], *, colour: bool) -> str:
    if not diagnosis.findings:
        return f"no problems found ({diagnosis.checks} checks)"
    width = max(len(item.id) for item in diagnosis.findings)
    lines = []
    for severity, group in groupby(diagnosis.findings, key=lambda item: item.severity):
        head = f"{COLOURS[severity]}{severity:8}{PLAIN}" if colour else f"{severity:8}"
        for item in group:
            first, *rest = _block(item, width, ignored=item.id in ignored)
            lines += [f"{head} {first}", *(f"{'':8} {line}" for line in rest)]
        lines.append("")
    return "\n".join([*lines, _summary(diagnosis, ignored)])


def _block(finding: "Finding", width: int, *, ignored: bool) -> list[str]:
    mark = " (ignored)" if ignored else ""
    line = f"{finding.id:{width}}  {finding.subject}: {finding.message}{mark}"
    # Names come from programs and files of others: no escape sequence of theirs reaches the terminal.
    return [_printable(text) for text in (line, *_mend(finding.remedy, " " * (width + 2)))]


def _printable(line: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def _mend(remedy: Iterable[str], indent: str) -> list[str]:
    return [f"{indent}{'mend: ' if number == 0 else '      '}{line}" for number, line in enumerate(remedy)]


def _summary(diagnosis: "Diagnosis", ignored: tuple[str, ...]) -> str:
    severities = [item.severity for item in diagnosis.findings if item.id not in ignored]
    counts = [(severities.count("error"), "error"), (severities.count("warning"), "warning")]
    parts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts]
    parts.append(f"{severities.count('info')} worth to know")
    left = len(diagnosis.findings) - len(severities)
    parts += [f"{left} ignored"] if left else []
    return f"{', '.join(parts)} ({diagnosis.checks} checks)"
