"""What an operator does on the second day, on a real server: looks, asks, measures, upgrades under load, finds faults."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Server
from tests.integration.load import lose_nothing
from tests.integration.product import SMOKE
from tests.integration.typed import command, until

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
UNITS = "/etc/systemd/system"
ECHO = "/etc/llm-appliance/models.d/echo.yaml"


def data(server: Server, *words: str, code: int = 0) -> dict[str, object]:
    found: dict[str, object] = json.loads(command(server, *words, "--json", code=code).stdout)["data"]
    return found


@pytest.fixture(scope="module")
def shared(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """An appliance with the built-in model and two replicas of one that answers slowly enough to be caught at it."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "daytwo") as server:
        command(
            server, "add-model", "echo", "--engine", "dummy", "--replicas", "2",
            "--set", "text=One two three four.", "--set", "token-delay=0.1",
        )  # fmt: skip
        yield server


def drop_in(server: Server, service: str, *lines: str) -> None:
    """Change a unit as an operator may, and start it anew."""
    server.write(f"{UNITS}/{service}.d/test.conf", "[Service]\n" + "\n".join(lines) + "\n")
    server.sh(f"systemctl daemon-reload; systemctl restart --no-block {service}")


def undo(server: Server, service: str) -> None:
    server.sh(f"rm -r {UNITS}/{service}.d; systemctl daemon-reload; systemctl restart {service}")


# looking


def test_status_tells_memory_and_endpoints_for_people_and_for_programs(shared: Server) -> None:
    said = command(shared, "status").stdout
    for name in ("gateway", "smoke", "echo_1", "echo_2"):
        assert re.search(rf"^{name} +running .*http://127.0.0.1:8080/", said, re.MULTILINE), name
    services = {one["name"]: one for one in data(shared, "status")["services"]}  # type: ignore[attr-defined]
    assert 0 < services["smoke"]["memory"] < 4 * services["smoke"]["planned"]["ram"]
    assert services["smoke"]["endpoint"] == "http://127.0.0.1:8080/smoke/v1"


def test_status_says_why_one_fails_and_how_far_another_is(shared: Server) -> None:
    one, two = (f"llm-appliance-model@echo_{number}.service" for number in (1, 2))
    drop_in(
        shared, one, "ExecStart=", "ExecStart=/bin/sh -c 'echo torch.OutOfMemoryError: CUDA out of memory.; exit 1'"
    )
    loading = "Loading safetensors checkpoint shards:  62%% Completed"
    drop_in(shared, two, "ExecStart=", f"ExecStart=/bin/sh -c 'echo {loading}; sleep 600'")
    seen = ""

    def told() -> bool:
        nonlocal seen
        seen = shared.run("llm-appliance", "status", check=False).stdout
        return "crash loop: CUDA out of memory, see `llm-appliance logs echo_1`" in seen and "loading 62 %" in seen

    try:
        until("status says why", told)
        assert "drop-in of yours" in seen
        command(shared, "status", code=7)
    finally:
        print(seen)
        undo(shared, one)
        undo(shared, two)
    command(shared, "status")


def test_status_goes_on_until_ctrl_c(shared: Server) -> None:
    watched = shared.popen("llm-appliance", "status", "--watch", "--interval", "0.2")
    until("three looks", lambda: watched.output.count("gateway ") >= 3)
    watched.signal("INT")
    assert watched.wait(timeout=20) == 0


def test_stat_counts_what_was_asked(shared: Server) -> None:
    product.chat(shared, PROMPT)
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "?"}]})
    slow = [shared.popen("curl", "-sS", f"{product.BASE}/v1/chat/completions", "-d", body) for _ in range(2)]
    for one in slow:
        assert one.wait(timeout=30) == 0
    rows = {one["replica"]: one for one in data(shared, "stat")["replicas"]}  # type: ignore[attr-defined]
    assert set(rows) == {"smoke", "echo_1", "echo_2"}
    assert rows["smoke"]["requests"] >= 1 and rows["smoke"]["tokens_per_second"] > 0
    assert rows["echo_1"]["slots"] == rows["echo_1"]["idle"] == 64
    assert "lru" in command(shared, "stat", "echo").stdout
    assert "did you mean echo?" in command(shared, "stat", "ecoh", code=3).stderr


def test_logs_since_a_time_are_of_all_replicas(shared: Server) -> None:
    said = command(shared, "logs", "echo", "--since", "1h").stdout
    assert "echo_1" in said and "echo_2" in said and "smoke" not in said
    assert command(shared, "logs", "smoke", "--since", "2099-01-01").stdout.count("listening") == 0
    assert "is no time" in command(shared, "logs", "--since", "soon", code=2).stderr


# asking


def test_chat_answers_one_question_from_a_pipe(shared: Server) -> None:
    assert command(shared, "chat", "smoke", input=f"{PROMPT}\n").stdout == f"{ANSWER}\n"
    assert "no question" in command(shared, "chat", "smoke", input="", code=2).stderr


def test_chat_in_a_terminal_remembers_stops_an_answer_and_leaves(shared: Server) -> None:
    """Typed on a real pseudo-terminal: a question, an answer that Ctrl-C stops, another question, Ctrl-D."""
    command(shared, "add-model", "parrot", "--engine", "dummy", "--set", "echo=", "--set", "token-delay=0.3")
    keys = r"""
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("llm-appliance", ["llm-appliance", "chat", "parrot"])
seen = b""
def wait_for(words):
    global seen
    while words not in seen:
        seen += os.read(terminal, 4096)
    seen = seen[seen.index(words) + len(words):]
wait_for(b">>> ")
os.write(terminal, b"uno dos tres cuatro cinco seis siete ocho nueve diez\n")
wait_for(b"diez\r\n"); wait_for(b"dos")
os.write(terminal, b"\x03")
wait_for(b"[stopped]"); wait_for(b">>> ")
os.write(terminal, b"hola\n")
wait_for(b"hola\r\n"); wait_for(b"hola"); wait_for(b">>> ")
os.write(terminal, b"\x04")
print("left with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = shared.run("python3", "-c", keys, timeout=60)
    assert done.stdout.strip() == "left with 0"
    command(shared, "remove-model", "parrot")


def test_bench_measures_and_draws(shared: Server) -> None:
    said = command(
        shared, "bench", "smoke", "-c", "1,4", "--seconds", "1", "--max-tokens", "16", "--plot", "/root/b.svg"
    )
    assert [line.split()[0] for line in said.stdout.splitlines()[1:3]] == ["1", "4"]
    assert "<svg" in shared.read("/root/b.svg")
    levels = data(shared, "bench", "echo", "-c", "8", "--seconds", "1")["levels"]
    assert levels[0]["errors"] == 0 and levels[0]["requests"] >= 8  # type: ignore[index]
    assert 0.05 < levels[0]["inter_token_p50"] < 2  # type: ignore[index]


# changing


def test_upgrade_rollback_and_add_model_lose_no_request_where_a_second_replica_lives(shared: Server) -> None:
    server = shared

    def change() -> None:
        command(server, "catalog", "export", "-o", "/root/catalog.yaml")
        server.sh("""sed -i '/^- engine: dummy/,/accelerator/s/version: .*/version: "2"/' /root/catalog.yaml""")
        command(server, "catalog", "update", "/root/catalog.yaml")
        told = command(server, "upgrade", "echo", "--dry-run").stderr
        assert "echo: dummy 1 -> dummy 2; its 2 replicas change one after the other, no request is lost" in told
        assert "changed=0" not in command(server, "upgrade", "echo").stdout
        assert "changed=0" in command(server, "upgrade", "echo").stdout
        command(server, "rollback")
        command(server, "add-model", "third", "--engine", "dummy", "--set", "text=Third.")
        command(server, "remove-model", "third")
        command(server, "add-model", "fourth", "--engine", "dummy")
        server.sh(
            f"sed -i 's/^options:/options:\\n  nosuch: \"1\"/' {ECHO}; rm /etc/llm-appliance/models.d/fourth.yaml"
        )
        failed = command(server, "install", code=7)
        assert (
            "echo_1 failed" in failed.stderr and "is back" in failed.stderr and "your edit is kept as" in failed.stderr
        )

    before = shared.run("systemctl", "show", "-p", "MainPID", "--value", "llm-appliance-model@smoke").stdout
    lose_nothing(shared, "echo", change)
    assert shared.run("systemctl", "show", "-p", "MainPID", "--value", "llm-appliance-model@smoke").stdout == before
    assert "nosuch" not in shared.read(ECHO)
    command(shared, "status")
    assert "fourth" in command(shared, "remove-model", "fourth", "--dry-run").stdout, "what was to go is back, too"
    command(shared, "remove-model", "fourth")
    shared.sh(f"rm {ECHO}.edited-*")


def test_a_model_with_one_replica_loses_no_request_either_where_a_second_one_has_room_for_a_while(
    shared: Server,
) -> None:
    server, spec = shared, "/etc/llm-appliance/models.d/solo.yaml"
    command(server, "add-model", "solo", "--engine", "dummy", "--set", "text=Old.")
    pid = ("systemctl", "show", "-P", "MainPID", "llm-appliance-model@solo")
    before = server.run(*pid).stdout

    def change() -> None:
        server.sh(f"sed -i 's/text: .*/text: New./' {spec}")
        told = command(server, "install").stderr
        assert "solo: a second one stands in while it is replaced" in told
        assert product.chat(server, "?", model="solo").startswith("New.")
        command(server, "rollback")
        assert product.chat(server, "?", model="solo").startswith("Old.")
        server.sh(f"sed -i 's/^options:/options:\\n  nosuch: \"1\"/' {spec}")
        failed = command(server, "install", code=7).stderr
        assert "solo_0 failed" in failed and "is back" in failed, "what does not start never takes the place"

    lose_nothing(server, "solo", change)
    assert server.run(*pid).stdout != before
    there = server.sh("systemctl list-units --all 'llm-appliance*'; ls /etc/systemd/system /var/cache/llm-appliance")
    assert "solo_0" not in there.stdout
    kept = [int(line.split()[0]) for line in command(server, "generations", "list").stdout.splitlines()[1:]]
    first = kept[-4]
    assert kept[-4:] == [first, first + 2, first + 4, first + 5], "a step with a stand-in stays only where it failed"
    command(server, "remove-model", "solo")
    server.sh(f"rm -f {spec}.edited-*")


def test_a_model_with_one_replica_ends_its_answers_before_it_is_restarted(shared: Server) -> None:
    text = " ".join(str(number) for number in range(40))
    command(shared, "add-model", "slow", "--engine", "dummy", "--set", f"text={text}", "--set", "token-delay=0.2")
    body = {"model": "slow", "messages": [{"role": "user", "content": "?"}], "stream": True}
    stream = shared.popen("curl", "-sSN", f"{product.BASE}/v1/chat/completions", "-d", json.dumps(body))
    stream.wait_for('"content":" 2"')
    before = shared.run("systemctl", "show", "-p", "MainPID", "--value", "llm-appliance-model@slow").stdout
    shared.sh("sed -i 's/text: .*/text: Anew./' /etc/llm-appliance/models.d/slow.yaml")
    command(shared, "install")
    assert stream.wait(timeout=60) == 0
    assert '" 39"' in stream.output and stream.output.endswith("data: [DONE]\n\n")
    assert shared.run("systemctl", "show", "-p", "MainPID", "--value", "llm-appliance-model@slow").stdout != before
    assert product.chat(shared, "?", model="slow").startswith("Anew.")
    command(shared, "remove-model", "slow")


def test_who_restarts_or_stops_a_model_cuts_off_nobody_but_with_now(shared: Server) -> None:
    """With llama.cpp, which ends at once when it is told to."""
    long = [{"role": "user", "content": SMOKE["endless"]["prompt"]}]
    body = {"model": "smoke", "messages": long, "temperature": 0, "max_tokens": 3800, "stream": True}
    try:
        for words, whole in ((("restart",), True), (("restart", "--now"), False), (("stop",), True)):
            shared.run("llm-appliance", "verify")
            stream = shared.popen("curl", "-sSN", f"{product.BASE}/v1/chat/completions", "-d", json.dumps(body))
            stream.wait_for('"content":"')
            command(shared, *words, "smoke")
            assert stream.wait(timeout=60) == 0
            assert ('"finish_reason":"length"' in stream.output) is whole, words
            assert ('"error"' in stream.output) is not whole, "who is cut off is told"
    finally:
        command(shared, "start", "smoke")
    assert product.chat(shared, PROMPT) == ANSWER


def test_replicas_restart_one_after_the_other_and_no_request_is_lost(shared: Server) -> None:
    pids = "systemctl show -P MainPID llm-appliance-model@echo_{1,2}"
    before = shared.sh(pids).stdout.split()
    told = command(shared, "restart", "echo", "--dry-run").stdout
    assert re.findall(r"(?:stop|start --no-block) llm-appliance-model@(\w+)", told) == [
        "echo_1",
        "echo_1",
        "echo_2",
        "echo_2",
    ]
    lose_nothing(shared, "echo", lambda: command(shared, "restart", "echo"))
    assert not {*before} & {*shared.sh(pids).stdout.split()}


def test_nobody_outside_can_drain_a_replica(shared: Server) -> None:
    path = f"{product.BASE}/gateway/drain?replica=smoke"
    assert shared.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", path).stdout == "404"
    assert product.chat(shared, PROMPT) == ANSWER


def test_an_edit_by_hand_is_shown_and_kept(shared: Server) -> None:
    unit = f"{UNITS}/llm-appliance-gateway.service"
    inner = "/var/lib/llm-appliance/current/nginx/nginx.conf"
    shared.sh(f"echo '# by hand' >> {unit}; echo '# inside' >> {inner}")
    assert f"edited by hand: {unit}" in command(shared, "status").stdout
    assert "+# by hand" in command(shared, "plan", code=10).stdout
    said = command(shared, "install").stdout
    copy = re.search(rf"{unit}\.edited-\w+", said)
    assert copy and "+# by hand" in said and "+# inside" in said
    assert shared.read(copy[0]).endswith("# by hand\n")
    assert "# by hand" not in shared.read(unit)
    shared.run("rm", copy[0])
    assert "edited by hand" not in command(shared, "status").stdout


def test_old_generations_go_and_the_way_back_stays(shared: Server) -> None:
    assert "would be removed: " in command(shared, "generations", "prune", "--keep", "1", "--dry-run").stdout
    command(shared, "generations", "prune", "--keep", "1")
    kept = data(shared, "generations", "list")["generations"]
    assert len(kept) == 2  # type: ignore[arg-type]
    command(shared, "rollback", "--dry-run")


# helping


def test_a_support_bundle_holds_what_helps_and_no_secret(shared: Server) -> None:
    key = command(shared, "keys", "add", "ann").stdout.split()[0]
    unit = "llm-appliance-model@echo_1.service"
    try:
        drop_in(
            shared, unit, "Environment=HF_TOKEN=planted-in-a-drop-in",
            "ExecStartPre=/bin/echo Authorization: Bearer planted-in-a-log",
        )  # fmt: skip
        shared.write("/etc/llm-appliance/secrets/kimi.key", "planted-key-of-a-provider\n", mode="0600")
        shared.sh("logger -t x planted-key-of-a-provider")
        until("it runs", lambda: shared.run("llm-appliance", "status", check=False).code == 0)
        said = command(shared, "support-bundle", "-o", "/root/help.tar.gz").stdout
        assert "places redacted" in said
        assert shared.run("stat", "-c", "%a", "/root/help.tar.gz").stdout.strip() == "600"
        with tarfile.open(fileobj=io.BytesIO(shared.get("/root/help.tar.gz"))) as tar:
            texts = {name.partition("/")[2]: tar.extractfile(name).read().decode() for name in tar.getnames()}  # type: ignore[union-attr]
        for name, text in texts.items():
            assert key not in text and "planted" not in text, name
        for name in ("detect.json", "plan.json", "status.json", "logs/echo_1.log", "units/cat.txt"):
            assert len(texts[name]) > 100, name
        assert json.loads(texts["doctor.json"]) is not None
        assert "HF_TOKEN=[redacted]" in texts["units/cat.txt"]
        assert not [name for name in texts if "keys.json" in name or "secrets" in name]
        assert "is there already" in command(shared, "support-bundle", "-o", "/root/help.tar.gz", code=2).stderr
    finally:
        undo(shared, unit)
        command(shared, "keys", "revoke", "ann")
