"""Runs the campaign and prints its table: `python -m tests.campaign [--resume] [F24 B57 …]`; with no words everything.

The rows are kept in RESULTS.md, where those of other entries stay as they were. What is not run, for a part of the
machine is missing, says so; with LLM_APPLIANCE_SLOW=1 that is least. A run that was cut off writes no row, and goes on
with `--resume`: what passed in it is not run again.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.campaign.entries import HERE, Entry, belongs, entries
from tests.campaign.losses import LINE, counted

RESULTS = HERE / "RESULTS.md"
JOURNAL = HERE / "unfinished.jsonl"
"""What each test of a run came to, while it goes on."""
HEAD = """# What happened: the campaign's last run

`python -m tests.campaign` made this: each fault and each bad input that we know of is provoked by the tests that
`faults.yaml` and `inputs.yaml` name, on real servers wherever a server is what it is about. *Data* are files of the
operator, keys and weights that were there before and not after; *requests* those that a client sent meanwhile and that
were not answered as they should be. "–": nothing was there to be lost, or nobody asked meanwhile.

"""


@dataclass(eq=False)  # pytest keeps its plugins in sets
class Collected:
    """A plugin of pytest that keeps each test's outcome and output."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """Node id -> passed, failed or skipped."""
    outputs: dict[str, str] = field(default_factory=dict)

    def take_up(self) -> None:
        """Remember what passed in the run that was cut off."""
        for line in JOURNAL.read_text().splitlines() if JOURNAL.exists() else ():
            with contextlib.suppress(ValueError):  # the last line may be half a one
                node, result, output = json.loads(line)
                if result == "passed":
                    self.outcomes[node], self.outputs[node] = result, output

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is known already."""
        known = [item for item in items if item.nodeid in self.outcomes]
        config.hook.pytest_deselected(items=known)
        items[:] = [item for item in items if item not in known]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst of setup, call and teardown."""
        known = self.outcomes.get(report.nodeid, "passed")
        if known == "passed":
            self.outcomes[report.nodeid] = report.outcome
        self.outputs[report.nodeid] = self.outputs.get(report.nodeid, "") + report.capstdout
        if report.when == "teardown":
            counts = "".join(f"{found[0]}\n" for found in LINE.finditer(self.outputs[report.nodeid]))
            with JOURNAL.open("a") as file:
                file.write(json.dumps((report.nodeid, self.outcomes[report.nodeid], counts)) + "\n")
            print(f"{self.outcomes[report.nodeid]:8} {report.nodeid}", file=sys.__stderr__, flush=True)


def outcome(entry: Entry, collected: Collected) -> tuple[str, str, str]:
    """Return what happened, data lost and requests lost."""
    nodes = [node for node in collected.outcomes if any(belongs(node, test) for test in entry.by)]
    results = [collected.outcomes[node] for node in nodes]
    bad = sorted(node.rpartition("::")[2] for node in nodes if collected.outcomes[node] == "failed")
    if not entry.by:
        happened = "not provoked here"
    elif bad:
        happened = f"**failed**: {', '.join(bad)}"
    elif "passed" not in results:
        happened = "not run"
    else:
        left = f", {results.count('skipped')} skipped" if "skipped" in results else ""
        happened = f"as it must ({results.count('passed')} passed{left})"
    outputs = [collected.outputs[node] for node in nodes]
    return happened, str(counted("data", outputs)), str(counted("requests", outputs))


def row(entry: Entry, collected: Collected) -> str:
    """Return an entry's line of the table."""
    happened, data, requests = outcome(entry, collected)
    here = f"; not here: {entry.here}" if entry.here and entry.by else entry.here and f": {entry.here}"
    cells = (entry.number, entry.fault, entry.must, happened + here, data, requests)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def table(rows: Mapping[str, str]) -> str:
    """Return the table as Markdown, with its sum above it."""
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in rows.values()]
    happened = [one[3] for one in cells]
    lost = [sum(int(one[at].split()[0]) for one in cells if "of" in one[at]) for at in (4, 5)]
    sums = (
        f"{len(rows)} entries: {sum(one.startswith('as it must') for one in happened)} as they must, "
        f"{sum('**failed**' in one for one in happened)} failed, "
        f"{sum(one.startswith('not run') for one in happened)} not run, "
        f"{sum(one.startswith('not provoked') for one in happened)} that cannot be provoked here. "
        f"Lost in all: {lost[0]} files, {lost[1]} requests."
    )
    head = "| | fault | must happen | happened | data lost | requests lost |\n|---|---|---|---|---|---|"
    return "\n".join((sums, "", head, *rows.values())) + "\n"


def earlier() -> dict[str, str]:
    """Return the rows that an earlier run has left."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    return {line.split()[1]: line for line in text.splitlines() if re.match(r"\| [FB]\d+ \| ", line)}


def main(words: list[str]) -> int:
    """Run what is chosen; return 1 when something is not as it must be."""
    resumed = "--resume" in words
    words = [word for word in words if word != "--resume"]
    known = {entry.number: entry for entry in entries()}
    if unknown := [word for word in words if word not in known]:
        print(f"no entry is called {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = tuple(known[word] for word in words) if words else tuple(known.values())
    collected = Collected()
    if resumed:
        collected.take_up()
    else:
        JOURNAL.unlink(missing_ok=True)
    tests = sorted({test for entry in chosen for test in entry.by})
    if tests:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[collected])
        if code == pytest.ExitCode.INTERRUPTED:
            print("cut off; --resume goes on", file=sys.stderr)
            return 130
        if "failed" in collected.outcomes.values() or not collected.outcomes:
            print(said.getvalue()[-20000:], file=sys.stderr)
    made = {entry.number: row(entry, collected) for entry in chosen}
    print(table(made))
    rows = {number: row(entry, Collected()) for number, entry in known.items()} | earlier() | made
    JOURNAL.unlink(missing_ok=True)
    RESULTS.write_text(HEAD + table({number: rows[number] for number in known}))
    return int("failed" in collected.outcomes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
