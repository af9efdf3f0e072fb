"""What the operator's files may say: every rule that the types cannot hold, each refusal with its file and key."""

import ipaddress
import re
from dataclasses import fields

from appliance import serving
from appliance.catalog import providers
from appliance.domain.spec import TASKS, ApplianceSpec, Hub, Images, ModelSpec, Proxy, Tuning
from appliance.errors import SpecError
from appliance.options import plain

NAME = serving.NAME
RESERVED = serving.RESERVED
OPTION = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What YAML, or a configuration file, takes for the end of a line, and bytes of a path that are not UTF-8."""
KV_TYPE = re.compile(r"[a-z][a-z0-9_]{0,31}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""How engines call types, parsers and ways of quantising; also a version."""
OWNED = frozenset({
    "model", "model-name", "model-path", "served-model-name", "server-name", "server-port",
    "host", "port", "alias", "ctx-size", "parallel", "threads", "api-key",
    "n-ctx", "n-threads", "model-alias", "uds", "path", "home", "pythonpath", "ld-preload", "ld-library-path",
})  # fmt: skip
"""Flags that the appliance sets itself, whatever the engine; each engine's own are in its OWNED and FLAGS."""
ADDRESS = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?")
DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?")
IMAGE = re.compile(
    r"[a-z0-9]+([.-][a-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
"""An image's name with its registry, tag and digest."""
PROXY = re.compile(r"http://([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}/?")
NO_PROXY = re.compile(r"[A-Za-z0-9.:/*\[\]-]*(, ?[A-Za-z0-9.:/*\[\]-]+)*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SECRET = re.compile(r"(?i)(token|secret|password|passwd|api_?key|credential)s?$")
OURS = frozenset({
    "PATH", "HOME", "USER", "SHELL", "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "MAINPID",
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK",
    "ASCEND_RT_VISIBLE_DEVICES", "MUSA_VISIBLE_DEVICES", "OLLAMA_HOST", "OLLAMA_MODELS", "HF_HUB_OFFLINE",
})  # fmt: skip
"""Variables that the plan decides on, or that would make a program another one."""
SOURCES = ("auto", "hf", "ms")


def parse_listen(listen: str) -> tuple[str, int]:
    """Split `ADDRESS:PORT`, IPv6 in brackets. Raises SpecError."""
    host, _, port = listen.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host or "127.0.0.1"
    if not _is_address(host):
        raise SpecError(f"listen: {host!r} is not an IP address", hint="for example 127.0.0.1:8080")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise SpecError(f"listen: {port!r} is not a port", hint="a number from 1 to 65535")
    return host, int(port)


def check(spec: ApplianceSpec) -> ApplianceSpec:
    """Return the spec when it holds together. Raises SpecError."""
    check_hub(spec.hub)
    check_images(spec.images)
    check_proxy(spec.proxy)
    check_environment(spec.environment, "environment")
    for model in spec.models:
        check_model(model)
    serving.check_names(spec)
    serving.check_tls(spec.tls)
    serving.check_cors(spec.cors)
    serving.check_hosts(spec.gateway.hosts)
    return spec


def check_guarded(spec: ApplianceSpec, *, keys: int) -> None:
    """Raise SpecError when anybody could come in who reaches the gateway; `keys`: how many there are."""
    if not spec.insecure and not keys and not is_loopback(spec.host):
        raise SpecError(
            f"listen: {spec.listen} can be reached from outside, and no key protects it",
            hint="make one: llm-appliance keys add NAME; or listen on 127.0.0.1, or say --insecure (insecure: true) "
            "if something else guards that address",
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    return ipaddress.ip_address(host).is_loopback


def check_hub(hub: Hub) -> None:
    """Raise SpecError when hubs cannot be asked as it says."""
    if hub.endpoint and not ADDRESS.fullmatch(hub.endpoint):
        raise SpecError(f"hub.endpoint: {hub.endpoint!r} is no address", hint="for example https://hf-mirror.com")
    if hub.modelscope and not (DOMAIN.fullmatch(hub.modelscope) or ADDRESS.fullmatch(hub.modelscope)):
        raise SpecError(f"hub.modelscope: {hub.modelscope!r} is no domain", hint="for example www.modelscope.ai")
    if hub.ollama and not (DOMAIN.fullmatch(hub.ollama) or ADDRESS.fullmatch(hub.ollama)):
        raise SpecError(f"hub.ollama: {hub.ollama!r} is no address", hint="for example https://registry.ollama.ai")
    if hub.source not in SOURCES:
        raise SpecError(f"hub.source: {hub.source!r} is no hub", hint=f"one of {', '.join(SOURCES)}")
    if hub.token_file and (not hub.token_file.startswith("/") or CONTROL.search(hub.token_file)):
        # Whoever pastes the token itself here must not find it in a log.
        raise SpecError("hub.token-file: not the absolute path of a file", hint="the token itself goes into that file")


def check_images(images: Images) -> None:
    """Raise SpecError when images cannot come from there."""
    if images.registry and not IMAGE.fullmatch(images.registry.rstrip("/")):
        raise SpecError(
            f"images.registry: {images.registry!r} is no registry", hint="for example registry.example:5000/mirror"
        )
    if images.base and not IMAGE.fullmatch(images.base):
        raise SpecError(f"images.base: {images.base!r} is no image", hint="for example debian:12-slim")


def check_proxy(proxy: Proxy) -> None:
    """Raise SpecError when there can be no such proxy."""
    if proxy.https and not PROXY.fullmatch(proxy.https):
        # It may hold a password, which is not repeated here either.
        raise SpecError(
            "proxy.https: it must be http://HOST:PORT, without a name and a password",
            hint="everybody here can read it; a proxy that wants a password is reached through one on this machine",
        )
    if not NO_PROXY.fullmatch(proxy.none):
        raise SpecError(f"proxy.none: {proxy.none!r} are no hosts", hint="for example .corp.example,10.0.0.7")


def check_environment(variables: tuple[tuple[str, str], ...], where: str) -> None:
    """Raise SpecError for variables that are set by the appliance itself, or hold secrets."""
    for name, value in variables:
        if not VARIABLE.fullmatch(name):
            raise SpecError(f"{where}: {name!r} is no variable's name", hint="A-Z, a-z, 0-9 and _")
        if name in OURS:
            raise SpecError(f"{where}: {name}: is set by the appliance itself")
        if SECRET.search(name):
            raise SpecError(
                f"{where}: {name}: everybody on this machine can read what is written into units",
                hint="tokens of hubs: llm-appliance config set hub.token-file FILE; engines need no keys here",
            )
        if CONTROL.search(value):
            raise SpecError(f"{where}: {name}: control character in the value")


def check_model(model: ModelSpec) -> None:
    """Raise SpecError when a model's spec cannot be meant."""
    where = f"models.d/{model.name}.yaml"
    if not NAME.fullmatch(model.name) or model.name in RESERVED:
        raise SpecError(
            f"{model.name!r} cannot be a model's name",
            hint="1 to 63 of a-z 0-9 . - beginning with a letter or digit"
            + (f"; reserved: {', '.join(sorted(RESERVED))}" if model.name in RESERVED else ""),
        )
    bounds = (
        ("context", model.context, 64, 1 << 24),
        ("parallel", model.parallel, 1, 1024),
        ("replicas", model.replicas, 1, 64),
        ("cpus", model.cpus, 1, 1024),
    )  # fmt: skip
    for key, number, low, high in bounds:
        if number is not None and not low <= number <= high:
            raise SpecError(f"{where}: {key}: {number} is not between {low} and {high}")
    _check_gpus(model, where)
    if not KV_TYPE.fullmatch(model.kv_type):
        raise SpecError(f"{where}: kv_type: {model.kv_type!r} is no type", hint="auto, or as the engine calls it: q8_0")
    if model.image and not IMAGE.fullmatch(model.image):
        raise SpecError(f"{where}: image: {model.image!r} is no image", hint="for example vllm/vllm-openai:v0.33.0")
    _check_tuning(model, where)
    serving.check(model.serving, where)
    _check_adapters(model, where)
    _check_remote(model, where)
    check_environment(model.environment, f"{where}: environment")
    for name, _ in model.options:
        if name in OWNED:
            raise SpecError(f"{where}: options.{name}: is set by the appliance itself")
        if not OPTION.fullmatch(name):
            right = OPTION.fullmatch(plain(name))
            hint = f"write it as {plain(name)}" if right else "as the engine's manual has it, without dashes before it"
            raise SpecError(f"{where}: options.{name}: is not an option's name", hint=hint)
    texts = (
        ("source", model.source), ("chat_template", model.tuning.chat_template),
        *((f"options.{name}", value) for name, value in model.options),
        *((f"lora.{name}", path) for name, path in model.adapters),
    )  # fmt: skip
    for key, value in texts:
        if CONTROL.search(value):
            raise SpecError(f"{where}: {key}: control character in the value")


def _check_tuning(model: ModelSpec, where: str) -> None:
    tuning = model.tuning
    bounds = (
        ("batched_tokens", tuning.batched_tokens, 16, 1 << 24),
        ("memory_share", tuning.memory_share, 0.01, 0.99),
        ("seed", tuning.seed, 0, (1 << 32) - 1),
        ("pipeline_parallel", tuning.pipeline_parallel, 1, 64),
    )
    for key, number, low, high in bounds:
        if number is not None and not low <= number <= high:
            raise SpecError(f"{where}: {key}: {number} is not between {low} and {high}")
    words = (
        ("version", model.version), ("dtype", tuning.dtype), ("quantisation", tuning.quantisation),
        ("tool_parser", tuning.tool_parser), ("reasoning_parser", tuning.reasoning_parser),
    )  # fmt: skip
    for key, word in words:
        if word and not WORD.fullmatch(word):
            raise SpecError(f"{where}: {key}: {word!r} is no name that an engine has for it")
    if tuning.task not in TASKS:
        raise SpecError(f"{where}: task: {tuning.task!r} is none", hint=f"tasks: {', '.join(TASKS)}")
    if tuning.chat_template and not tuning.chat_template.startswith("/"):
        raise SpecError(f"{where}: chat_template: {tuning.chat_template!r} is not the absolute path of a file")


def _check_adapters(model: ModelSpec, where: str) -> None:
    for name, path in model.adapters:
        if not NAME.fullmatch(name) or name in RESERVED:
            raise SpecError(f"{where}: lora: {name!r} cannot be a model's name", hint="clients ask for it by this name")
        if not path.startswith("/"):
            raise SpecError(f"{where}: lora.{name}: {path!r} is not the absolute path of a directory")


def _check_remote(model: ModelSpec, where: str) -> None:
    """Of a model that a provider serves there is less to be said."""
    if not providers.is_remote(model.source):
        if model.key_file:
            raise SpecError(f"{where}: key_file: is for models of providers, {model.source} is none")
        return
    providers.place(model.source)
    if model.key_file and (not model.key_file.startswith("/") or CONTROL.search(model.key_file)):
        raise SpecError(
            f"{where}: key_file: not the absolute path of a file", hint="the key itself goes into that file"
        )
    plain = ModelSpec(
        name=model.name, source=model.source, engine=model.engine, key_file=model.key_file, replicas=model.replicas,
        parallel=model.parallel, version=model.version, tuning=Tuning(task=model.tuning.task),
    )  # fmt: skip
    if plain != model:
        wrong = next(one.name for one in fields(ModelSpec) if getattr(plain, one.name) != getattr(model, one.name))
        raise SpecError(f"{where}: {wrong}: the provider decides on that", hint="yours: replicas, parallel, task")


def _check_gpus(model: ModelSpec, where: str) -> None:
    chosen = model.gpus if isinstance(model.gpus, tuple) else ()
    if isinstance(model.gpus, int) and not 0 <= model.gpus <= 64:
        raise SpecError(f"{where}: gpus: {model.gpus} is not between 0 and 64")
    if model.gpus == () or len({*chosen}) < len(chosen) or any(not 0 <= index < 64 for index in chosen):
        raise SpecError(f"{where}: gpus: {list(chosen)} are not indexes of different GPUs")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host  # an interface's name: Python takes it, nginx does not
