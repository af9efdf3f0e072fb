"""What models are served with beside their weights is carried by digest, lands below the state, and no key ever goes along."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import codec
from appliance.acquire.bundle import CHUNK, Archive, Bundle, pack, slot
from appliance.bundle import cargo, keys
from appliance.bundle.index import SCHEMA, Component, Index
from appliance.domain.spec import Hub, Images, ModelSpec, Proxy, Tls, Tuning
from appliance.errors import ArtifactError
from tests.unit import samples
from tests.unit.bundle import small
from tests.unit.bundle.test_images import BAR, QUIET

KEY, OTHER = "a" * 64, "b" * 64
WHOLE = ModelSpec(
    name="tiny",
    source="/srv/tiny.gguf",
    tuning=Tuning(chat_template="/home/joe/chat.jinja"),
    adapters=(("sql", "/home/joe/sql"), ("law", "/home/joe/law")),
)
NAMES = {"/home/joe/chat.jinja": f"{KEY}/chat.jinja", "/home/joe/sql": OTHER, "/home/joe/law": KEY}


def of(*specs: ModelSpec, images: Images = Images()) -> cargo.Cargo:
    plan = samples.deployment()
    plan = replace(plan, spec=replace(plan.spec, models=specs, images=images))
    return cargo.load(cargo.dump(cargo.of(plan, NAMES)), source="plan")


def test_paths_of_the_maker_are_not_in_it_and_those_of_the_target_hold_there() -> None:
    (one,) = of(WHOLE).specs
    assert "joe" not in json.dumps([one.tuning.chat_template, one.adapters])
    assert cargo.landed(one, "/var/lib/x", "/etc/x/secrets") == replace(
        WHOLE,
        tuning=Tuning(chat_template=f"/var/lib/x/attached/{KEY[:16]}/chat.jinja"),
        adapters=(("sql", f"/var/lib/x/attached/{OTHER[:16]}"), ("law", f"/var/lib/x/attached/{KEY[:16]}")),
    )


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", f"{KEY}/../x", f"{KEY}/..", f"{KEY}/a/b", f"{KEY}/a\nb", KEY[:16], KEY.upper(), f"{KEY}/"]
)  # fmt: skip
def test_a_plan_that_points_anywhere_else_is_refused(path: str) -> None:
    for one in (replace(WHOLE, adapters=(("sql", path),)), replace(WHOLE, tuning=Tuning(chat_template=path))):
        bare = replace(one, adapters=one.adapters[:1] if one.adapters[0][1] == path else ())
        bare = replace(bare, tuning=bare.tuning if bare.tuning.chat_template == path else Tuning())
        with pytest.raises(ArtifactError, match="no file of a bundle"):
            cargo.landed(bare, "/var/lib/x", "/etc/x/secrets")


def test_of_a_key_it_says_only_that_there_is_one() -> None:
    remote = ModelSpec(name="kimi", source="remote:moonshot/m", key_file="/root/secret-place/key")
    (one,) = of(remote).specs
    assert "secret-place" not in cargo.dump(of(remote)).decode()
    assert cargo.landed(one, "/var/lib/x", "/etc/x/secrets").key_file == "/etc/x/secrets/kimi.key"
    (free,) = of(replace(remote, key_file="")).specs
    assert cargo.landed(free, "/var/lib/x", "/etc/x/secrets").key_file == ""


def test_what_the_makers_own_settings_hold_stays_there() -> None:
    """Proxies with passwords, files with tokens, variables of all engines."""
    plan = samples.deployment(
        proxy=Proxy(https="http://joe:hunter2@proxy:3128"),
        hub=Hub(token_file="/root/token", endpoint="https://joe:hunter2@hub"),
        environment=(("VLLM_LOGGING_LEVEL", "hunter2"),),
        tls=Tls(certificate="/etc/hunter2.crt", key="/etc/hunter2.key"),
    )
    assert "hunter2" in codec.dump_json(plan)
    content = cargo.dump(cargo.of(plan)).decode()
    assert "hunter2" not in content
    assert "/root/token" not in content


def test_how_it_was_made_is_said_where_names_follow_from_it() -> None:
    assert of(WHOLE, images=Images(base="debian:13", portable=True)).images == Images(portable=True)
    assert of(WHOLE, images=Images(base="debian:13")).runtime == "auto"


def write(target: Path, *paths: Path) -> Path:
    """A bundle of such files and an empty plan."""
    plan = cargo.dump(cargo.Cargo(specs=(), models=(), artifacts=()))
    directories = [pack.look_at(path) for path in paths]
    sizes = (len(plan), *(size for one in directories for size in one.sizes))
    room = slot(sizes, 9, CHUNK)
    with Archive(target, slot=room, mark="", split=0, chunk=CHUNK, base=frozenset(), bar=BAR) as archive:
        archive.add("plan", plan)
        parts = tuple(
            Component(kind="files", name=one.root.name, key=pack.digest(one), payloads=(pack.add(archive, one),))
            for one in directories
        )
        archive.finish(
            lambda payloads, base, size: Index(
                schema=SCHEMA, name="site", serial=0, appliance="0.1.0", target=small.TARGET, size=size,
                payloads=payloads, components=parts, base=base,
            ),
            lambda text: keys.sign(text, small.SECRET, "", source="test.key")[0],
        )  # fmt: skip
    return target


def test_an_adapter_and_a_template_come_out_as_they_went_in(tmp_path: Path) -> None:
    adapter, template = tmp_path / "sql", tmp_path / "chat.jinja"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(small.content(3, (1 << 20) + 1))
    template.write_text("{{ messages }}")
    path = write(tmp_path / "site.llmb", adapter, template)
    state = tmp_path / "state"
    with small.opened(path) as reader:
        bundle = Bundle(reader, str(state), ())
        bundle.attach(QUIET)
        bundle.attach(QUIET)  # what is there is left alone
        one, other = (state / "attached" / part.key[:16] for part in reader.index.components)
    assert {file.name: file.read_bytes() for file in one.iterdir()} == {
        file.name: file.read_bytes() for file in adapter.iterdir()
    }
    assert [file.name for file in other.iterdir()] == ["chat.jinja"]
    assert (other / "chat.jinja").read_text() == "{{ messages }}"


def test_what_is_not_there_cannot_be_carried(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no file or directory"):
        pack.look_at(tmp_path / "gone")


def test_a_name_or_a_byte_more_is_another_adapter(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/x").write_bytes(b"1")
    first = pack.digest(pack.look_at(tmp_path / "one"))
    (tmp_path / "one/x").write_bytes(b"2")
    second = pack.digest(pack.look_at(tmp_path / "one"))
    (tmp_path / "one/x").rename(tmp_path / "one/y")
    assert len({first, second, pack.digest(pack.look_at(tmp_path / "one"))}) == 3
