"""The operator's files: what may stand in them, what is refused and why, and that nothing of theirs is rewritten."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import specfile
from appliance.domain.spec import ApplianceSpec, ModelSpec, Tuning
from appliance.errors import SpecError
from tests.unit.samples import LAYOUT

MAIN = f"{LAYOUT.etc}/appliance.yaml"


def path(name: str) -> str:
    return f"{LAYOUT.etc}/models.d/{name}.yaml"


def load(main: str = "", **models: str) -> ApplianceSpec:
    files = {path(name): text.encode() for name, text in models.items()}
    return specfile.load({MAIN: main.encode(), **files}, LAYOUT)


def rewritten(spec: ApplianceSpec, existing: dict[str, bytes]) -> dict[str, bytes]:
    return {file.path: file.content for file in specfile.files(spec, existing, LAYOUT)}


GOOD = ("smoke", "qwen3-0.6b", "a", "0", "llama-3.1-8b-instruct", "a..b", "x" * 63, "v1.5", "v10", "model")
BAD = (
    "", "../x", "a/b", "a b", "-rf", "--help", ".", "..", ".hidden", "x" * 64, "x" * 300, "🦙", "é", "Smoke", "a_1", "a\n", "\n", "a\0",
    "a;b", "a$b", "a%b", "a'b", 'a"b', "v1", "health", "metrics", "gateway", "llm-appliance",
)  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_may_be(name: str) -> None:
    specfile.check_model(ModelSpec(name=name, source="/a.gguf"))


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_may_not_be(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        specfile.check_model(ModelSpec(name=name, source="/a.gguf"))
    assert caught.value.message == f"{name!r} cannot be a model's name"
    assert "1 to 63 of a-z 0-9 . -" in caught.value.hint
    assert ("reserved: " in caught.value.hint) == (name in specfile.RESERVED)


@given(st.text(max_size=70))
def test_a_name_is_safe_wherever_it_is_used(name: str) -> None:
    try:
        specfile.check_model(ModelSpec(name=name, source="/a"))
    except SpecError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert 1 <= len(name) <= 63
    assert name[0] not in ".-"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("8080", "127.0.0.1", 8080),
        (":8080", "127.0.0.1", 8080),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:1", "::1", 1),
        ("[::]:65535", "::", 65535),
        ("[2001:db8::7]:443", "2001:db8::7", 443),
    ],
)
def test_a_listening_address(text: str, host: str, port: int) -> None:
    assert specfile.parse_listen(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:0", "listen: '0' is not a port"),
        ("127.0.0.1:65536", "listen: '65536' is not a port"),
        ("127.0.0.1:http", "listen: 'http' is not a port"),
        ("127.0.0.1:", "listen: '' is not a port"),
        ("127.0.0.1:-1", "listen: '-1' is not a port"),
        ("127.0.0.1:+80", "listen: '+80' is not a port"),
        ("127.0.0.1: 80", "listen: ' 80' is not a port"),
        ("127.0.0.1:٣", "listen: '٣' is not a port"),
        ("127.0.0.1:²", "listen: '²' is not a port"),
        ("127.0.0.1:" + "9" * 5000, "listen: '999"),
        ("127.0.0.1", "listen: '127.0.0.1' is not a port"),
        ("", "listen: '' is not a port"),
        ("localhost:80", "listen: 'localhost' is not an IP address"),
        ("http://127.0.0.1:80", "listen: 'http://127.0.0.1' is not an IP address"),
        ("127.0.0.256:80", "listen: '127.0.0.256' is not an IP address"),
        ("127.1:80", "listen: '127.1' is not an IP address"),
        ("*:80", "listen: '*' is not an IP address"),
        ("[::1:80", "listen: '[::1' is not an IP address"),
        ("[fe80::1%eth0]:80", "listen: 'fe80::1%eth0' is not an IP address"),
        ("[::1%;\n]:80", "listen: "),
    ],
)
def test_a_listening_address_that_is_none(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        specfile.parse_listen(text)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_is_read_as_it_is_written(address: object, port: int) -> None:
    host = str(address)
    if "%" not in host:
        assert specfile.parse_listen(ApplianceSpec(host=host, port=port).listen) == (host, port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "10.0.0.1", "8.8.8.8", "2001:db8::1"])
def test_a_public_address_needs_to_be_asked_for(host: str) -> None:
    spec = ApplianceSpec(host=host)
    with pytest.raises(SpecError, match="can be reached from outside, and no key protects it") as caught:
        specfile.check_guarded(spec, keys=0)
    assert spec.listen in caught.value.message
    assert "keys add" in caught.value.hint
    assert "--insecure" in caught.value.hint
    specfile.check_guarded(replace(spec, insecure=True), keys=0)
    specfile.check_guarded(spec, keys=1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_needs_nothing(host: str) -> None:
    specfile.check_guarded(ApplianceSpec(host=host), keys=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 63}, "models.d/a.yaml: context: 63 is not between 64 and 16777216"),
        ({"context": 0}, "models.d/a.yaml: context: 0 is not"),
        ({"context": 1 << 25}, "models.d/a.yaml: context: 33554432 is not"),
        ({"parallel": 0}, "models.d/a.yaml: parallel: 0 is not between 1 and 1024"),
        ({"replicas": 0}, "models.d/a.yaml: replicas: 0 is not between 1 and 64"),
        ({"replicas": -1}, "models.d/a.yaml: replicas: -1 is not"),
        ({"replicas": 65}, "models.d/a.yaml: replicas: 65 is not"),
        ({"gpus": -1}, "models.d/a.yaml: gpus: -1 is not between 0 and 64"),
        ({"gpus": 65}, "models.d/a.yaml: gpus: 65 is not between 0 and 64"),
        ({"gpus": ()}, "models.d/a.yaml: gpus: [] are not indexes of different GPUs"),
        ({"gpus": (0, 0)}, "models.d/a.yaml: gpus: [0, 0] are not indexes of different GPUs"),
        ({"gpus": (0, -1)}, "models.d/a.yaml: gpus: [0, -1] are not indexes of different GPUs"),
        ({"gpus": (64,)}, "models.d/a.yaml: gpus: [64] are not indexes of different GPUs"),
        ({"kv_type": ""}, "models.d/a.yaml: kv_type: '' is no type"),
        ({"kv_type": "Q8_0"}, "models.d/a.yaml: kv_type: 'Q8_0' is no type"),
        ({"kv_type": "q8 0"}, "models.d/a.yaml: kv_type: 'q8 0' is no type"),
        ({"kv_type": "q8_0\n"}, "models.d/a.yaml: kv_type: 'q8_0\\n' is no type"),
        ({"kv_type": "f" * 33}, "models.d/a.yaml: kv_type: 'fff"),
        ({"options": (("ctx-size", "1"),)}, "models.d/a.yaml: options.ctx-size: is set by the appliance itself"),
        ({"options": (("host", "0.0.0.0"),)}, "models.d/a.yaml: options.host: is set by the appliance itself"),
        ({"options": (("api-key", "x"),)}, "models.d/a.yaml: options.api-key: is set by the appliance itself"),
        ({"options": (("--temp", "1"),)}, "models.d/a.yaml: options.--temp: is not an option's name"),
        ({"options": (("Temp", "1"),)}, "models.d/a.yaml: options.Temp: is not an option's name"),
        ({"options": (("a b", "1"),)}, "models.d/a.yaml: options.a b: is not an option's name"),
        ({"options": (("", "1"),)}, "models.d/a.yaml: options.: is not an option's name"),
        ({"options": (("temp", "1\n2"),)}, "models.d/a.yaml: options.temp: control character in the value"),
        ({"options": (("temp", "1\x7f"),)}, "models.d/a.yaml: options.temp: control character in the value"),
        ({"source": "/a\nb.gguf"}, "models.d/a.yaml: source: control character in the value"),
        ({"source": "/a\x85.gguf"}, "models.d/a.yaml: source: control character in the value"),
        ({"source": "/\udcff.gguf"}, "models.d/a.yaml: source: control character in the value"),
    ],
)
def test_a_value_that_cannot_be_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        specfile.check_model(replace(ModelSpec(name="a", source="/a"), **changes))  # type: ignore[arg-type]
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("gpus", [0, 1, 64, (0,), (63, 0, 7)])
def test_gpus_are_a_number_or_these(gpus: int | tuple[int, ...]) -> None:
    spec = ApplianceSpec(models=(specfile_model(gpus=gpus),))
    assert specfile.load(rewritten(spec, {}), LAYOUT) == spec


def specfile_model(**more: object) -> ModelSpec:
    found = replace(ModelSpec(name="a", source="/a"), **more)  # type: ignore[arg-type]
    specfile.check_model(found)
    return found


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"gpus": 0}, "gpus: 0\n"),
        ({"gpus": 2}, "gpus: 2\n"),
        ({"gpus": (1, 3)}, "gpus:\n- 1\n- 3\n"),
        ({"kv_type": "q8_0"}, "kv_type: q8_0\n"),
        ({"strict": True}, "strict: true\n"),
        ({}, ""),
    ],
)
def test_what_is_not_said_is_not_written(more: dict[str, object], text: str) -> None:
    content = rewritten(ApplianceSpec(models=(specfile_model(**more),)), {})[path("a")].decode()
    assert content.partition("replicas: 1\n")[2] == text


def test_gpus_and_their_kin_are_read() -> None:
    spec = load(
        a="source: /a\ngpus: [1, 0]\nkv_type: fp8\nstrict: true\n", b="source: /b\ngpus: 0\n", c="source: /c\ngpus: 2\n"
    )
    assert [one.gpus for one in spec.models] == [(1, 0), 0, 2]
    assert (spec.models[0].kv_type, spec.models[0].strict) == ("fp8", True)
    assert (spec.models[1].kv_type, spec.models[1].strict) == ("auto", False)


def test_nothing_said_means_the_defaults() -> None:
    assert load() == ApplianceSpec()
    assert (ApplianceSpec().listen, ApplianceSpec().insecure) == ("127.0.0.1:8080", False)


def test_everything_said_is_read() -> None:
    spec = load(
        "version: 1\nruntime: supervisord\nlisten: '[::1]:81'\n",
        b="source: /b.gguf\nengine: llama-cpp\ncontext: 8192\nparallel: 2\nreplicas: 3\noptions: {temp: 0.5, mlock: true, seed: 7, name: x}\n",
        a="source: builtin:smoke\n",
    )
    assert spec == ApplianceSpec(
        runtime="supervisord",
        host="::1",
        port=81,
        models=(
            ModelSpec(name="a", source="builtin:smoke"),
            ModelSpec(
                name="b",
                source="/b.gguf",
                engine="llama-cpp",
                context=8192,
                parallel=2,
                replicas=3,
                options=(("temp", "0.5"), ("mlock", "true"), ("seed", "7"), ("name", "x")),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("main", "models", "message"),
    [
        ("version: 2", {}, "appliance.yaml: version: 2 is not known"),
        ("runtme: auto", {}, "appliance.yaml: runtme: unknown key"),
        ("listen: 8080", {}, "appliance.yaml: listen: Input should be a valid string"),
        ("insecure: 'yes'", {}, "appliance.yaml: insecure: Input should be a valid boolean"),
        ("", {"a": "engine: auto"}, "models.d/a.yaml: source: Field required"),
        ("", {"a": "source: /a\ngpu: 1"}, "models.d/a.yaml: gpu: unknown key"),
        ("", {"a": "source: /a\ngpus: two"}, "models.d/a.yaml: gpus"),
        ("", {"a": "source: /a\ngpus: true"}, "models.d/a.yaml: gpus"),
        ("", {"a": "source: /a\ngpus: 1.5"}, "models.d/a.yaml: gpus"),
        ("", {"a": "source: /a\ngpus: ['0']"}, "models.d/a.yaml: gpus"),
        ("", {"a": "source: /a\ngpus: []"}, "models.d/a.yaml: gpus: [] are not indexes of different GPUs"),
        ("", {"a": "source: /a\ngpus: 1000"}, "models.d/a.yaml: gpus: 1000 is not between 0 and 64"),
        ("", {"a": "source: /a\nkv_type: 8"}, "models.d/a.yaml: kv_type: Input should be a valid string"),
        ("", {"a": "source: /a\nstrict: 1"}, "models.d/a.yaml: strict: Input should be a valid boolean"),
        ("", {"a": "source: /a\nsource: /b"}, "models.d/a.yaml: not valid YAML: key given twice: source"),
        ("", {"a": "source: /a\noptions: {temp: [1]}"}, "models.d/a.yaml: options.temp"),
        ("", {"a": "source: /a\noptions: {temp: null}"}, "models.d/a.yaml: options.temp"),
        ("", {"A": "source: /a"}, "'A' cannot be a model's name"),
        ("", {"v1": "source: /a"}, "'v1' cannot be a model's name"),
    ],
)
def test_a_refusal_names_file_and_key(main: str, models: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(main, **models)
    assert caught.value.message.startswith(message)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(SpecError, match=r"^appliance.yaml: not UTF-8 at byte 3$"):
        specfile.load({MAIN: b"abc\xff"}, LAYOUT)


COMMENTED = {
    MAIN: b"# ours, see ticket 7\nlisten:   '127.0.0.1:9000'   # behind the other nginx\n\n\n",
    path("a"): "# ünïcode and odd spacing\nsource : /a.gguf\noptions : { temp : 0.50 , mlock : yes }\n".encode(),
    path("b"): b"{source: /b.gguf}",
}


def test_a_file_that_says_the_same_keeps_every_byte() -> None:
    assert rewritten(specfile.load(COMMENTED, LAYOUT), COMMENTED) == COMMENTED


def test_a_change_touches_its_own_file_only() -> None:
    spec = specfile.load(COMMENTED, LAYOUT)
    assert {
        name for name, text in rewritten(replace(spec, port=9001), COMMENTED).items() if text != COMMENTED[name]
    } == {MAIN}
    other = replace(spec, models=(replace(spec.models[0], context=512), spec.models[1]))
    files = rewritten(other, COMMENTED)
    assert {name for name, text in files.items() if text != COMMENTED[name]} == {path("a")}
    assert specfile.load(files, LAYOUT) == other


def test_a_new_file_says_who_made_it() -> None:
    files = rewritten(ApplianceSpec(models=(ModelSpec(name="a", source="/a.gguf"),)), {})
    assert sorted(files) == [MAIN, path("a")]
    assert all(text.startswith(b"# Made by llm-appliance; yours to edit") for text in files.values())
    assert files[path("a")].endswith(b"source: /a.gguf\nengine: auto\nreplicas: 1\n")


plain = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20)
tunings = st.builds(
    Tuning,
    dtype=st.sampled_from(["auto", "half", "float32"]),
    quantisation=st.sampled_from(["", "awq", "fp8"]),
    batched_tokens=st.none() | st.integers(16, 1 << 20),
    memory_share=st.none() | st.floats(0.01, 0.99),
    eager=st.booleans(),
    trust_remote_code=st.booleans(),
    chat_template=st.just("") | plain.map("/".__add__),
    tool_parser=st.sampled_from(["", "hermes", "no"]),
    reasoning_parser=st.sampled_from(["", "qwen3", "on"]),
    task=st.sampled_from(["chat", "embed", "rerank"]),
    seed=st.none() | st.integers(0, 1 << 30),
    pipeline_parallel=st.integers(1, 64),
)


def with_own_adapters(one: ModelSpec) -> ModelSpec:
    """Give a model's adapters names that no other model's have: clients ask for them by name."""
    home = hashlib.sha256(one.name.encode()).hexdigest()[:16]
    return replace(one, adapters=tuple((f"adapter-{home}-{n}", path) for n, (_, path) in enumerate(one.adapters)))


models = st.builds(
    ModelSpec,
    name=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True).filter(lambda name: name not in specfile.RESERVED),
    source=plain,
    engine=plain,
    context=st.none() | st.integers(64, 1 << 24),
    parallel=st.none() | st.integers(1, 1024),
    replicas=st.integers(1, 64),
    gpus=st.none() | st.integers(0, 64) | st.lists(st.integers(0, 63), min_size=1, max_size=8, unique=True).map(tuple),
    kv_type=st.sampled_from(["auto", "fp8", "q8_0", "no", "on"]),
    strict=st.booleans(),
    version=st.sampled_from(["", "0.33.0", "0.8.5.post1"]),
    tuning=tunings,
    adapters=st.dictionaries(
        st.from_regex(r"adapter-[a-z0-9]{12}", fullmatch=True), plain.map("/".__add__), max_size=2
    ).map(lambda pairs: tuple(pairs.items())),
    options=st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name not in specfile.OWNED),
        plain | st.just(""),
        max_size=3,
    ).map(lambda pairs: tuple(pairs.items())),
).map(with_own_adapters)
specs = st.builds(
    ApplianceSpec,
    runtime=plain,
    host=st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "2001:db8::1"]),
    port=st.integers(1, 65535),
    insecure=st.just(True),
    models=st.lists(models, max_size=3, unique_by=lambda one: one.name).map(
        lambda found: tuple(sorted(found, key=lambda one: path(one.name)))
    ),
)


@given(specs)
def test_what_is_written_is_read_again(spec: ApplianceSpec) -> None:
    assert specfile.load(rewritten(spec, {}), LAYOUT) == spec


@given(specs, models)
def test_a_model_that_is_added_and_removed_leaves_every_byte(spec: ApplianceSpec, extra: ModelSpec) -> None:
    commented = {name: b"# mine\n" + text for name, text in rewritten(spec, {}).items()}
    others = tuple(one for one in spec.models if one.name != extra.name)
    before = rewritten(replace(spec, models=others), commented)
    added = rewritten(replace(spec, models=(*others, extra)), before)
    assert set(added) - set(before) == {path(extra.name)}
    assert rewritten(replace(specfile.load(added, LAYOUT), models=others), added) == before


HUB = "hub:\n  endpoint: https://hf-mirror.com\n  token_file: /root/token\n"


def test_settings_of_hubs_are_read_and_written() -> None:
    spec = load(HUB)
    assert (spec.hub.endpoint, spec.hub.token_file, spec.hub.source) == ("https://hf-mirror.com", "/root/token", "auto")
    assert rewritten(spec, {MAIN: HUB.encode()})[MAIN] == HUB.encode()
    assert specfile.load({MAIN: rewritten(spec, {})[MAIN]}, LAYOUT) == spec
    assert b"hub" not in rewritten(ApplianceSpec(), {})[MAIN]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hub: {endpoint: mirror}", "hub.endpoint: 'mirror' is no address"),
        ("hub: {source: github}", "hub.source: 'github' is no hub"),
        ("hub: {token_file: hf_abcdef}", "hub.token-file: not the absolute path"),
        ("hub: {token: hf_abcdef}", "hub.token: unknown key"),
        ("hub: {modelscope: 'a b'}", "hub.modelscope"),
    ],
)
def test_settings_of_hubs_that_cannot_be_meant(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(text)
    assert words in caught.value.message
    assert "hf_abcdef" not in caught.value.message


KIMI = "source: remote:moonshot/kimi-k2\n"


def test_a_model_of_a_provider_is_read_and_written() -> None:
    spec = load(kimi=KIMI + "key_file: /etc/keys/kimi\nreplicas: 4\nparallel: 8\n")
    assert spec.models == (
        ModelSpec(
            name="kimi", source="remote:moonshot/kimi-k2", key_file="/etc/keys/kimi", replicas=4, parallel=8
        ),
    )  # fmt: skip
    assert specfile.load(rewritten(spec, {}), LAYOUT) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (KIMI + "gpus: 1\n", "models.d/kimi.yaml: gpus: the provider decides on that"),
        (KIMI + "context: 4096\n", "context: the provider decides on that"),
        (KIMI + "options: {temp: 1}\n", "options: the provider decides on that"),
        (KIMI + "dtype: half\n", "tuning: the provider decides on that"),
        (KIMI + "key_file: sk-1234\n", "key_file: not the absolute path of a file"),
        ("source: remote:mooonshot/kimi\n", "no provider is called 'mooonshot'"),
        ("source: /a.gguf\nkey_file: /etc/keys/kimi\n", "key_file: is for models of providers"),
    ],
)
def test_what_cannot_be_said_of_a_model_of_a_provider(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(kimi=text)
    assert words in caught.value.message
    assert "sk-1234" not in caught.value.message + caught.value.hint


def test_variables_and_the_proxy_are_read_and_written() -> None:
    text = "environment: {VLLM_LOGGING_LEVEL: DEBUG, N: 3}\nproxy: {https: 'http://proxy.corp:3128', none: .corp}\n"
    spec = load(text, a="source: /a.gguf\nenvironment: {OMP_NUM_THREADS: 4}\n")
    assert spec.environment == (("VLLM_LOGGING_LEVEL", "DEBUG"), ("N", "3"))
    assert (spec.proxy.https, spec.proxy.none) == ("http://proxy.corp:3128", ".corp")
    assert spec.models[0].environment == (("OMP_NUM_THREADS", "4"),)
    assert specfile.load(rewritten(spec, {}), LAYOUT) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("environment: {LD_PRELOAD: /evil.so}", "environment: LD_PRELOAD: is set by the appliance itself"),
        ("environment: {CUDA_VISIBLE_DEVICES: '0'}", "CUDA_VISIBLE_DEVICES: is set by the appliance itself"),
        ("environment: {HF_TOKEN: planted}", "HF_TOKEN: everybody on this machine can read"),
        ("environment: {MY_API_KEY: planted}", "MY_API_KEY: everybody on this machine can read"),
        ("environment: {'A B': x}", "'A B' is no variable's name"),
        ('environment: {A: "x\\ny"}', "A: control character in the value"),
        ("proxy: {https: 'http://ann:planted@proxy:3128'}", "without a name and a password"),
        ("proxy: {https: 'proxy:3128'}", "it must be http://HOST:PORT"),
        ("proxy: {none: 'a b'}", "proxy.none: 'a b' are no hosts"),
    ],
)
def test_variables_and_proxies_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(text)
    assert words in caught.value.message
    assert "planted" not in caught.value.message + caught.value.hint


# Images


def test_settings_of_images_are_read_and_written() -> None:
    text = b"images:\n  registry: registry.example:5000/mirror/\n  base: debian:12-slim\n  portable: true\n"
    spec = specfile.load({MAIN: text}, LAYOUT)
    assert (spec.images.registry, spec.images.base) == ("registry.example:5000/mirror/", "debian:12-slim")
    assert spec.images.portable
    assert specfile.load({MAIN: rewritten(spec, {})[MAIN]}, LAYOUT) == spec
    assert b"images" not in rewritten(ApplianceSpec(), {})[MAIN]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "images: {registry: 'https://registry.example'}",
            "images.registry: 'https://registry.example' is no registry",
        ),
        ("images: {base: 'Debian 12'}", "images.base: 'Debian 12' is no image"),
        ("images: {mirror: x}", "images.mirror: unknown key"),
        ("images: {portable: 'yes'}", "images.portable"),
    ],
)
def test_settings_of_images_that_cannot_be_meant(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        specfile.load({MAIN: text.encode()}, LAYOUT)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("image", "fine"),
    [
        ("vllm/vllm-openai:v0.33.0", True),
        ("registry.example:5000/a/b_c.d-e", True),
        (f"a/b:c@sha256:{'0' * 64}", True),
        ("a b", False),
        ("--privileged", False),
        ("A/b", False),
        ("a/b:", False),
        ("a@sha256:12", False),
    ],
)
def test_names_of_images(image: str, fine: bool) -> None:
    model = ModelSpec(name="m", source="/m.gguf", image=image)
    if fine:
        specfile.check_model(model)
        return
    with pytest.raises(SpecError, match="is no image"):
        specfile.check_model(model)
