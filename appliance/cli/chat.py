"""chat: a conversation with a model in the terminal, or one question through a pipe."""

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, known_models, let_go, say, site
from appliance.errors import ApplianceError, InterruptedRunError, UsageError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.flows.chat import Conversation

LONGEST = 16 << 20
"""Characters of a question that comes through a pipe."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(chat)


def chat(
    model: Annotated[str, typer.Argument(help="Its name, or an alias.", autocompletion=known_models)],
    system: Annotated[str, typer.Option("--system", "-s", metavar="TEXT", help="What it is told beforehand.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 = the same answer each time.")] = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Talk to a model: Ctrl-C stops an answer, Ctrl-D leaves. What comes through a pipe is one question."""
    from appliance.flows import chat as flow

    here = site(prefix, as_json=as_json)
    talk = flow.begin(here, model, system=system, max_tokens=max_tokens, temperature=temperature)
    if not sys.stdin or not sys.stdin.isatty():
        return _once(talk, as_json=as_json)
    if as_json:
        raise UsageError("--json is for one question", hint=f"echo QUESTION | {here.command}")
    return _converse(talk)


def _once(talk: "Conversation", *, as_json: bool) -> int:
    """Answer what standard input holds."""
    question = sys.stdin.read(LONGEST).strip() if sys.stdin else ""
    if not question:
        raise UsageError("no question came through the pipe", hint=f"echo Hello | llm-appliance chat {talk.model}")
    began = time.monotonic()
    if as_json:
        answer = "".join(talk.ask(question))
        data = {"model": talk.model, "answer": answer, "usage": talk.usage or None,
                "seconds": round(time.monotonic() - began, 3)}  # fmt: skip
        return finish(Result(command="chat", data=data), as_json=True)
    try:
        _show(talk.ask(question))
    except BrokenPipeError:
        let_go()  # whoever read us has read enough
    return 0


def _converse(talk: "Conversation") -> int:
    with suppress(ImportError):
        import readline  # noqa: F401 - arrow keys, and what was asked before

    say(f"{talk.model}: Ctrl-C stops an answer, Ctrl-D leaves")
    while True:
        try:
            question = input(">>> ").strip()
        except EOFError:
            say("")
            return 0
        except InterruptedRunError:
            say("")
            continue
        if question:
            _turn(talk, question)


def _turn(talk: "Conversation", question: str) -> None:
    began, answer = time.monotonic(), talk.ask(question)
    try:
        _show(answer)
    except InterruptedRunError:
        say(" [stopped]")
    except ApplianceError as error:
        say(f"error: {error.message}" + (f"\nhint:  {error.hint}" if error.hint else ""))
    else:
        tokens = (talk.usage or {}).get("completion_tokens")
        seconds = time.monotonic() - began
        say(f"[{tokens} tokens in {seconds:.1f} s, {tokens / max(seconds, 1e-3):.0f} a second]" if tokens else "")
    finally:
        answer.close()  # so that the engine stops, too


def _show(pieces: Iterable[str]) -> None:
    """Write an answer as it comes, and end its line."""
    last = ""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
        last = piece
    if not last.endswith("\n"):
        sys.stdout.write("\n")
        sys.stdout.flush()
