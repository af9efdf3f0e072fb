"""What `prune` takes: engines and gateways that no kept generation needs, never those in force, never what is made."""

from dataclasses import replace
from pathlib import Path

import pytest

from appliance import codec
from appliance.domain.changes import Record
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.errors import SpecError
from appliance.flows import store
from appliance.flows.site import Site
from appliance.report import Plain
from appliance.system.machine import RealMachine
from tests.unit import samples


def artifact(name: str, letter: str) -> Artifact:
    return Artifact(name=name, kind="wheels", ref=f"{name}==1", digest=letter * 64)


def generation(home: Path, *artifacts: Artifact, gateway: str) -> Deployment:
    where = samples.layout(str(home))
    plan = samples.deployment(where=where)
    root = f"{where.state}/gateway/{gateway * 16}"
    return replace(plan, artifacts=artifacts, services=(), gateway=replace(plan.gateway, root=root))


class Place:
    """A state directory with generations, engines and gateways."""

    def __init__(self, home: Path) -> None:
        self.home, self.state = home, Path(samples.layout(str(home)).state)
        self.site = Site(
            layout=samples.layout(str(home)), machine=RealMachine(), progress=Plain(), command="prune"
        )  # fmt: skip
        for number, plan in {
            3: generation(home, artifact("vllm", "a"), gateway="1"),
            4: generation(home, artifact("vllm", "b"), gateway="2"),
        }.items():
            path = self.state / "generations" / str(number)
            path.mkdir(parents=True)
            (path / "deployment.json").write_text(codec.dump_json(plan))
        record = Record(schema=1, deployment=plan, generation=4, files=(), confirmed=True)
        (self.state / "record.json").write_text(codec.dump_json(record))
        for name in ("vllm-" + "a" * 16, "vllm-" + "b" * 16, "vllm-" + "c" * 16, ".vllm-dddd.new", ".old.gone"):
            self.put(f"engines/{name}/bin/python", 1000)
        for name in ("1", "2", "3"):
            self.put(f"gateway/{name * 16}/usr/sbin/nginx", 300)

    def put(self, name: str, size: int) -> None:
        path = self.state / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))

    def there(self) -> set[str]:
        return {f"{part}/{path.name}" for part in ("engines", "gateway") for path in (self.state / part).iterdir()}


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_no_kept_generation_needs_goes_with_its_size_told(here: Place) -> None:
    before = here.there()
    doomed = store.unused(store.entries(here.site))
    assert [(one.kind, one.names, one.size) for one in doomed] == [
        ("engine", (".old.gone",), 1000), ("engine", ("vllm-" + "c" * 16,), 1000), ("gateway", ("3" * 16,), 300),
    ]  # fmt: skip
    assert here.there() == before
    assert store.prune(here.site) == doomed
    gone = {"engines/.old.gone", "engines/vllm-" + "c" * 16, "gateway/" + "3" * 16}
    assert here.there() == before - gone
    assert store.prune(here.site) == ()


def test_who_needs_what_stays_is_known(here: Place) -> None:
    known = {one.names[0]: (one.served, one.kept) for one in store.entries(here.site)}
    assert known["vllm-" + "a" * 16] == ((), (3,))
    assert known["vllm-" + "b" * 16] == (("vllm",), (4,))
    assert known["2" * 16] == (("gateway",), (4,))


def test_what_is_in_force_stays_though_its_generation_went(here: Place) -> None:
    for number in (3, 4):
        (here.state / f"generations/{number}/deployment.json").unlink()
    store.prune(here.site)
    assert here.there() == {"engines/vllm-" + "b" * 16, "engines/.vllm-dddd.new", "gateway/" + "2" * 16}


def test_a_generation_that_cannot_be_read_may_need_anything(here: Place) -> None:
    (here.state / "generations/3/deployment.json").write_text("{}")
    before = here.there()
    with pytest.raises(SpecError):
        store.prune(here.site)
    assert here.there() == before


def test_rm_takes_models_only(here: Place) -> None:
    with pytest.raises(SpecError, match="the store holds no"):
        store.remove(here.site, "vllm-" + "c" * 16)
