"""Keys of providers: taken over from the operator's file, readable for nobody else, and never repeated."""

import io
import sys
from pathlib import Path

import pytest

from appliance.errors import ApplianceError, HostError
from appliance.flows import secrets
from appliance.flows.site import Site
from appliance.report import progress
from tests.unit.recorded import RecordedMachine
from tests.unit.samples import layout

KEY = "sk-planted-7f3a"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(layout=layout(str(tmp_path)), machine=RecordedMachine(), progress=progress(), command="test")


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_key_is_taken_over_for_the_gateway_alone(site: Site, tmp_path: Path) -> None:
    file = secrets.take(site, "kimi", write(tmp_path / "key", f"  {KEY}\n\n"))
    assert file is not None
    assert (file.path, file.content, file.mode) == (f"{tmp_path}/etc/secrets/kimi.key", f"{KEY}\n".encode(), 0o600)


def test_it_may_come_from_standard_input(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{KEY}\n"))
    file = secrets.take(site, "kimi", "-")
    assert file is not None
    assert file.content == f"{KEY}\n".encode()


def test_without_one_the_kept_one_stays(site: Site) -> None:
    assert secrets.take(site, "kimi", "") is None
    write(Path(secrets.place(site.layout, "kimi")), KEY)
    file = secrets.take(site, "kimi", "")
    assert file is not None
    assert file.content == f"{KEY}\n".encode()


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (KEY, 0o644, "can be read by others"),
        (KEY, 0o640, "can be read by others"),
        ("", 0o600, "is empty"),
        (f"{KEY} and more\n", 0o600, "it has to be one word"),
        (f"{KEY}\r\nX-Evil: 1", 0o600, "it has to be one word"),
        (f"{KEY}é", 0o600, "it has to be one word"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str, mode: int, why: str, site: Site, tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        secrets.take(site, "kimi", write(tmp_path / "key", text, mode))
    assert why in caught.value.message
    assert KEY not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["gone", "."])
def test_what_is_no_file_is_refused(name: str, site: Site, tmp_path: Path) -> None:
    with pytest.raises(HostError):
        secrets.take(site, "kimi", str(tmp_path / name))
