"""add-model, remove-model, list."""

from typing import Annotated

import typer

from appliance.cli import tuning
from appliance.cli.doctor import Ignore
from appliance.cli.options import Catalog, DryRun, Json, Offline, OtherHost, Prefix, Replan
from appliance.cli.plans import preview, report
from appliance.cli.site import finish, known_models, layout, site
from appliance.errors import UsageError
from appliance.report import Result

EXAMPLES = {"--set": "temp=0.7", "--env": "VLLM_LOGGING_LEVEL=DEBUG"}


def known_names(incomplete: str) -> list[str]:
    """Return the names of the catalog that begin so, for the shells' completion."""
    from appliance.catalog.models import load
    from appliance.catalog.models.names import names

    return [name for name in names(load(state=layout("").state)) if name.startswith(incomplete)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("add-model")(add_model)
    app.command("remove-model")(remove_model)
    app.command("list")(list_models)


def add_model(
    name: Annotated[
        str, typer.Argument(help="Name that clients ask for, and path of its own endpoint.", autocompletion=known_names)
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="A model of the catalog (qwen3, qwen3:8b), hf:OWNER/REPOSITORY, or a path: GGUF file (any shard of a "
            "split one) or safetensors directory. Left out, NAME is looked up.",
            autocompletion=known_names,
        ),
    ] = "",
    quantisation: Annotated[
        str,
        typer.Option(
            "--quantisation",
            "--quantization",
            help="Of a model of the catalog: Q4_K_M, fp8, awq, bf16; of any other, as the engine calls it.",
        ),
    ] = "",
    hub: Annotated[
        str, typer.Option(help="Where a model of the catalog comes from: auto, hf, ms for ModelScope, ollama.")
    ] = "auto",
    engine: Annotated[str, typer.Option(help="auto, or one of `catalog list`.")] = "auto",
    context: Annotated[int | None, typer.Option(help="Tokens for each request.")] = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", "--concurrency", help="Requests at the same time, for each replica.")
    ] = None,
    kv_type: Annotated[str, typer.Option(help="Type of the KV cache, as the engine calls it: q8_0, fp8.")] = "auto",
    gpus: Annotated[str, typer.Option(help="GPUs of each replica: how many, or which (0,1); 0 = the CPU.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse rather than serve less than is asked for.")] = False,
    replicas: Annotated[int, typer.Option(help="Engines that serve this model side by side.")] = 1,
    options: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A flag of the engine, without its dashes.")
    ] = None,
    engine_version: tuning.Version = "",
    image: Annotated[
        str, typer.Option(metavar="REF", help="Container image to run it in, instead of the catalog's (compose).")
    ] = "",
    dtype: tuning.Dtype = "auto",
    batched_tokens: tuning.BatchedTokens = None,
    memory_share: tuning.MemoryShare = None,
    eager: tuning.Eager = False,
    trust_remote_code: tuning.TrustRemoteCode = False,
    chat_template: tuning.ChatTemplate = "",
    tool_parser: tuning.ToolParser = "",
    reasoning_parser: tuning.ReasoningParser = "",
    lora: tuning.Lora = None,
    task: tuning.Task = "chat",
    seed: tuning.Seed = None,
    pipeline_parallel: tuning.PipelineParallel = 1,
    cpus: tuning.Cpus = None,
    environment: tuning.Environment = None,
    provider: tuning.Provider = "",
    model_there: tuning.ModelThere = "",
    base_url: tuning.BaseUrl = "",
    api_key_file: tuning.ApiKeyFile = "",
    balance: tuning.Balance = "lru",
    limit: tuning.Limit = None,
    queue: tuning.Queue = None,
    retry: tuning.Retry = "unsent",
    fallback: tuning.Fallback = "",
    alias: tuning.Alias = None,
    expose: tuning.Expose = None,
    catalog: Catalog = None,
    replan: Replan = False,
    ignore: Ignore = None,
    host: OtherHost = "",
    offline: Offline = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Serve one more model beside those that are served already."""
    from appliance.acquire.source import Source
    from appliance.domain.spec import ModelSpec, Serving, Tuning
    from appliance.flows import converge, documents, names, planning, secrets
    from appliance.options import plain

    here = site(prefix, as_json=as_json)
    source = tuning.elsewhere(source, engine, provider, base_url, model_there)
    key = secrets.take(here, name, api_key_file) if source.startswith("remote:") or api_key_file else None
    asked = ModelSpec(
        name=name,
        source=source,
        key_file=key.path if key else "",
        environment=_pairs("--env", environment or []),
        engine=engine,
        context=context,
        parallel=parallel,
        kv_type=kv_type,
        gpus=_gpus(gpus),
        strict=strict,
        replicas=replicas,
        cpus=cpus,
        options=tuple((plain(key), value) for key, value in _pairs("--set", options or [])),
        version=engine_version,
        image=image,
        adapters=tuning.adapters(lora or []),
        serving=Serving(
            balance=balance,
            limit=limit,
            queue=queue,
            retry=retry,
            fallback=fallback,
            aliases=tuple(alias or ()),
            expose=tuple(expose or ()),
        ),
        tuning=Tuning(
            dtype=dtype,
            batched_tokens=batched_tokens,
            memory_share=memory_share,
            eager=eager,
            trust_remote_code=trust_remote_code,
            chat_template=tuning.file(chat_template),
            tool_parser=tool_parser,
            reasoning_parser=reasoning_parser,
            task=task,
            seed=seed,
            pipeline_parallel=pipeline_parallel,
        ),
    )
    terms = planning.Terms(catalog=catalog, replan=replan, ignore=tuple(ignore or ()), offline=offline)
    wish = names.Wish(quantisation=quantisation, hub=hub)
    if host and not dry_run:
        raise UsageError("--host plans for another machine, nothing can be added there", hint="say --dry-run too")
    other = documents.read_host(host) if host else None
    model = names.resolve(here, asked, wish, terms, other).model
    if dry_run:
        return preview("add-model", planning.planned(here, converge.add(model), terms, other), as_json=as_json)
    done = converge.converge(here, converge.add(model), Source(offline=offline), terms, secret=key)
    return report("add-model", done, as_json=as_json)


def remove_model(
    name: Annotated[str, typer.Argument(help="The model's name.", autocompletion=known_models)],
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Stop serving a model; its weights stay in the store."""
    from appliance.acquire.source import Source
    from appliance.flows import converge, planning

    here = site(prefix, as_json=as_json)
    if dry_run:
        return preview("remove-model", planning.planned(here, converge.without(name)), as_json=as_json)
    return report("remove-model", converge.converge(here, converge.without(name), Source()), as_json=as_json)


def list_models(prefix: Prefix = "", as_json: Json = False) -> int:
    """Show the models that are configured."""
    from appliance.flows.site import installed
    from appliance.report import amount_text
    from appliance.verify import url

    here = site(prefix, as_json=as_json)
    deployment = installed(here).deployment
    rows = [
        {
            "name": model.name,
            "source": model.source,
            "format": model.weights.format,
            "architecture": model.weights.architecture,
            "size": model.weights.size,
            "engine": next(item.engine for item in deployment.services if item.model == model.name),
            "context": next(
                0 if item.remote else item.setting.context for item in deployment.services if item.model == model.name
            ),
            "endpoint": f"{url(deployment)}/{model.name}/v1",
        }
        for model in deployment.models
    ]
    lines = [f"{'NAME':16} {'ENGINE':16} {'CONTEXT':>8} {'SIZE':>10}  ENDPOINT"]
    for row in rows:
        size = amount_text(int(str(row["size"])))
        lines.append(f"{row['name']:16} {row['engine']:16} {row['context'] or '-':>8} {size:>10}  {row['endpoint']}")
    return finish(Result(command="list", data={"models": rows}, text="\n".join(lines)), as_json=as_json)


def _gpus(text: str) -> tuple[int, ...] | int | None:
    """Read `2` as how many and `0,1` as which; `0,` is the first one alone."""
    if not text:
        return None
    words = [word.strip() for word in text.split(",")]
    numbers = [word for word in words if word]
    if not numbers or not all(word.isascii() and word.isdigit() and len(word) < 4 for word in numbers):
        raise UsageError(f"--gpus {text!r} is not a number of GPUs", hint="--gpus 2, or which ones: --gpus 0,1")
    return tuple(map(int, numbers)) if len(words) > 1 else int(text)


def _pairs(option: str, words: list[str]) -> tuple[tuple[str, str], ...]:
    """Read KEY=VALUE, each key once."""
    pairs = [word.partition("=") for word in words]
    if wrong := next((word for word, (key, equals, _) in zip(words, pairs, strict=True) if not key or not equals), ""):
        raise UsageError(f"{option} {wrong!r} is not KEY=VALUE", hint=f"for example {option} {EXAMPLES[option]}")
    keys = [key for key, _, _ in pairs]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"{option} {repeated[0]} is given twice")
    return tuple((key, value) for key, _, value in pairs)
