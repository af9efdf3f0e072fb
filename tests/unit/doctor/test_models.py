"""Models: who reads their files, and from where."""

from dataclasses import replace

import pytest

from appliance.doctor.access import Account, Step, Trail
from appliance.doctor.facts import Facts, OptionPath, Place, Source, Stored
from appliance.domain.spec import ApplianceSpec
from tests.unit.doctor.sound import LLM_ENGINE, SOUND, facts, file, look, only, step, trail
from tests.unit.samples import CONTAINER

TOP = (step("/"), step("/home"), step("/home/bob", 0o700, 1000, 1000))
HOME = "/home/bob/model.gguf"
OWN = file(HOME, 0o600, uid=1000)
BOB = Account(name="bob", uid=1000, gids=(1000,))
EVE = Account(name="eve", uid=1001, gids=(1001,))
DIRECTORY = "/var/lib/llm-appliance/store/models/dddd"
SERVED = Stored(model="tiny", directory=DIRECTORY, trails=(trail(step("/"), file(f"{DIRECTORY}/model.gguf")),))


def source(*steps: Step, failure: str = "") -> Source:
    way = Trail(path=HOME, steps=steps, failure=failure)
    return Source(model="tiny", path=HOME, trails=(way,))


def known(*sources: Source, **more: object) -> Facts:
    return facts(**{"sources": sources, "engine": LLM_ENGINE} | more)


def test_the_engines_user_need_not_get_to_the_source() -> None:
    # It is linked or copied into the store by who installs.
    found = look(SOUND, known(source(*TOP, replace(OWN, uid=0, mode=0o644))))
    assert found == {}


def test_who_installs_must_get_to_the_source() -> None:
    found = only("model-source-denied", SOUND, known(source(*TOP, OWN), installer=EVE, engine=EVE))
    assert found.message == "/home/bob denies eve (0700, uid 1000); needed: /home/bob/model.gguf"
    assert found.remedy == ("setfacl -m u:eve:x /home/bob", "or: chmod o+x /home/bob")
    assert found.prevents


def test_the_file_itself_may_deny_it() -> None:
    opened = replace(TOP[2], mode=0o711)
    found = only("model-source-denied", SOUND, known(source(*TOP[:2], opened, OWN), installer=EVE, engine=EVE))
    assert found.remedy[0] == f"setfacl -m u:eve:r {HOME}"


def test_a_file_system_may_deny_root() -> None:
    found = only("model-source-denied", SOUND, known(source(*TOP, failure="Permission denied")))
    assert "no_root_squash" in found.remedy[0]
    assert found.prevents


def test_what_we_may_not_see_is_not_held_against_anybody() -> None:
    assert look(SOUND, known(source(*TOP, failure="unseen"))) == {}


def test_a_source_that_is_gone() -> None:
    found = only("model-source-missing", SOUND, known(source(*TOP, failure="absent")))
    assert (found.severity, found.prevents) == ("error", False)
    assert found.remedy[-1] == "llm-appliance add-model tiny PATH"


def test_the_store_s_copy_serves_when_the_source_is_gone() -> None:
    there = known(source(*TOP, failure="absent"), stored=(SERVED,))
    assert only("model-source-missing", SOUND, there).severity == "info"


@pytest.mark.parametrize(
    ("file_there", "linked"),
    [
        (replace(OWN, uid=0, mode=0o644), True),
        (replace(OWN, uid=0, mode=0o600), False),  # the engines could not read it
        (replace(OWN, uid=0, mode=0o664), False),  # a group could change it
        (replace(OWN, mode=0o644), False),  # it is bob's
    ],
)
def test_what_the_store_cannot_link_it_copies(file_there: Step, linked: bool) -> None:
    found = look(SOUND, known(source(*TOP, file_there)))
    assert bool(found) != linked
    for item in found.get("model-copied", ()):
        assert item.severity == "info"
        assert item.remedy == (f"chown root {HOME}", f"chmod go-w,o+r {HOME}")


def test_no_link_leaves_a_file_system() -> None:
    elsewhere = known(source(*TOP, replace(OWN, uid=0, mode=0o644, device=9)), state=Place(path="/v", device=8))
    assert "another file system" in only("model-copied", SOUND, elsewhere).message


def test_what_is_in_the_store_is_not_copied_again() -> None:
    assert look(SOUND, known(source(*TOP, OWN), stored=(SERVED,))) == {}


def test_a_link_has_the_source_s_mode_also_when_that_changes_later() -> None:
    closed = replace(SERVED, trails=(trail(step("/"), file(f"{DIRECTORY}/model.gguf", 0o600)),))
    found = only("weights-denied", SOUND, known(stored=(closed,)))
    assert found.remedy[1] == f"or: chmod o+r {DIRECTORY}/model.gguf"
    assert found.prevents


def test_weights_that_vanished_from_a_directory_are_not_fetched_again_by_themselves() -> None:
    found = only("weights-gone", SOUND, known(stored=(replace(SERVED, wrong=("model.gguf",)),)))
    assert found.remedy == (f"rm -r {DIRECTORY}", "llm-appliance install")
    assert found.prevents


def test_a_directory_that_vanished_is_made_again_from_the_source() -> None:
    gone = replace(SERVED, there=False)
    found = look(SOUND, known(source(*TOP, replace(OWN, uid=0, mode=0o644)), stored=(gone,)))
    assert found["weights-gone"][0].remedy == ("llm-appliance install",)
    assert not found["weights-gone"][0].prevents
    lost = look(SOUND, known(source(*TOP, failure="absent"), stored=(gone,)))
    assert lost["weights-gone"][0].remedy == ("llm-appliance add-model tiny PATH",)


def test_the_engines_user_must_get_to_the_store() -> None:
    closed = trail(step("/"), step("/var"), step("/var/lib", 0o750))
    found = only("store-denied", SOUND, known(store=closed))
    assert found.remedy == ("setfacl -m u:llm-engine:x /var/lib", "or: chmod o+x /var/lib")
    before = only("store-denied", SOUND, known(store=closed, engine=Account(name="llm-engine")))
    assert before.remedy == ("chmod o+x /var/lib",)  # no such user yet, so no list can name it


def test_units_do_not_see_homes_whatever_the_permissions() -> None:
    linked = Trail(path="/var/lib/llm-appliance", steps=(step("/"), step("/home"), step("/home/llm")))
    assert "ProtectHome" in only("store-denied", SOUND, known(store=linked)).message
    assert look(CONTAINER, known(store=linked)).keys().isdisjoint({"store-denied"})  # supervisord hides nothing


def test_the_engines_user_must_be_able_to_run_python() -> None:
    private = trail(step("/"), step("/root", 0o700), file("/root/venv/bin/python", 0o755))
    found = only("python-denied", SOUND, known(python=private))
    assert found.message == "/root (0700, uid 0) keeps llm-engine from /root/venv/bin/python"
    assert found.prevents
    supervisord = known(python=private, spec=ApplianceSpec(runtime="supervisord"))
    assert not only("python-denied", SOUND, supervisord).prevents
    public = trail(step("/"), step("/home"), step("/home/bob"), file("/home/bob/python", 0o755))
    assert "ProtectHome" in only("python-denied", SOUND, known(python=public)).message
    assert look(SOUND, known(python=trail(step("/"), file("/usr/bin/python3.11", 0o755)))) == {}


def option(name: str, *steps: Step, failure: str = "", path: str = "") -> Facts:
    way = Trail(path=path or steps[-1].path, steps=steps, failure=failure)
    return known(options=(OptionPath(model="tiny", option=name, trail=way),))


def test_a_file_that_an_engine_reads() -> None:
    there = (step("/"), step("/srv"))
    assert look(SOUND, option("mmproj", *there, file("/srv/mmproj.gguf"))) == {}
    gone = only("model-option-path", SOUND, option("mmproj", *there, failure="absent", path="/srv/mmproj.gguf"))
    assert gone.message == "mmproj: /srv/mmproj.gguf is not there"
    denied = only("model-option-path", SOUND, option("lora", *there, file("/srv/lora.gguf", 0o600)))
    assert denied.remedy[0] == "setfacl -m u:llm-engine:r /srv/lora.gguf"
    hidden = only("model-option-path", SOUND, option("mmproj", step("/"), step("/tmp"), file("/tmp/mmproj.gguf")))
    assert "/tmp is hidden from the units" in hidden.message


def test_a_directory_that_an_engine_writes_to() -> None:
    own = "/var/cache/llm-appliance/tiny"
    assert look(SOUND, option("slot-save-path", step("/"), step(own))) == {}
    found = only("model-option-path", SOUND, option("slot-save-path", step("/"), step("/srv/slots", 0o777)))
    assert found.severity == "warning"
    assert "ReadWritePaths=/srv/slots" in found.remedy[-1]


def test_a_directory_that_an_engine_writes_to_without_units() -> None:
    spec = ApplianceSpec(runtime="supervisord")
    closed = replace(option("log-file", step("/"), step("/srv/log"), failure="absent", path="/srv/log/a"), spec=spec)
    found = only("model-option-path", SOUND, closed)
    assert found.remedy[0] == "setfacl -m u:llm-engine:rwx /srv/log"
    opened = option("log-file", step("/"), step("/srv/log", 0o777), failure="absent", path="/srv/log/a")
    assert look(SOUND, replace(opened, spec=spec)) == {}
