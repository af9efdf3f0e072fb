"""The operator's own files: reads appliance.yaml and models.d/NAME.yaml strictly, and writes new ones."""

from dataclasses import asdict, dataclass, field, fields, replace

from appliance import codec, serving
from appliance.domain.changes import File
from appliance.domain.layout import Layout
from appliance.domain.spec import ApplianceSpec, GatewaySpec, Hub, Images, ModelSpec, Proxy, Serving, Tls, Tuning
from appliance.errors import SpecError
from appliance.options import asked
from appliance.specfile.checks import (
    NAME,
    OWNED,
    RESERVED,
    check,
    check_guarded,
    check_model,
    parse_listen,
)

__all__ = ["NAME", "OWNED", "RESERVED", "check", "check_guarded", "check_model", "files", "load", "parse_listen"]

HEADER = "# Made by llm-appliance; yours to edit, `llm-appliance install` puts changes into force.\n"

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _ApplianceFile:
    version: int = 1
    runtime: str = "auto"
    listen: str = "127.0.0.1:8080"
    insecure: bool = False
    hub: Hub = field(default_factory=Hub)
    images: Images = field(default_factory=Images)
    proxy: Proxy = field(default_factory=Proxy)
    environment: dict[str, Scalar] = field(default_factory=dict)
    tls: Tls = field(default_factory=Tls)
    gateway: GatewaySpec = field(default_factory=GatewaySpec)
    cors: tuple[str, ...] = ()
    splits: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelFile(Tuning):
    source: str
    engine: str = "auto"
    version: str = ""
    context: int | None = None
    parallel: int | None = None
    kv_type: str = "auto"
    gpus: tuple[int, ...] | int | None = None
    strict: bool = False
    cpus: int | None = None
    replicas: int = 1
    options: dict[str, Scalar] = field(default_factory=dict)
    image: str = ""
    lora: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Scalar] = field(default_factory=dict)
    key_file: str = ""
    balance: str = "lru"
    limit: int | None = None
    queue: int | None = None
    retry: str = "unsent"
    fallback: str = ""
    aliases: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()


def load(files: dict[str, bytes], layout: Layout) -> ApplianceSpec:
    """Read the files by path. Raises SpecError with the file and the key in its message."""
    main = _ApplianceFile()
    models = []
    for path, content in sorted(files.items()):
        source = path.removeprefix(f"{layout.etc}/")
        text = _text(content, source)
        if source == "appliance.yaml":
            main = codec.load_yaml(_ApplianceFile, text, source=source)
        else:
            models.append(_model(codec.load_yaml(_ModelFile, text, source=source), source))
    if main.version != 1:
        raise SpecError(f"appliance.yaml: version: {main.version} is not known", hint="this release knows version 1")
    host, port = parse_listen(main.listen)
    return check(
        ApplianceSpec(
            runtime=main.runtime,
            host=host,
            port=port,
            insecure=main.insecure,
            hub=main.hub,
            images=main.images,
            proxy=main.proxy,
            environment=_pairs(main.environment),
            tls=main.tls,
            gateway=main.gateway,
            cors=main.cors,
            splits=tuple((name, tuple(parts.items())) for name, parts in main.splits.items()),
            models=tuple(models),
        )
    )


def files(spec: ApplianceSpec, existing: dict[str, bytes], layout: Layout) -> tuple[File, ...]:
    """Return the operator's files for a spec: a file that says the same already keeps every byte."""
    there = load(existing, layout) if existing else ApplianceSpec()
    known = {model.name: model for model in there.models}
    path = f"{layout.etc}/appliance.yaml"
    same = _without_models(there) == _without_models(spec) and path in existing
    result = [File(path=path, content=existing[path] if same else _dump_appliance(spec))]
    for model in spec.models:
        path = f"{layout.etc}/models.d/{model.name}.yaml"
        content = existing[path] if known.get(model.name) == model and path in existing else _dump_model(model)
        result.append(File(path=path, content=content))
    return tuple(result)


def _model(document: _ModelFile, source: str) -> ModelSpec:
    name = source.removeprefix("models.d/").removesuffix(".yaml")
    return ModelSpec(
        name=name,
        source=document.source,
        engine=document.engine,
        context=document.context,
        parallel=document.parallel,
        kv_type=document.kv_type,
        gpus=document.gpus,
        strict=document.strict,
        cpus=document.cpus,
        replicas=document.replicas,
        options=_pairs(document.options),
        version=document.version,
        tuning=Tuning(**{one.name: getattr(document, one.name) for one in fields(Tuning)}),
        adapters=tuple(document.lora.items()),
        image=document.image,
        environment=_pairs(document.environment),
        key_file=document.key_file,
        serving=Serving(**{one.name: getattr(document, one.name) for one in fields(Serving)}),
    )


def _pairs(document: dict[str, Scalar]) -> tuple[tuple[str, str], ...]:
    return tuple((key, _scalar(value)) for key, value in document.items())


def _scalar(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"{source}: not UTF-8 at byte {error.start}") from error


def _without_models(spec: ApplianceSpec) -> ApplianceSpec:
    return replace(spec, models=())


def _dump_appliance(spec: ApplianceSpec) -> bytes:
    data: dict[str, object] = {
        "version": 1, "runtime": spec.runtime, "listen": spec.listen, "insecure": spec.insecure,
    }  # fmt: skip
    sections = (
        ("hub", spec.hub, Hub()),
        ("images", spec.images, Images()),
        ("proxy", spec.proxy, Proxy()),
        ("tls", spec.tls, Tls()),
        ("gateway", spec.gateway, GatewaySpec()),
    )
    for name, part, default in sections:
        chosen = {key: value for key, value in asdict(part).items() if value != getattr(default, key)}
        data |= {name: chosen} if chosen else {}
    if spec.environment:
        data["environment"] = dict(spec.environment)
    data |= {"cors": list(spec.cors)} if spec.cors else {}
    data |= {"splits": {name: dict(parts) for name, parts in spec.splits}} if spec.splits else {}
    return (HEADER + codec.dump_yaml(data)).encode()


def _dump_model(model: ModelSpec) -> bytes:
    optional: dict[str, object] = {
        "version": model.version,
        "context": model.context,
        "parallel": model.parallel,
        "kv_type": "" if model.kv_type == "auto" else model.kv_type,
        "gpus": list(model.gpus) if isinstance(model.gpus, tuple) else model.gpus,
        "cpus": model.cpus,
        "strict": model.strict,
        **asked(model.tuning),
        "image": model.image,
        "lora": dict(model.adapters),
        "options": dict(model.options),
        "environment": dict(model.environment),
        "key_file": model.key_file,
        **serving.asked(model.serving),
    }
    data: dict[str, object] = {
        "source": model.source,
        "engine": model.engine,
        "replicas": model.replicas,
        **{key: value for key, value in optional.items() if value or (key in ("gpus", "seed", "queue") and value == 0)},
    }
    return (HEADER + codec.dump_yaml(data)).encode()
