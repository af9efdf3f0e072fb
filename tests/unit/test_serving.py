"""What the operator tells the gateway: refused where it cannot be meant, and written as it is read."""

from dataclasses import replace

import pytest

from appliance import serving, specfile
from appliance.domain.spec import ApplianceSpec, GatewaySpec, ModelSpec, Serving, Tls
from appliance.errors import SpecError
from tests.unit.samples import LAYOUT

A = ModelSpec(name="a", source="/a.gguf")
B = ModelSpec(name="b", source="/b.gguf")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Serving(balance="random"), "balance: 'random' is none"),
        (Serving(retry="always"), "retry: 'always' is none"),
        (Serving(limit=0), "limit: 0 is not between"),
        (Serving(queue=-1), "queue: -1 is not between"),
        (Serving(aliases=("a/b",)), "aliases: 'a/b' cannot be a model's name"),
        (Serving(aliases=("v1",)), "aliases: 'v1' cannot be a model's name"),
        (Serving(expose=("metrics",)), "expose: 'metrics' is none"),
    ],
)
def test_what_cannot_be_meant_is_refused(wish: Serving, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        specfile.check_model(replace(A, serving=wish))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ApplianceSpec(models=(replace(A, serving=Serving(aliases=("b",))), B)), "b is the name of two things"),
        (ApplianceSpec(models=(A,), splits=(("a", (("a", 1.0),)),)), "a is the name of two things"),
        (ApplianceSpec(models=(replace(A, serving=Serving(fallback="a")), B)), "no other model is called 'a'"),
        (ApplianceSpec(models=(replace(A, serving=Serving(fallback="c")), B)), "no other model is called 'c'"),
        (ApplianceSpec(models=(A,), splits=(("x", (("c", 1.0),)),)), "no model is called 'c'"),
        (ApplianceSpec(models=(A,), splits=(("x", (("a", 0.0),)),)), "not all of them are 0"),
        (ApplianceSpec(models=(A,), splits=(("x", ()),)), "not all of them are 0"),
        (ApplianceSpec(models=(A,), splits=(("x", (("a", float("nan")),)),)), "weights are numbers"),
        (ApplianceSpec(tls=Tls(certificate="/a.pem")), "go together"),
        (ApplianceSpec(tls=Tls(certificate="a.pem", key="/a.key")), "not the absolute path"),
        (ApplianceSpec(tls=Tls(certificate="/$a.pem", key="/a.key")), "not the absolute path"),
        (ApplianceSpec(cors=("chat.example",)), "no origin"),
        (ApplianceSpec(cors=("https://a.example/x",)), "no origin"),
        (ApplianceSpec(gateway=GatewaySpec(hosts="a.example:80")), "no host's name"),
        (ApplianceSpec(gateway=GatewaySpec(hosts="a.example, b.example")), "no host's name"),
    ],
)
def test_names_certificates_and_pages_must_be_some(spec: ApplianceSpec, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        specfile.check(spec)


def test_what_is_said_is_written_and_read_again() -> None:
    wish = Serving(
        balance="prefix", limit=3, queue=0, retry="before_first_byte", fallback="b", aliases=("gpt-4o", "x"),
        expose=("tokenize",),
    )  # fmt: skip
    spec = ApplianceSpec(
        tls=Tls(certificate="/etc/ssl/a.pem", key="/etc/ssl/a.key"),
        cors=("https://chat.example", "http://localhost:3000"),
        splits=(("fast", (("a", 9.0), ("b", 1.0))),),
        models=(replace(A, serving=wish), B),
    )
    files = {file.path: file.content for file in specfile.files(spec, {}, LAYOUT)}
    assert specfile.load(files, LAYOUT) == spec
    assert b"queue: 0" in files[f"{LAYOUT.etc}/models.d/a.yaml"]
    assert b"balance" not in files[f"{LAYOUT.etc}/models.d/b.yaml"]


def test_nothing_is_written_of_what_nobody_said() -> None:
    assert serving.asked(Serving()) == {}
