"""What a Prometheus and a Grafana elsewhere are given: where to ask, and what to draw."""

import json
from collections.abc import Iterable
from typing import Any, Final

from appliance import codec
from appliance.domain.host import Gpu

EVERY: Final = "15s"
HEADER: Final = (
    "# Made by `llm-appliance metrics install`. A whole configuration; beside jobs of yours, copy what is below\n"
    "# scrape_configs. The engines are found by asking the gateway: models that come and go change nothing here.\n"
)

Target = tuple[str, str]
"""(expression in PromQL, legend)."""
RATE: Final = "[$__rate_interval]"
PANELS: Final[tuple[tuple[str, str, tuple[Target, ...]], ...]] = (
    ("Requests", "reqps", ((f"sum by (model) (rate(gateway_requests_total{RATE}))", "{{model}}"),)),
    ("Errors", "reqps", (
        (f'sum by (model, code) (rate(gateway_requests_total{{code=~"[45].."}}{RATE}))', "{{model}} {{code}}"),
        (f"sum by (code) (rate(gateway_refused_total{RATE}))", "refused {{code}}"),
    )),
    ("Replicas up", "short", (("sum by (model) (gateway_replica_up)", "{{model}}"),)),
    ("Tokens of answers", "short", ((f"sum by (model) (rate(gateway_output_tokens_total{RATE}))", "{{model}} /s"),)),
    ("Tokens of requests", "short", ((f"sum by (model) (rate(gateway_input_tokens_total{RATE}))", "{{model}} /s"),)),
    ("In flight, and waiting", "short", (
        ("sum by (model) (gateway_replica_in_flight)", "{{model}}"),
        ("sum by (model) (gateway_queue_length)", "{{model}} waiting"),
    )),
    ("Time to the first byte", "s", tuple(
        (f"histogram_quantile({part}, sum by (le, model) (rate(gateway_first_byte_seconds_bucket{RATE})))", label)
        for part, label in (("0.5", "{{model}} p50"), ("0.95", "{{model}} p95"))
    )),
    ("Time of a request", "s", tuple(
        (f"histogram_quantile({part}, sum by (le, model) (rate(gateway_request_seconds_bucket{RATE})))", label)
        for part, label in (("0.5", "{{model}} p50"), ("0.95", "{{model}} p95"))
    )),
    ("Sent to another replica", "reqps", ((f"sum by (model) (rate(gateway_retries_total{RATE}))", "{{model}}"),)),
    ("Requests by key", "reqps", ((f"topk(10, sum by (key) (rate(gateway_key_requests_total{RATE})))", "{{key}}"),)),
    ("Tokens by key", "short", (
        (f"topk(10, sum by (key) (rate(gateway_key_output_tokens_total{RATE})))", "{{key}} out /s"),
        (f"topk(10, sum by (key) (rate(gateway_key_input_tokens_total{RATE})))", "{{key}} in /s"),
    )),
    ("Memory of GPUs", "bytes", (
        ("llm_appliance_gpu_memory_used_bytes", "{{gpu}} used"),
        ("llm_appliance_gpu_memory_total_bytes", "{{gpu}} in all"),
    )),
)  # fmt: skip
"""Title, unit as Grafana calls it, and what is drawn; three stand side by side."""


def scrape(url: str, key_file: str = "", ca_file: str = "") -> str:
    """Return Prometheus' configuration for a gateway at `url`, `http://127.0.0.1:8080`.

    `key_file` holds a key that may see counters, `ca_file` the certificates that the gateway's is checked against; both
    are paths where Prometheus runs.
    """
    scheme, _, address = url.partition("://")
    way: dict[str, object] = {"scheme": scheme}
    if key_file:
        # Prometheus 2.42 does not add the type by itself where it asks for targets.
        way["authorization"] = {"type": "Bearer", "credentials_file": key_file}
    if ca_file:
        way["tls_config"] = {"ca_file": ca_file}
    guarded = {key: value for key, value in way.items() if key != "scheme"}
    jobs = [
        {"job_name": "llm-appliance", "static_configs": [{"targets": [address]}], **way},
        {"job_name": "llm-appliance-engines", "http_sd_configs": [{"url": f"{url}/gateway/engines", **guarded}], **way},
    ]
    # Written out twice where YAML would point from one to the other.
    plain: Any = json.loads(json.dumps({"global": {"scrape_interval": EVERY}, "scrape_configs": jobs}))
    return HEADER + codec.dump_yaml(plain)


def dashboard() -> str:
    """Return a dashboard as Grafana imports it; which Prometheus it asks is chosen there."""
    document = {
        "uid": "llm-appliance",
        "title": "LLM appliance",
        "tags": ["llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": [_panel(place, *panel) for place, panel in enumerate(PANELS)],
    }
    return json.dumps(document, indent=2) + "\n"


def _panel(place: int, title: str, unit: str, targets: tuple[Target, ...]) -> dict[str, object]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": place % 3 * 8, "y": place // 3 * 8, "w": 8, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(65 + number), "datasource": source, "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(targets)
        ],
    }


def _used(gpu: Gpu) -> int | None:
    return None if gpu.memory is None or gpu.memory_free is None else gpu.memory - gpu.memory_free


GPU_METRICS: Final = (
    ("llm_appliance_gpu_memory_total_bytes", "Memory of a GPU.", lambda gpu: gpu.memory),
    ("llm_appliance_gpu_memory_used_bytes", "Memory of a GPU that something holds.", _used),
    ("llm_appliance_gpu_up", "Whether a GPU can be used.", lambda gpu: 0 if gpu.failure else 1),
)


def gpus(found: Iterable[Gpu]) -> str:
    """Return what the vendors' tools tell of GPUs in Prometheus' text format; what a tool does not say is left out."""
    every = tuple(found)
    lines = []
    for name, about, value in GPU_METRICS:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(gpu)} {number}" for gpu in every if (number := value(gpu)) is not None]
    return "\n".join(lines) + "\n"


def _labels(gpu: Gpu) -> str:
    pairs = (("gpu", gpu.device), ("name", gpu.name), ("uuid", gpu.uuid))
    return "{" + ",".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in pairs) + "}"
