"""add-model's options that mean the same whatever the engine, as typer types."""

from typing import Annotated

import typer

from appliance.errors import UsageError

PANEL = "Whatever the engine"
GATEWAY = "The gateway"


def _option(*names: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:  # noqa: A002 - typer's name
    info: typer.models.OptionInfo = typer.Option(*names, help=help, metavar=metavar, rich_help_panel=PANEL)
    return info


Version = Annotated[str, _option("--engine-version", help="Release of the engine, from `catalog list`.")]
Dtype = Annotated[str, _option(help="Type to compute in: half, bfloat16, float32.")]
BatchedTokens = Annotated[int | None, _option(help="Prompt tokens computed at once.")]
MemoryShare = Annotated[float | None, _option(help="Part of each of its GPUs' memory that a replica takes, 0.5.")]
Eager = Annotated[bool, _option("--eager", help="Capture no graphs: starts sooner, is slower.")]
TrustRemoteCode = Annotated[
    bool, _option("--trust-remote-code", help="RUN the Python files that come with the model. Off unless asked for.")
]
ChatTemplate = Annotated[str, _option(metavar="FILE", help="Jinja file instead of the model's own template.")]
ToolParser = Annotated[str, _option(help="How tool calls are read out of answers: hermes, qwen3_coder …")]
ReasoningParser = Annotated[str, _option(help="How thoughts are told from the answer: qwen3, deepseek_r1 …")]
Lora = Annotated[
    list[str] | None, _option("--lora", metavar="NAME=DIR", help="LoRA adapter, served as a model of that name.")
]
Task = Annotated[str, _option(help="chat, embed, rerank or transcribe.")]
Seed = Annotated[int | None, _option(help="Where chance begins.")]
Cpus = Annotated[int | None, _option(help="Processors of each replica.")]
Environment = Annotated[list[str] | None, _option("--env", metavar="NAME=VALUE", help="Variable of its engine.")]
PipelineParallel = Annotated[int, _option(help="Groups of GPUs that have so many of the layers each.")]

ELSEWHERE = "Served by a provider"


def _provider(*names: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:  # noqa: A002 - typer's name
    info: typer.models.OptionInfo = typer.Option(*names, help=help, metavar=metavar, rich_help_panel=ELSEWHERE)
    return info


Provider = Annotated[
    str, _provider(help="Who serves it: openai, moonshot, dashscope, deepseek …; `catalog providers`.")
]
ModelThere = Annotated[str, _provider("--model", help="What the provider calls it.")]
BaseUrl = Annotated[str, _provider("--base-url", metavar="URL", help="Address that speaks OpenAI's routes.")]
ApiKeyFile = Annotated[
    str, _provider(metavar="FILE", help="File with the provider's key, mode 0600, which is taken over; - = stdin.")
]

Balance = Annotated[
    str,
    typer.Option(
        help="How replicas share requests: lru, lottery, shortest_queue, round_robin, or prefix, where the same "
        "beginning of a conversation goes to the same replica.",
        rich_help_panel=GATEWAY,
    ),
]
Limit = Annotated[
    int | None, typer.Option(help="Requests that one replica gets at the same time.", rich_help_panel=GATEWAY)
]
Queue = Annotated[
    int | None, typer.Option(help="Requests that may wait for a replica with room.", rich_help_panel=GATEWAY)
]
Retry = Annotated[
    str,
    typer.Option(
        help="What another replica gets when one fails: unsent requests only, or before_first_byte, what was not "
        "answered either.",
        rich_help_panel=GATEWAY,
    ),
]
Fallback = Annotated[
    str, typer.Option(metavar="MODEL", help="Who answers while this one does not.", rich_help_panel=GATEWAY)
]
Alias = Annotated[
    list[str] | None, typer.Option("--alias", help="Another name that clients have for it.", rich_help_panel=GATEWAY)
]
Expose = Annotated[
    list[str] | None,
    typer.Option("--expose", help="Let in what is closed otherwise: tokenize, detokenize.", rich_help_panel=GATEWAY),
]


def file(path: str) -> str:
    """Return an absolute path. Raises UsageError when nothing is there."""
    import os

    if path and not os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"{path} is not there")
    return os.path.abspath(path) if path else ""  # noqa: PTH100 - links stay


def adapters(words: list[str]) -> tuple[tuple[str, str], ...]:
    """Read NAME=DIR. Raises UsageError."""
    pairs = [word.partition("=") for word in words]
    if wrong := next((word for word, (name, _, path) in zip(words, pairs, strict=True) if not name or not path), ""):
        raise UsageError(f"--lora {wrong!r} is not NAME=DIR", hint="for example --lora sql=/srv/adapters/sql")
    return tuple((name, file(path)) for name, _, path in pairs)


def elsewhere(source: str, engine: str, provider: str, base_url: str, model: str) -> str:
    """Return the source, put together for a model that a provider serves. Raises UsageError or SpecError."""
    from appliance.catalog import providers

    if not (provider or base_url or model):
        if engine == "remote" and not source:
            raise UsageError("which provider, and which of its models?", hint="--provider moonshot --model kimi-k2")
        return source
    if source:
        raise UsageError(f"{source} says where the model is; --provider, --base-url and --model say it, too")
    if not provider and not base_url:
        raise UsageError("--model needs --provider or --base-url", hint=f"providers: {', '.join(providers.names())}")
    return providers.source(provider, base_url, model)
