"""What an operator does to a server with an appliance on it, and what is there, and what is not, afterwards."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.faults import SLOW
from tests.integration.lab import Completed, FileState, Lab, Process, Server, difference
from tests.integration.product import BASE, SMOKE
from tests.unit.weights import build

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
WEIGHTS = product.ROOT / "appliance/smoke/smoke.gguf"
SECOND = "/srv/models/second.gguf"
ETC = "/etc/llm-appliance"
UNITS = "/etc/systemd/system"
STATE = "/var/lib/llm-appliance"
GATEWAY, MODEL = "llm-appliance-gateway.service", "llm-appliance-model@smoke.service"
# Where nothing of ours goes; the rest of the disk is quick to read.
ELSEWHERE = ("/usr/lib", "/usr/share", "/usr/bin", "/opt", "/root", "/srv", "/var/lib/dpkg", "/var/cache")
# Every change counts a generation up, and the lock names who held it last.
COUNTED = (f"{STATE}/generations", f"{STATE}/record.json", f"{STATE}/lock", f"{STATE}/current")


@pytest.fixture(scope="module")
def shared(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """An appliance for all tests that leave it as they found it, with another model's file beside it."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "shared") as server:
        server.put(WEIGHTS, SECOND, mode="0644")
        yield server


def appliance_command(server: Server, *words: str, check: bool = True, timeout: float = 120) -> Completed:
    """Type a command of ours; it and what it says are printed."""
    done = server.run("llm-appliance", *words, check=check, timeout=timeout)
    print(f"\n# llm-appliance {' '.join(words)}\n{done.stdout}{done.stderr}", end="")
    return done


def written(server: Server, *ignore: str) -> dict[str, FileState]:
    """Every file in the places where we write at all."""
    return server.files((*ELSEWHERE, f"{STATE}/lock", "/var/log/llm-appliance/gateway/access.log", *ignore))


def processes(server: Server) -> dict[str, set[int]]:
    """The engines and gateways that run, by their programs' names."""
    found = server.sh(
        r"find /proc -maxdepth 2 -name exe '(' -lname '*/nginx' -o -lname '*/llama-server' ')' -printf '%h %l\n' "
        "2>/dev/null || true"
    ).stdout
    running: dict[str, set[int]] = {}
    for line in found.splitlines():
        directory, _, program = line.partition(" ")
        running.setdefault(program.rpartition("/")[2], set()).add(int(directory.removeprefix("/proc/")))
    return running


def main_pid(server: Server, unit: str) -> int:
    return int(server.run("systemctl", "show", "--property=MainPID", "--value", unit).stdout)


def status_code(server: Server, path: str) -> int:
    return int(server.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", BASE + path, check=False).stdout)


def ask(server: Server, model: str) -> tuple[int, Mapping[str, str], dict[str, object]]:
    """Ask once: status, headers in lower case, and the JSON."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0})
    said = server.run("curl", "-si", f"{BASE}/v1/chat/completions", "-d", body, check=False).stdout
    head, _, text = said.replace("\r", "").partition("\n\n")
    first, *lines = head.splitlines() or ["HTTP/1.1 0"]
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(text) if text else {}


def endless(server: Server, tokens: int) -> Process:
    """Start a stream that goes on for some seconds."""
    body = {
        "model": "smoke", "messages": [{"role": "user", "content": SMOKE["endless"]["prompt"]}],
        "temperature": 0, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    return server.popen("curl", "-sSN", f"{BASE}/v1/chat/completions", "-d", json.dumps(body))


# systemctl


def test_systemctl_stop_leaves_nothing_running_and_start_waits_for_answers(shared: Server) -> None:
    assert shared.run("systemctl", "is-enabled", "llm-appliance").stdout.strip() == "enabled"
    assert "Active: active" in shared.run("systemctl", "status", "llm-appliance").stdout
    shared.run("systemctl", "stop", "llm-appliance")
    assert processes(shared) == {}
    assert ":8080" not in shared.run("ss", "-ltnH").stdout
    assert shared.run("systemctl", "status", "llm-appliance", check=False).code == 3
    assert appliance_command(shared, "status", check=False).code == 7
    shared.run("systemctl", "start", "llm-appliance")
    assert product.chat(shared, PROMPT) == ANSWER


def test_systemctl_restart_brings_new_processes_as_often_as_one_likes(shared: Server) -> None:
    for _ in range(6):
        before = processes(shared)
        shared.run("systemctl", "restart", "llm-appliance")
        assert product.chat(shared, PROMPT) == ANSWER
        after = processes(shared)
        assert after.keys() == before.keys() == {"nginx", "llama-server"}
        assert not {pid for pids in after.values() for pid in pids} & {pid for pids in before.values() for pid in pids}


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_killed_engine_comes_back_and_meanwhile_the_gateway_says_so(shared: Server, signal: str) -> None:
    pid = main_pid(shared, MODEL)
    shared.sh(f"kill -{signal} {pid}")
    seen = []
    deadline = time.monotonic() + 30
    status, headers, said = ask(shared, "smoke")
    while status != 200 and time.monotonic() < deadline:
        error = said["error"]
        assert isinstance(error, dict)
        seen.append((status, error["code"]))
        assert status in (502, 503), said
        assert error["type"] == "server_error" and "smoke" in error["message"]
        assert int(headers["retry-after"]) > 0
        time.sleep(0.2)
        status, headers, said = ask(shared, "smoke")
    print("\nuntil it was back:", *dict.fromkeys(seen))
    assert status == 200, said
    assert seen
    assert main_pid(shared, MODEL) != pid


# llm-appliance start, stop, restart, status, logs


def test_one_model_can_be_stopped_started_and_restarted(shared: Server) -> None:
    gateway, engine = main_pid(shared, GATEWAY), main_pid(shared, MODEL)
    assert f"systemctl stop {MODEL}" in appliance_command(shared, "stop", "smoke", "--dry-run").stdout
    assert main_pid(shared, MODEL) == engine
    appliance_command(shared, "stop", "smoke")
    assert "llama-server" not in processes(shared)
    assert ask(shared, "smoke")[0] == 503
    assert appliance_command(shared, "status", check=False).code == 7
    appliance_command(shared, "start", "smoke")
    assert product.chat(shared, PROMPT) == ANSWER
    second = main_pid(shared, MODEL)
    appliance_command(shared, "restart", "smoke")
    assert product.chat(shared, PROMPT) == ANSWER
    assert len({engine, second, main_pid(shared, MODEL)}) == 3
    assert main_pid(shared, GATEWAY) == gateway
    done = appliance_command(shared, "restart", "smok", check=False)
    assert done.code == 3
    assert "no model is called 'smok'" in done.stderr and "did you mean smoke?" in done.stderr


def test_status_tells_people_and_programs_the_same(shared: Server) -> None:
    done = appliance_command(shared, "status")
    document = json.loads(shared.run("llm-appliance", "status", "--json").stdout)
    assert document["exit_code"] == 0
    rows = {row["name"]: row for row in document["data"]["services"]}
    assert {name: row["state"] for name, row in rows.items()} == {"gateway": "running", "smoke": "running"}
    assert rows["smoke"]["pid"] == main_pid(shared, MODEL)
    for line in done.stdout.partition("\n\n")[0].splitlines()[1:]:
        assert str(rows[line.split()[0]]["pid"]) in line


def test_logs_show_one_models_lines_and_follow_them(shared: Server) -> None:
    assert "listening" in appliance_command(shared, "logs", "smoke").stdout
    follower = shared.popen("llm-appliance", "logs", "smoke", "-f", "-n", "1")
    product.chat(shared, PROMPT)
    shared.run("systemctl", "restart", MODEL)
    follower.wait_for("Started", timeout=30)
    follower.signal("INT")
    follower.wait(timeout=10)


# install once more


def test_a_second_install_changes_nothing_and_keeps_every_process(shared: Server) -> None:
    before, files = processes(shared), written(shared)
    assert "changed=0\n" in appliance_command(shared, "install").stdout
    document = json.loads(shared.run("llm-appliance", "install", "--json").stdout)
    assert document["data"]["changed"] == 0 and document["status"] == "ok"
    assert processes(shared) == before
    assert difference(files, written(shared)) == {}
    assert "nothing would change" in appliance_command(shared, "plan").stdout


# add-model, remove-model


def test_a_model_comes_and_goes_beside_a_stream_of_the_first(shared: Server) -> None:
    gateway, engine = main_pid(shared, GATEWAY), main_pid(shared, MODEL)
    files = written(shared, *COUNTED)
    stream = endless(shared, 3500)
    stream.wait_for('"content":"T')
    appliance_command(shared, "add-model", "second", SECOND)
    print("the stream", "goes on" if "[DONE]" not in stream.output else "was over before the model was there")
    assert product.chat(shared, PROMPT, model="second") == ANSWER
    assert product.chat(shared, PROMPT, model="second", path="/second/v1") == ANSWER
    listed = json.loads(shared.run("curl", "-fsS", f"{BASE}/v1/models").stdout)["data"]
    assert [item["id"] for item in listed] == ["second", "smoke"]
    assert stream.wait(timeout=300) == 0
    assert stream.output.endswith("data: [DONE]\n\n")
    assert '"completion_tokens":3500' in stream.output and '"finish_reason":"length"' in stream.output
    assert f"{STATE}/store" in shared.run("systemctl", "cat", "llm-appliance-model@second").stdout
    weights = shared.sh(f"find {STATE}/store -name second.gguf").stdout
    assert weights

    appliance_command(shared, "remove-model", "second")
    assert status_code(shared, "/second/v1/models") == 404
    assert ask(shared, "second")[0] == 404
    assert product.chat(shared, PROMPT) == ANSWER
    assert (main_pid(shared, GATEWAY), main_pid(shared, MODEL)) == (gateway, engine)
    assert shared.sh(f"find {STATE}/store -name second.gguf").stdout == weights
    assert not shared.exists(f"{UNITS}/llm-appliance-model@second.service")
    assert not shared.exists("/run/llm-appliance/second")
    kept = f"{STATE}/store/models"
    changed = [path for path in difference(files, written(shared, *COUNTED)) if not path.startswith(kept)]
    assert changed == []


def test_a_split_model_is_served_whichever_shard_is_given(shared: Server) -> None:
    for path, content in split(WEIGHTS.read_bytes(), "/srv/split/smoke", 3).items():
        shared.run("install", "-D", "-m", "0644", "/dev/stdin", path, input=content)
    appliance_command(shared, "add-model", "split", "/srv/split/smoke-00002-of-00003.gguf")
    assert product.chat(shared, PROMPT, path="/split/v1", model="split") == ANSWER
    stored = shared.sh(f"find {STATE}/store -name 'smoke-0000*' -printf '%f\\n' | sort").stdout.split()
    assert stored == [f"smoke-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    appliance_command(shared, "remove-model", "split")


CASES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no path": (("new",), 2, "where are the files of new"),
    "missing": (("new", "/srv/models/secnd.gguf"), 5, "does not exist"),
    "safetensors": (("new", "/srv/bad/safetensors", "--engine", "llama-cpp"), 4, "reads GGUF files only"),
    "truncated": (("new", "/srv/bad/truncated.gguf"), 5, "truncated.gguf"),
    "web page": (("new", "/srv/bad/page.gguf"), 5, "is a web page of"),
    "lfs pointer": (("new", "/srv/bad/pointer.gguf"), 5, "Git LFS pointer"),
    "pickle": (("new", "/srv/bad/pickle.bin"), 5, "PyTorch pickle"),
    "missing shard": (("new", "/srv/bad/part-00001-of-00003.gguf"), 5, "1 of 3 shards missing"),
    "directory": (("new", "/srv/models"), 5, "/srv/models"),
    "capitals": (("New", SECOND), 3, "'New' cannot be a model's name"),
    "slash": (("a/b", SECOND), 3, "'a/b' cannot be a model's name"),
    "reserved": (("v1", SECOND), 3, "reserved"),
    "taken": (("smoke", SECOND), 3, "a model smoke is there already"),
    "no context": (("new", SECOND, "--context", "0"), 3, "context: 0 is not between"),
    "no fit": (("new", SECOND, "--context", "16777216", "--parallel", "1024"), 4, "GiB"),
    "engine": (("new", SECOND, "--engine", "llama"), 3, "no engine is called 'llama'"),
    "own flag": (("new", SECOND, "--set", "port=1"), 3, "set by the appliance itself"),
    "no flag": (("new", SECOND, "--set", "port"), 2, "is not KEY=VALUE"),
    "unknown option": (("new", SECOND, "--contxt", "5"), 2, "--contxt"),
}
HINTLESS = {"no context", "own flag"}


@pytest.fixture(scope="module")
def bad_files(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files that look like models at first sight."""
    local = tmp_path_factory.mktemp("bad")
    build.directory(local / "safetensors")
    whole = WEIGHTS.read_bytes()
    (local / "truncated.gguf").write_bytes(whole[: len(whole) // 2])
    (local / "page.gguf").write_text("<!DOCTYPE html><html>Sign in to download</html>")
    (local / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4000000000\n")
    (local / "pickle.bin").write_bytes(b"\x80\x02}q\x00.")
    build.shards(local, 3, "part")
    (local / "part-00003-of-00003.gguf").unlink()
    shared.put(local, "/srv/bad")


@pytest.mark.parametrize("case", CASES)
def test_add_model_refuses_in_words_and_changes_nothing(shared: Server, bad_files: None, case: str) -> None:
    words, code, message = CASES[case]
    files, running = written(shared), processes(shared)
    done = appliance_command(shared, "add-model", *words, check=False)
    assert done.code == code
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] + done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert ("\nhint:  " in done.stderr) == (case not in HINTLESS)
    document = json.loads(shared.run("llm-appliance", "add-model", *words, "--json", check=False).stdout)
    assert document["exit_code"] == code and document["errors"][0]["message"]
    assert difference(files, written(shared)) == {}
    assert processes(shared) == running


def test_a_model_that_fails_is_taken_back_and_the_log_says_why(shared: Server) -> None:
    engine, files = main_pid(shared, MODEL), written(shared, *COUNTED)
    for option, reason in (("die-after=1", "bad gives no completion"), ("fail-every=1", "fails on purpose")):
        done = appliance_command(shared, "add-model", "bad", "--engine", "dummy", "--set", option, check=False)
        assert done.code == 7
        assert reason in done.stderr
        assert re.search(r"generation \d+ is back", done.stderr)
        assert "hint:  " in done.stderr
        assert not shared.exists(f"{ETC}/models.d/bad.yaml")
        assert product.chat(shared, PROMPT) == ANSWER
        assert main_pid(shared, MODEL) == engine
        assert ask(shared, "bad")[0] == 404
        assert "nothing would change" in appliance_command(shared, "plan").stdout
        assert difference(files, written(shared, *COUNTED)) == {}


def test_an_engine_that_does_not_start_shows_its_own_words(shared: Server) -> None:
    done = appliance_command(shared, "add-model", "bad", SECOND, "--set", "override-kv=nonsense", check=False)
    assert done.code == 7
    assert "override-kv" in done.stderr.partition("error: ")[2]
    assert "nothing would change" in appliance_command(shared, "plan").stdout
    assert product.chat(shared, PROMPT) == ANSWER


# Hardening


def test_units_are_hardened(shared: Server) -> None:
    for unit, most in ((GATEWAY, 15), (MODEL, 10)):
        done = shared.run("systemd-analyze", "security", "--offline=true", f"--threshold={most}", unit, check=False)
        print("\n" + done.stdout.splitlines()[-1])
        assert done.code == 0, done.stdout


def test_each_part_runs_as_its_own_user_and_reaches_only_what_it_must(shared: Server) -> None:
    engine, gateway = main_pid(shared, MODEL), main_pid(shared, GATEWAY)
    owners = shared.run("stat", "-c", "%U", f"/proc/{engine}", f"/proc/{gateway}").stdout.split()
    assert owners == ["llm-engine", "llm-gateway"]
    devices = [line.partition(":")[0].strip() for line in shared.read(f"/proc/{engine}/net/dev").splitlines()[2:]]
    assert devices == ["lo"]
    listening = [line.split()[3] for line in shared.run("ss", "-ltnH").stdout.splitlines()]
    assert [address for address in listening if address.endswith(":8080")] == ["127.0.0.1:8080"]
    knock = ("curl", "-sS", "--unix-socket", "/run/llm-appliance/smoke/engine.sock", "http://engine/health")
    assert shared.run(*knock).stdout == '{"status":"ok"}'
    assert shared.run(*knock, user="nobody", check=False).code == 7


def test_an_address_outside_needs_a_word(shared: Server) -> None:
    files = written(shared)
    done = appliance_command(shared, "install", "--listen", "0.0.0.0:8080", check=False)
    assert done.code == 3
    assert "no key protects it" in done.stderr and "--insecure" in done.stderr
    assert difference(files, written(shared)) == {}


# plan, --dry-run, completion


def test_plan_and_dry_run_change_nothing_and_show_what_would(shared: Server) -> None:
    files = written(shared)
    assert appliance_command(shared, "plan").code == 0
    done = appliance_command(shared, "plan", "--listen", "127.0.0.1:9000", check=False)
    assert done.code == 10
    assert f"{ETC}/appliance.yaml" in done.stdout
    changes = {
        f"{ETC}/appliance.yaml": ("install", "--listen", "127.0.0.1:9000"),
        f"{ETC}/models.d/second.yaml": ("add-model", "second", SECOND),
    }
    for path, words in changes.items():
        diff = appliance_command(shared, *words, "--dry-run").stdout
        assert f"--- now: {path}\n+++ then: {path}\n" in diff
    assert difference(files, written(shared)) == {}


def test_bash_completes_commands_and_models(shared: Server) -> None:
    def completed(*words: str) -> list[str]:
        script = (
            "source /usr/local/share/bash-completion/completions/llm-appliance\n"
            'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))\n_llm_appliance llm-appliance\n'
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return shared.run("bash", "-c", script, "bash", "llm-appliance", *words).stdout.split()

    assert {"install", "add-model", "status"} <= set(completed(""))
    assert completed("remo") == ["remove-model"]
    assert completed("logs", "s") == ["smoke"]
    assert completed("remove-model", "") == ["smoke"]


# The operator's own edits


def test_what_the_operator_edits_is_kept(appliance: Server) -> None:
    drop_in = f"{UNITS}/{MODEL}.d/50-local.conf"
    appliance.write(drop_in, "[Service]\nNice=5\n")
    appliance.run("systemctl", "daemon-reload")
    appliance.run("systemctl", "restart", MODEL)
    appliance.put(WEIGHTS, SECOND, mode="0644")
    appliance_command(appliance, "install")
    appliance_command(appliance, "add-model", "second", SECOND)
    assert appliance.read(drop_in) == "[Service]\nNice=5\n"
    assert appliance.run("systemctl", "show", "--property=Nice", "--value", MODEL).stdout.strip() == "5"

    unit = f"{UNITS}/{MODEL}"
    ours = appliance.read(unit)
    appliance.write(unit, ours + "# mine\n")
    done = appliance_command(appliance, "install")
    assert "kept your edit of a file of ours: " in done.stdout
    assert appliance.read(unit) == ours
    (copy,) = appliance.sh(f"ls -d {unit}.edited-*").stdout.split()
    assert appliance.read(copy) == ours + "# mine\n"

    settings = f"{ETC}/models.d/smoke.yaml"
    edited = "# Half is enough here.\n" + appliance.read(settings) + "context: 2048  # tokens\n"
    appliance.write(settings, edited)
    assert appliance_command(appliance, "plan", check=False).code == 10
    second = main_pid(appliance, "llm-appliance-model@second.service")
    appliance_command(appliance, "install")
    assert appliance.read(settings) == edited
    assert "8192" in appliance.run("systemctl", "show", "--property=ExecStart", "--value", MODEL).stdout
    assert product.chat(appliance, PROMPT) == ANSWER
    assert main_pid(appliance, "llm-appliance-model@second.service") == second
    assert "changed=0" in appliance_command(appliance, "install").stdout

    appliance.write(settings, edited + "contxt: 5\n")
    done = appliance_command(appliance, "install", check=False)
    assert done.code == 3
    assert "models.d/smoke.yaml" in done.stderr and "contxt" in done.stderr
    assert product.chat(appliance, PROMPT) == ANSWER


# plan and apply, uninstall


UNAVOIDABLE = (
    # The package manager's diary and backups, and the C library's cache, of the python3 that came and went.
    "/var/log/dpkg.log",
    "/var/log/alternatives.log",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/available-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/triggers/*",
    "/etc/ld.so.cache",
    "/var/cache/ldconfig/aux-cache",
    # Backups that useradd and groupadd make.
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    # Of the lab: the checkout, and the clock of the system's own timers.
    "/root*",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
)

SHADOW = "/etc/shadow"


def test_uninstall_and_install_again(appliance: Server, quickstart: Quickstart) -> None:
    """uninstall leaves the weights and nothing else; a plan from before brings back the very same files."""
    before = untouched(quickstart.before)
    plan = appliance.run("llm-appliance", "plan", "--json").stdout
    assert json.loads(plan)["data"]["pending"] == []
    installed, accounts = untouched(written(appliance, SHADOW)), shadow(appliance)
    appliance_command(appliance, "uninstall")
    assert processes(appliance) == {}
    left = difference(before, untouched(appliance.files()))
    assert {path for path in left if not path.startswith(f"{STATE}/store/")} == {STATE, f"{STATE}/store"}

    print("\n# the program again, a plan from a file")
    product.seed(appliance)
    process = product.install(appliance, "--dry-run")
    assert process.wait(timeout=300) == 0, process.output
    pending = appliance_command(appliance, "plan", check=False)
    assert pending.code == 10 and "files would change" in pending.stdout
    appliance.write("/root/plan.json", plan)
    done = appliance_command(appliance, "apply", "/root/plan.json", timeout=600)
    assert ANSWER in done.stdout
    assert "store:" not in done.stderr, "the weights were there already"
    assert list(difference(installed, untouched(written(appliance, SHADOW)))) == []
    assert shadow(appliance) == accounts
    assert appliance_command(appliance, "plan").code == 0

    appliance_command(appliance, "uninstall", "--purge-models")
    assert difference(before, untouched(appliance.files())) == {}


def shadow(server: Server) -> list[list[str]]:
    """The entries of /etc/shadow without their third field: the day on which an account was made."""
    entries = (line.split(":") for line in server.run("cat", SHADOW).stdout.splitlines())
    return [entry[:2] + entry[3:] for entry in entries]


def untouched(files: Mapping[str, FileState]) -> dict[str, FileState]:
    """The files that must be as before: all but the traces that cannot be avoided."""
    return {path: state for path, state in files.items() if not any(fnmatch(path, one) for one in UNAVOIDABLE)}


# llama-cpp-python


@SLOW
def test_llama_cpp_python_serves_beside_llama_cpp(appliance: Server) -> None:
    appliance.put(WEIGHTS, SECOND, mode="0644")
    began = time.monotonic()
    words = ("add-model", "py", SECOND, "--engine", "llama-cpp-python")
    appliance_command(appliance, *words, timeout=1500)
    print(f"llama-cpp-python: {time.monotonic() - began:.0f} s")
    assert product.chat(appliance, PROMPT, model="py") == ANSWER
    assert product.chat(appliance, PROMPT, path="/py/v1", model="py") == ANSWER
    assert product.chat(appliance, PROMPT) == ANSWER
    body = {"model": "py", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "stream": True}
    said = appliance.run("curl", "-fsSN", f"{BASE}/v1/chat/completions", "-d", json.dumps(body)).stdout
    events = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER
    assert "changed=0" in appliance_command(appliance, "install").stdout


# A split model, as llama.cpp's own gguf-split makes them: all pairs in the first shard, tensors dealt out.

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    """Walks through the bytes of a GGUF file."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content = content
        self.at = at

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.content, self.at)
        self.at += struct.calcsize("<" + kind)
        return int(value)

    def text(self) -> str:
        length = self.number("Q")
        self.at += length
        return self.content[self.at - length : self.at].decode(errors="replace")

    def skip(self, kind: int) -> None:
        if kind == build.STRING:
            self.text()
        elif kind == build.ARRAY:
            inner, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip(inner)
        else:
            self.at += SIZES[kind]


def split(content: bytes, stem: str, count: int) -> dict[str, bytes]:
    """Split a model into `count` files, by name."""
    reader = Reader(content, 8)
    tensors, pairs = reader.number("Q"), reader.number("Q")
    start = reader.at
    for _ in range(pairs):
        reader.text()
        reader.skip(reader.number("I"))
    metadata = content[start : reader.at]
    infos = []
    for _ in range(tensors):
        name = reader.text()
        shape = tuple(reader.number("Q") for _ in range(reader.number("I")))
        infos.append((name, shape, reader.number("I"), reader.number("Q")))
    data = content[reader.at + -reader.at % 32 :]
    ends = sorted(info[3] for info in infos) + [len(data)]
    shards = {}
    for number in range(count):
        own = [
            build.pair("split.no", build.U16, number),
            build.pair("split.count", build.U16, count),
            build.pair("split.tensors.count", build.I32, tensors),
        ]
        head, body = b"", b""
        mine = infos[number::count]
        for name, shape, kind, offset in mine:
            head += build.tensor(name, shape, kind, len(body))
            piece = data[offset : ends[ends.index(offset) + 1]]
            body += piece + bytes(-len(piece) % 32)
        known = (metadata, pairs) if number == 0 else (b"", 0)
        first = b"GGUF" + struct.pack("<IQQ", 3, len(mine), known[1] + len(own)) + known[0] + b"".join(own) + head
        shards[f"{stem}-{number + 1:05}-of-{count:05}.gguf"] = first + bytes(-len(first) % 32) + body
    return shards
