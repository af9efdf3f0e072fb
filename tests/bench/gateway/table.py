"""The tables: medians over the rounds, and ratios to plain nginx and to LiteLLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from tests.bench.gateway.cases import Numbers

Rounds = list[dict[str, Numbers]]
Medians = dict[str, dict[str, Numbers]]


def medians(rounds: dict[str, Rounds]) -> Medians:
    """Return gateway -> case -> number, each the median of its rounds; failures are added up."""
    return {
        gateway: {
            case: {
                name: (sum if name == "failed" else median)(one[case][name] for one in measured)
                for name in measured[0][case]
            }
            for case in measured[0]
        }
        for gateway, measured in rounds.items()
        if measured
    }


def ratio(rounds: dict[str, Rounds], gateway: str, base: str, case: str, name: str) -> float | None:
    """Return how many times more a gateway takes than another, the median of all rounds; None where there is no number."""
    pairs = zip(rounds.get(gateway, []), rounds.get(base, []), strict=False)
    found = [ours[case][name] / theirs[case][name] for ours, theirs in pairs if ours[case][name] and theirs[case][name]]
    return median(found) if found else None


def shown(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _rows(
    rounds: dict[str, Rounds], heads: Sequence[str], row: Callable[[str, dict[str, Numbers]], Sequence[str]]
) -> list[str]:
    found = medians(rounds)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return [*lines, *("| " + " | ".join((name, *row(name, cases))) + " |" for name, cases in found.items())]


def requests(rounds: dict[str, Rounds]) -> list[str]:
    """Small and large requests."""

    def row(name: str, cases: dict[str, Numbers]) -> Sequence[str]:
        one, small = cases["one"], cases["small"]
        less = ratio(rounds, "litellm", name, "small", "cpu")
        return (
            f"{one['p50']:.0f} / {one['p99']:.0f}",
            f"{small['rate']:.0f}",
            f"{small['p50'] / 1e3:.2f} / {small['p99'] / 1e3:.2f}",
            f"{small['cpu']:.1f}",
            shown(ratio(rounds, name, "nginx", "small", "cpu")),
            shown(less, ".0f"),
            *(
                f"{cases[case]['rate']:.0f} ({shown(ratio(rounds, name, 'nginx', case, 'cpu'))})"
                for case in ("100k", "2m")
            ),
            f"{sum(cases[case]['failed'] for case in ('one', 'small', '100k', '2m')):.0f}",
        )

    heads = (
        "gateway", "1 client p50 / p99, us", "64 clients, req/s", "p50 / p99, ms", "CPU us/request", "x nginx",
        "LiteLLM / it", "100 kB, req/s (CPU x nginx)", "2 MB, req/s (CPU x nginx)", "failed",
    )  # fmt: skip
    return _rows(rounds, heads, row)


def streams(rounds: dict[str, Rounds]) -> list[str]:
    """Streams, memory, and what it costs to do nothing."""

    def row(name: str, cases: dict[str, Numbers]) -> Sequence[str]:
        case, idle = cases["streams"], cases["idle"]
        return (
            f"{case['ttft50'] / 1e3:.2f} / {case['ttft99'] / 1e3:.2f}",
            f"{case['delay50'] / 1e3:.2f} / {case['delay99'] / 1e3:.2f}",
            f"{case['rate']:.0f}",
            f"{case['cpu']:.1f}",
            shown(ratio(rounds, name, "nginx", "streams", "cpu")),
            shown(ratio(rounds, "litellm", name, "streams", "cpu"), ".0f"),
            f"{idle['rss']:.0f} / {idle['pss']:.0f}",
            f"{idle['percent']:.2f}",
            f"{case['failed']:.0f}",
        )

    heads = (
        "gateway", "TTFT p50 / p99, ms", "delay of a token p50 / p99, ms", "tokens/s", "CPU us/token", "x nginx",
        "LiteLLM / it", "RSS / PSS, MB", "idle, % of a core", "lost",
    )  # fmt: skip
    return _rows(rounds, heads, row)


def aims(rounds: dict[str, Rounds]) -> list[str]:
    """What was aimed at, and what came out; a row whose peer was not measured is left out."""
    if "ours" not in rounds or "nginx" not in rounds:
        return []
    pairs = zip(rounds["ours"], rounds["nginx"], strict=True)
    added = median(ours["one"]["p50"] - plain["one"]["p50"] for ours, plain in pairs)
    rows = [
        ("CPU of a small request, x nginx", ratio(rounds, "ours", "nginx", "small", "cpu"), "<=", 1.8),
        ("CPU of a streamed token, x nginx", ratio(rounds, "ours", "nginx", "streams", "cpu"), "<=", 1.2),
        ("CPU of a 2 MB body, x nginx", ratio(rounds, "ours", "nginx", "2m", "cpu"), "<=", 1.15),
        ("p50 at one client beyond nginx's, us", added, "<=", 20),
        ("resident memory, MB", medians(rounds)["ours"]["idle"]["rss"], "<=", 45),
        ("LiteLLM's CPU of a small request, x ours", ratio(rounds, "litellm", "ours", "small", "cpu"), ">=", 200),
    ]
    for case in ("one", "small", "100k", "2m", "streams"):
        if "vllm-router" in rounds:
            name = "p50" if case == "one" else "cpu"
            label = f"vllm-router's {'p50' if case == 'one' else 'CPU'}, {case}, x ours"
            rows.append((label, ratio(rounds, "vllm-router", "ours", case, name), ">=", 1))
    lines = ["| aim | measured | wanted | |", "| --- | --- | --- | --- |"]
    for label, value, sign, wanted in rows:
        if value is not None:
            held = value <= wanted if sign == "<=" else value >= wanted
            lines.append(f"| {label} | {value:.2f} | {sign} {wanted} | {'held' if held else 'MISSED'} |")
    return lines


def quality(rounds: dict[str, Rounds]) -> str:
    """Say how much of the gateway's core others took, at worst, so that a reader knows what to make of the rest."""
    worst = max(
        (case["others"], name)
        for name, all_ in rounds.items()
        for one in all_
        for case in one.values()
        if "others" in case
    )
    return f"Others (kernel threads, other programs) took up to {max(worst[0], 0):.2f} of the gateway's core (during `{worst[1]}`)."
