"""Counters for Prometheus: the gateway's, the engines' behind it, and a dashboard that a real Prometheus can draw."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.domain.host import Gpu
from appliance.render import monitoring
from tests.integration import gateway_rig
from tests.integration.gateway_rig import Gateway, gateway, until
from tests.integration.prometheus import prometheus, promtool
from tests.integration.test_gateway_keys import Ring, bearer

LINE = re.compile(r"([a-z_]+)(\{.*\})? ([0-9.e+-]+)")
SECRET = "sk-prometheus"


@pytest.fixture(scope="module", autouse=True)
def _parts() -> None:
    reason = gateway_rig.missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def one() -> Iterator[Gateway]:
    with gateway() as made:
        made.route("fox", made.engine("fox_1", model="fox"), made.engine("fox_2", model="fox"), metrics="/metrics")
        made.route("bare", made.engine("bare"))
        made.start()
        made.wait_for("fox")
        made.wait_for("bare")
        yield made


def counters(one: Gateway, **headers: str) -> dict[str, float]:
    answer = httpx.get(f"{one.url}/metrics", headers=headers)
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


# ---------------------------------------------------------------------------------------------------- the gateway's


def test_times_are_counted_in_growing_steps(one: Gateway) -> None:
    one.route("slow", one.engine("slow", "--token-delay", "0.05"))
    one.wait_for("slow")
    for _ in range(3):
        assert one.chat("slow").status_code == 200
    until(lambda: counters(one).get('gateway_request_seconds_count{model="slow"}') == 3, what="all counted")
    found = counters(one)
    steps = {
        float(match[1]): value
        for name, value in found.items()
        if (match := re.fullmatch(r'gateway_request_seconds_bucket\{model="slow",le="(.*)"\}', name))
    }
    # Nine words and eight times 0.05 s between them: no answer took less than 0.4 s.
    assert {step for step in steps if step <= 0.25} == set()
    ordered = [steps[step] for step in sorted(steps)]
    assert ordered == sorted(ordered)
    assert steps[float("inf")] == 3
    assert found['gateway_request_seconds_sum{model="slow"}'] >= 1.2


def test_tokens_and_requests_are_counted_by_key_and_model(one: Gateway) -> None:
    Ring(one).write(anna="sk-anna", ben=("sk-ben", {"models": ["fox"]}), ops=("sk-ops", {"metrics": True}))
    until(lambda: httpx.get(f"{one.url}/metrics").status_code == 401, what="the keys known")
    for secret, model in (("sk-anna", "fox"), ("sk-anna", "fox"), ("sk-anna", "bare"), ("sk-ben", "fox")):
        assert one.chat(model, headers=bearer(secret)).status_code == 200
    assert one.chat("bare", headers=bearer("sk-ben")).status_code == 404
    assert one.chat("fox", headers=bearer("sk-nobody")).status_code == 401
    ops = bearer("sk-ops")
    until(lambda: counters(one, **ops).get('gateway_refused_total{key="ben",code="404"}') == 1, what="all counted")
    found = counters(one, **ops)
    requests = {name: value for name, value in found.items() if name.startswith("gateway_key_requests_total")}
    assert requests == {
        'gateway_key_requests_total{key="anna",model="bare"}': 1,
        'gateway_key_requests_total{key="anna",model="fox"}': 2,
        'gateway_key_requests_total{key="ben",model="fox"}': 1,
    }
    assert found['gateway_key_output_tokens_total{key="anna",model="fox"}'] == 18
    assert found['gateway_key_input_tokens_total{key="anna",model="fox"}'] > 0
    # Those without a key: the look that waited for the keys, and the wrong one.
    assert found['gateway_refused_total{key="",code="401"}'] >= 2
    assert sum(found[f'gateway_replica_requests_total{{model="fox",replica="fox_{n}"}}'] for n in (1, 2)) == 3


def test_a_request_that_cannot_be_read_is_counted_too(one: Gateway) -> None:
    one.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    until(lambda: counters(one).get('gateway_refused_total{key="",code="400"}') == 1, what="it counted")


def test_names_of_keys_cannot_forge_lines(one: Gateway) -> None:
    Ring(one).write(**{'x"} 1\nforged 7\\': "sk-odd", "ops": ("sk-ops", {"metrics": True})})  # type: ignore[arg-type]
    until(lambda: httpx.get(f"{one.url}/metrics").status_code == 401, what="the keys known")
    assert one.chat("fox", headers=bearer("sk-odd")).status_code == 200
    ops = bearer("sk-ops")
    until(lambda: any("forged" in name for name in counters(one, **ops)), what="it counted")
    assert not any(name.startswith("forged") for name in counters(one, **ops))
    promtool("check", "metrics", data=httpx.get(f"{one.url}/metrics", headers=ops).text)


def test_promtool_finds_no_fault_with_them(one: Gateway) -> None:
    assert one.chat("fox").status_code == 200
    until(lambda: any("request_seconds" in name for name in counters(one)), what="it counted")
    promtool("check", "metrics", data=httpx.get(f"{one.url}/metrics").text)
    found = [Gpu(vendor="nvidia", index=0, uuid="GPU-1", name='A "B"', memory=48 << 30, memory_free=40 << 30)]
    found += [Gpu(vendor="amd", index=1, uuid="", name="quiet", memory=None, failure="lost")]
    text = monitoring.gpus(found)
    promtool("check", "metrics", data=text)
    assert f'llm_appliance_gpu_memory_used_bytes{{gpu="nvidia:0",name="A \\"B\\"",uuid="GPU-1"}} {8 << 30}' in text
    assert 'llm_appliance_gpu_up{gpu="amd:1",name="quiet",uuid=""} 0' in text
    assert text.count("amd:1") == 1


# ---------------------------------------------------------------------------------------------------- the engines'


def test_each_replicas_own_counters_are_told_as_it_tells_them(one: Gateway) -> None:
    before = {engine.name: engine.metric("requests_total") for engine in one.engines}  # type: ignore[union-attr]
    for _ in range(4):
        assert one.chat("fox").status_code == 200
    for number in (1, 2):
        answer = httpx.get(f"{one.url}/gateway/engines/fox_{number}/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.text == one.engines[number - 1].get("/metrics").text  # type: ignore[union-attr]
        assert f"dummy_requests_total {before[f'fox_{number}'] + 2}\n" in answer.text
    assert counters(one)['gateway_replica_in_flight{model="fox",replica="fox_1"}'] == 0


@pytest.mark.parametrize("name", ["bare", "fox", "fox_3", "..", "fox_1%2f..", "*"])
def test_there_is_no_way_to_anything_else(one: Gateway, name: str) -> None:
    assert one.raw(f"GET /gateway/engines/{name}/metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())[
        :12
    ] in (b"HTTP/1.1 404", b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "path", ["/gateway/engines/fox_1", "/gateway/engines/fox_1/health", "/gateway/engines/", "/x/gateway/engines"]
)
def test_only_counters_are_told(one: Gateway, path: str) -> None:
    assert httpx.get(one.url + path).status_code == 404


def test_who_may_not_see_counters_sees_no_engines_either(one: Gateway) -> None:
    for path in ("/gateway/engines", "/gateway/engines/fox_1/metrics"):
        assert httpx.get(one.url + path, headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 403
    Ring(one).write(user="sk-user", ops=("sk-ops", {"metrics": True}))
    until(lambda: httpx.get(f"{one.url}/metrics").status_code == 401, what="the keys known")
    for path in ("/gateway/engines", "/gateway/engines/fox_1/metrics"):
        assert httpx.get(one.url + path).status_code == 401
        assert httpx.get(one.url + path, headers=bearer("sk-user")).status_code == 403
        assert httpx.get(one.url + path, headers=bearer("sk-ops")).status_code == 200


def test_an_engine_that_is_gone_is_told_so(one: Gateway) -> None:
    one.engines[0].kill()
    answer = httpx.get(f"{one.url}/gateway/engines/fox_1/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_unavailable")
    assert "fox_1" in answer.json()["error"]["message"]


# ---------------------------------------------------------------------------------------------------- Prometheus


def test_prometheus_finds_it_all_and_draws_every_panel(one: Gateway, tmp_path: Path) -> None:
    """The dashboard's own expressions are asked: one that names a metric which is not there gives nothing."""
    Ring(one).write(prometheus=(SECRET, {"metrics": True}), anna="sk-anna")
    until(lambda: httpx.get(f"{one.url}/metrics").status_code == 401, what="the keys known")
    (tmp_path / "key").write_text(SECRET + "\n")
    config = monitoring.scrape(one.url, key_file=str(tmp_path / "key"))
    (tmp_path / "as-written.yml").write_text(config)
    assert "SUCCESS" in promtool("check", "config", tmp_path / "as-written.yml")
    faster = config.replace("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s")
    with prometheus(faster, tmp_path) as watching:

        def drawn(expression: str) -> bool:
            one.chat("fox", headers=bearer("sk-anna"))
            one.chat("fox", headers=bearer("sk-wrong"))
            values = watching.query(expression.replace("[$__rate_interval]", "[10s]"))
            return any(float(series["value"][1]) > 0 for series in values)

        expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
        # No request fails here, waits, or is sent twice, and there is no GPU: those are only looked for by name.
        quiet = [text for text in expressions if re.search("45|retries|queue|in_flight|_gpu_", text)]
        for expression in expressions:
            if expression not in quiet:
                until(lambda text=expression: drawn(text), timeout=60, what=expression)  # type: ignore[misc]
        until(lambda: watching.query('dummy_requests_total{replica="fox_1"}'), timeout=90, what="the engines found")
        up = watching.query('up{job="llm-appliance-engines"}')
        assert {(row["metric"]["model"], row["metric"]["replica"], row["value"][1]) for row in up} == {
            ("fox", "fox_1", "1"), ("fox", "fox_2", "1"),
        }  # fmt: skip
    told = httpx.get(f"{one.url}/metrics", headers=bearer(SECRET)).text + monitoring.gpus([])
    named = {name for text in expressions for name in re.findall(r"(?:gateway|llm_appliance)_[a-z_]+", text)}
    kinds = {
        name for line in told.splitlines() if (match := re.match(r"# TYPE ([a-z_]+)", line)) for name in match.groups()
    }
    assert {name.removesuffix("_bucket") for name in named} <= kinds
    assert len(named) > 12


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(monitoring.dashboard())["panels"]
    return found


def test_the_dashboard_is_one_that_grafana_takes(tmp_path: Path) -> None:
    """Its shape, as Grafana's own exports have it; the expressions are read by Prometheus' parser."""
    document = json.loads(monitoring.dashboard())
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= set(document)
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    taken = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]]
    assert len(set(taken)) == len(taken)
    assert all(x + 8 <= 24 for x, _ in taken)
    rules = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for panel in document["panels"]
        for target in panel["targets"]
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_a_certificate_of_ones_own_stands_in_the_configuration(tmp_path: Path) -> None:
    for name in ("key", "ca.pem"):
        (tmp_path / name).write_text("")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        shutil.copy(bundle, tmp_path / "ca.pem")
    text = monitoring.scrape("https://llm.example:8443", str(tmp_path / "key"), str(tmp_path / "ca.pem"))
    (tmp_path / "tls.yml").write_text(text)
    promtool("check", "config", tmp_path / "tls.yml")
    assert text.count("ca_file") == 3  # both jobs, and the question which engines there are
    assert text.count("credentials_file") == 3
