"""The manual: a page for each verb with every word that it takes, and nothing in it that troff would take for its own."""

import re
from typing import Any

import pytest
import typer

from appliance.cli import manual
from appliance.cli.app import app
from appliance.errors import MEANINGS, ExitCode

PAGES = manual.pages("2026-11-28")
ROOT = typer.main.get_command(app)
VERBS = ROOT.commands  # type: ignore[attr-defined]
REQUESTS = re.compile(r"\.(TH|SH|SS|TP|PP|B|BR|br)( |$)")


def test_every_verb_has_a_page_and_is_named_by_the_program_s() -> None:
    assert set(PAGES) == {"llm-appliance.1", *(f"llm-appliance-{verb}.1" for verb in VERBS)}
    for verb in VERBS:
        assert f".BR {manual.PROGRAM}-{verb} (1)".replace("-", "\\-") in PAGES["llm-appliance.1"]


def shown(command: Any) -> list[Any]:
    """Return the options that help shows."""
    return [one for one in command.params if not getattr(one, "hidden", False)]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_page_names_every_option_of_its_verb(verb: str) -> None:
    page = PAGES[f"llm-appliance-{verb}.1"]
    inner = getattr(VERBS[verb], "commands", {})
    for command in (*inner.values(), *(() if inner else (VERBS[verb],))):
        for option in (word for one in shown(command) for word in one.opts if word[0] == "-"):
            assert option.replace("-", "\\-") in page, f"{command.name} {option}"
    for word in inner:
        assert f".SS {verb} {word}".replace("-", "\\-") in page


def test_every_exit_code_is_explained() -> None:
    assert set(MEANINGS) == set(ExitCode)
    for code, text in MEANINGS.items():
        assert f".B {int(code)}\n{manual._word(text[:12])}" in PAGES["llm-appliance.1"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_only_our_own_lines_are_requests(name: str) -> None:
    text = PAGES[name]
    assert text.isascii()
    for line in text.splitlines():
        assert not line.startswith("'")
        assert not line.startswith(".") or REQUESTS.match(line), line


def test_text_that_looks_like_a_request_is_text() -> None:
    assert manual._text(".TH is what it says; 'tis\\n-so…") == (
        "\\&.TH is what it says; \\(aqtis\\(rsn\\-so\\[u2026]"
    )  # fmt: skip


def test_a_page_bears_the_day_of_the_release() -> None:
    assert '"2026-11-28"' in PAGES["llm-appliance.1"].splitlines()[0]
