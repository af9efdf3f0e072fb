"""Faults on one server, one after the other, from mild to rough: each is provoked, told in words, and mended again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.campaign.losses import told
from tests.integration.conftest import Quickstart
from tests.integration.faults import (
    ADD,
    BASE,
    DRAFTS,
    INSTALL,
    KILLER,
    PYTHON,
    SECOND,
    SLOW,
    STATE,
    answering,
    answers,
    booted,
    converges,
    kept,
    nothing_more,
    pid,
    record,
    refused,
    second,
)
from tests.integration.lab import Lab, Server
from tests.integration.lab.machine import command

UNITS = "/etc/systemd/system"
ETC = "/etc/llm-appliance"
REMOVE = ("llm-appliance", "remove-model", "second")
STAND_IN = "/usr/local/bin/systemctl"
"""Comes before the real one in the fixed path of our programs."""
LOG = "/var/log/llm-appliance/gateway/access.log"


@pytest.fixture(scope="module")
def shared(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """An appliance that every test here leaves as it found it, with another model's file beside it."""
    with booted(lab, quickstart, "faults") as server:
        second(server)
        server.write("/root/kill.py", KILLER)
        yield server


@pytest.fixture
def sound(shared: Server) -> Iterator[Server]:
    """The same; after the test all is as configured, nothing is lost, and nothing half done is left."""
    if shared.exists(f"{ETC}/models.d/second.yaml"):  # a test before this one failed
        shared.run(*REMOVE)
    with kept(shared):
        yield shared
    refused(shared.run(*INSTALL, check=False), 0, "smoke answers: Hello! Your LLM appliance is up and answering.")
    left = shared.sh(f"{DRAFTS} -o -name '*.edited-*'; systemctl --failed --plain --no-legend", check=False).stdout
    assert left == ""
    assert record(shared)["confirmed"] is True


@contextmanager
def mounted(server: Server, path: str, options: str) -> Iterator[None]:
    """Give a directory of the server other mount options for a while."""
    server.sh(f"mount --bind {path} {path} && mount -o remount,bind,{options} {path}")
    try:
        yield
    finally:
        server.run("umount", "--lazy", path)


@contextmanager
def stand_in(server: Server, body: str) -> Iterator[None]:
    """Put a program of ours in front of the real systemctl for a while."""
    server.write(STAND_IN, f"#!/bin/sh\n# Stand-in for systemctl.\n{body}\n", mode="0755")
    try:
        yield
    finally:
        server.run("rm", STAND_IN)


def status(server: Server) -> dict[str, str]:
    """Return state and detail of each service, and the exit code."""
    done = server.run("llm-appliance", "status", "--json", check=False)
    document = json.loads(done.stdout)
    found = {one["name"]: f"{one['state']} {one['detail']}".strip() for one in document["data"].get("services", ())}
    return {**found, "": str(done.code)}


# ------------------------------------------------------------------------------------------------ surroundings


ODD = (
    "env -i /usr/local/bin/llm-appliance",
    "env -i PATH= /usr/local/bin/llm-appliance",
    "env -i PATH=/nowhere HOME=/nowhere LANG=tr_TR.UTF-8 LC_ALL=tr_TR.UTF-8 TZ=No/Where /usr/local/bin/llm-appliance",
    "ulimit -n 24; llm-appliance",
    "ulimit -c 0 -u 100; llm-appliance",
    "umask 000; llm-appliance",
    "umask 777; llm-appliance",
    "mkdir /srv/gone && cd /srv/gone && rmdir /srv/gone; llm-appliance",
)
"""No environment; no path; another language; few files; few processes; two umasks; a directory that is not there."""


def test_whatever_a_shell_is_like_the_same_is_done(sound: Server) -> None:
    for number, odd in enumerate(ODD):
        words = (ADD, REMOVE)[number % 2]
        done = sound.sh(f"{odd} {' '.join(words[1:])}", check=False)
        refused(done, 0, "changed=", "smoke answers")
    assert sound.sh(f"find {ETC} {STATE} {UNITS}/llm* -perm /022 ! -type l").stdout == "", "nobody else may write there"


def test_a_dead_proxy_is_named_where_somebody_is_asked_and_hinders_nothing_else(sound: Server) -> None:
    dead = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    began = time.monotonic()
    done = sound.run("llm-appliance", "add-model", "far", "hf:a/b", env=dead, check=False)
    refused(done, 5, "hf:a/b", "nobody listens there", "hint:")
    assert time.monotonic() - began < 20
    for words in (("status",), ("verify",), ("install",), ("list",)):
        refused(sound.run("llm-appliance", *words, env=dead, check=False), 0)


def test_a_clock_that_is_ten_years_off_hinders_no_command(sound: Server) -> None:
    """The clock of this one program, by libfaketime: a server's own is that of the machine."""
    sound.sh("command -v faketime || (apt-get -q update && apt-get -q install -y --no-install-recommends faketime)")
    for years, words in (
        (-10, ADD),
        (10, ("llm-appliance", "status")),
        (10, ("llm-appliance", "verify")),
        (10, REMOVE),
    ):
        refused(sound.run("faketime", f"{years:+d} years", *words, check=False), 0)


def test_a_machine_that_was_suspended_goes_on_where_it_was(sound: Server) -> None:
    sound.sh("rm -f /tmp/answer")
    with answering(sound):
        sound.sh("until test -s /tmp/answer; do sleep 0.05; done")
        command("docker", "pause", sound.container, timeout=30)
        time.sleep(3)
        command("docker", "unpause", sound.container, timeout=30)
    answers(sound)


def test_somebody_else_s_failed_unit_is_no_reason_to_stop(sound: Server) -> None:
    sound.write(f"{UNITS}/broken.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    sound.sh("systemctl daemon-reload; systemctl start broken; systemctl is-system-running", check=False)
    refused(sound.run(*ADD, check=False), 0)
    refused(sound.run(*REMOVE, check=False), 0)
    sound.sh(f"systemctl reset-failed broken; rm {UNITS}/broken.service; systemctl daemon-reload")


def test_without_a_journal_all_goes_on(sound: Server) -> None:
    journal = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald"
    sound.sh(f"systemctl mask --runtime systemd-journald; systemctl stop {journal}; true")
    try:
        with answering(sound):
            refused(sound.run(*ADD, check=False), 0)
            assert status(sound)[""] == "0"
            refused(sound.run("llm-appliance", "logs", check=False), 0)
            refused(sound.run(*REMOVE, check=False), 0)
    finally:
        sound.sh(
            "systemctl unmask --runtime systemd-journald; systemctl start systemd-journald.socket systemd-journald"
        )


# ------------------------------------------------------------------------------------------------ two at once, systemd


def test_a_systemctl_that_hangs_is_named_and_disturbs_nobody(sound: Server) -> None:
    with answering(sound), stand_in(sound, "exec sleep 1000"):
        refused(sound.run(*ADD, check=False), 6, "systemctl does not answer: still running after 10 s", "hint:")
        running = sound.sh("for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null || true").stdout
        assert "\nsleep 1000" not in running, "it was ended"
    assert not sound.exists(f"{ETC}/models.d/second.yaml")


def test_a_systemd_that_rereads_nothing_leaves_what_was(sound: Server) -> None:
    fails = 'case "$*" in *daemon-reload*) echo no >&2; exit 1 ;; esac\nexec /usr/bin/systemctl "$@"'
    generation = record(sound)["generation"]
    with answering(sound), stand_in(sound, fails):
        refused(sound.run(*ADD, check=False), 7, "daemon-reload ends with 1", f"generation {generation} is back")
    assert record(sound)["generation"] == generation
    assert not sound.exists(f"{ETC}/models.d/second.yaml")


def test_what_an_operator_masked_is_not_unmasked(sound: Server) -> None:
    unit = "llm-appliance-model@second.service"
    sound.run("systemctl", "mask", unit)
    with answering(sound):
        refused(sound.run(*ADD, check=False), 4, unit, "masked", f"systemctl unmask {unit}")
    assert sound.run("readlink", f"{UNITS}/{unit}").stdout.strip() == "/dev/null"
    assert not sound.exists(f"{ETC}/models.d/second.yaml")
    sound.run("systemctl", "unmask", unit)


# Runs a command, holds it still after its look at the port, and takes that port before it goes on.
THIEF = r"""
import http.server, signal, subprocess, sys, threading
run = subprocess.Popen(sys.argv[2:], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
for line in run.stderr:
    print(line, end="", flush=True)
    if "] acquire" in line:
        run.send_signal(signal.SIGSTOP)
        thief = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=thief.serve_forever, daemon=True).start()
        run.send_signal(signal.SIGCONT)
print("ended with", run.wait())
"""


def test_a_port_that_is_taken_after_it_was_free_is_noticed(sound: Server) -> None:
    """Whoever has it answers, so that a look at whether somebody does is not enough."""
    sound.write("/root/thief.py", THIEF)
    theft = (PYTHON, "/root/thief.py", "9000", *INSTALL, "--listen", "127.0.0.1:9000")
    said = sound.run(*theft, timeout=120).stdout
    assert "ended with 7" in said, said
    assert "9000" in said
    assert "is back" in said
    answers(sound)


# ------------------------------------------------------------------------------------------------ disks


def test_a_temporary_directory_that_is_mounted_tightly(sound: Server) -> None:
    """Nothing of ours is started from there; systemd's own check of units wants to write there, and says so."""
    try:
        sound.run("mount", "-o", "remount,noexec,nosuid,nodev", "/tmp")
        refused(sound.run(*ADD, check=False), 0)
        sound.run("mount", "-o", "remount,ro", "/tmp")
        refused(sound.run(*REMOVE, check=False), 6, "Read-only file system")
        refused(sound.run("llm-appliance", "status", check=False), 0)
    finally:
        sound.run("mount", "-o", "remount,rw,exec,suid,dev", "/tmp")
    refused(sound.run(*REMOVE, check=False), 0)


def test_a_state_that_became_read_only_is_told_and_can_be_operated(sound: Server) -> None:
    with mounted(sound, STATE, "ro"):
        with answering(sound):
            refused(sound.run(*ADD, check=False), 4, f"{STATE} is mounted read-only", "hint:")
            refused(sound.run("llm-appliance", "uninstall", "--yes", check=False), 4, "read-only")
            assert status(sound)[""] == "0"
        for word in ("stop", "start", "restart"):
            refused(sound.run("llm-appliance", word, check=False), 0)
        answers(sound)


def test_units_that_cannot_be_written_leave_what_was(sound: Server) -> None:
    generation = record(sound)["generation"]
    with mounted(sound, UNITS, "ro"), answering(sound):
        refused(sound.run(*ADD, check=False), 4, "Read-only file system", "hint:")
        assert record(sound)["generation"] == generation
        assert not sound.exists(f"{ETC}/models.d/second.yaml")
        refused(sound.run(*INSTALL, check=False), 0, "changed=0")


def test_a_configuration_that_cannot_be_written_leaves_what_was(sound: Server) -> None:
    with mounted(sound, ETC, "ro"), answering(sound):
        refused(sound.run(*ADD, check=False), 4, "Read-only file system", "hint:")
        assert not sound.exists(f"{UNITS}/llm-appliance-model@second.service")


def test_programs_that_may_not_be_run_are_told_before_anything_is_changed(sound: Server) -> None:
    with mounted(sound, STATE, "noexec"), answering(sound):
        refused(sound.run(*ADD, check=False), 4, "noexec", "remount,exec")


def test_a_unit_directory_that_is_full_leaves_what_was(sound: Server) -> None:
    """A file system of its own, as full as can be, with our units in it."""
    copy = (
        f"cp -a {UNITS} /srv/units && mount -t tmpfs -o size=200k,mode=755 tmpfs {UNITS} && cp -a /srv/units/. {UNITS}/"
    )
    sound.sh(f"{copy} && (cat /dev/zero >{UNITS}/filler; true)")
    try:
        with answering(sound):
            refused(sound.run(*ADD, check=False), 4, "No space left", "hint:")
            assert not sound.exists(f"{ETC}/models.d/second.yaml")
            assert sound.sh(DRAFTS, check=False).stdout == ""
    finally:
        sound.sh(f"umount --lazy {UNITS}; rm -r /srv/units; systemctl daemon-reload")


def test_a_file_of_the_operator_that_is_a_link_stays_one(sound: Server) -> None:
    spec = f"{ETC}/appliance.yaml"
    sound.sh(f"mkdir -p /srv/config && mv {spec} /srv/config/ && ln -s /srv/config/appliance.yaml {spec}")
    refused(sound.run("llm-appliance", "config", "set", "hub.offline", "true", check=False), 0)
    assert sound.run("readlink", spec).stdout.strip() == "/srv/config/appliance.yaml"
    assert "offline: true" in sound.read("/srv/config/appliance.yaml")
    refused(sound.run("llm-appliance", "config", "unset", "hub.offline", check=False), 0)
    sound.sh(f"rm {spec} && mv /srv/config/appliance.yaml {spec}")


# ------------------------------------------------------------------------------------------------ certificates

SELF_SIGNED = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days {days} "
    "-keyout /etc/tls/{name}.key -out /etc/tls/{name}.pem 2>/dev/null; chgrp llm-appliance /etc/tls/{name}.key; "
    "chmod 640 /etc/tls/{name}.key"
)


CERTIFICATES = (
    ("a.pem", "b.key", 6, "key values mismatch"),
    ("garbage", "a.key", 6, "no start line"),
    ("a.pem", "secret.key", 6, "Permission denied"),
    ("gone.pem", "a.key", 4, "gone.pem is not there"),
)


def test_a_certificate_that_cannot_be_used_leaves_what_was(sound: Server) -> None:
    sound.sh("mkdir -p /etc/tls; " + "; ".join(SELF_SIGNED.format(name=name, days=2) for name in ("a", "b")))
    sound.sh("echo garbage >/etc/tls/garbage; install -m 600 /etc/tls/a.key /etc/tls/secret.key")
    with answering(sound):
        for certificate, key, code, words in CERTIFICATES:
            tls = ("--tls-certificate", f"/etc/tls/{certificate}", "--tls-key", f"/etc/tls/{key}")
            refused(sound.run(*INSTALL, *tls, check=False), code, words)


AGED = """
import os, sys, time
from appliance import certificates
for name, days in (("ended", -400), ("ending", -390), ("coming", 10)):
    now = int(time.time()) + days * 86400
    by = certificates.authority("lab", now)
    pair = certificates.signed(by, ("localhost",), now)
    for kind, content in (("pem", pair.certificate), ("key", pair.key), ("ca", by.certificate)):
        path = f"/etc/tls/{name}.{kind}"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(content)
"""
"""Made as ours are, on another day: 397 days from then."""


def test_a_certificate_that_ends_is_told_before_and_refused_after(sound: Server) -> None:
    """nginx asks no clock: it is clients who refuse it, and what is installed can be operated all the same."""
    spec, before = f"{ETC}/appliance.yaml", sound.read(f"{ETC}/appliance.yaml")
    sound.write("/root/aged.py", AGED)
    sound.sh(f"mkdir -p /etc/tls; {PYTHON} /root/aged.py")
    use = ("llm-appliance", "tls", "use")
    with answering(sound):
        for name, words in (("ended", "not valid since"), ("coming", "not valid before")):
            pair = (f"/etc/tls/{name}.pem", f"/etc/tls/{name}.key")
            refused(sound.run(*use, *pair, check=False), 3, words)
            tls = ("--tls-certificate", pair[0], "--tls-key", pair[1])
            refused(sound.run(*INSTALL, *tls, check=False), 3, words)
    assert sound.read(spec) == before

    sound.run(*use, "/etc/tls/ending.pem", "/etc/tls/ending.key")
    try:
        told = "the gateway's certificate ends in 6 days"
        looked = sound.run("llm-appliance", "status").stdout
        assert f"{told}: llm-appliance tls use CERTIFICATE KEY" in looked
        assert told in sound.run("llm-appliance", "doctor", check=False).stdout
        ask = "curl -sS --cacert /etc/tls/{}.ca https://localhost:8080/v1/models"
        assert '"smoke"' in sound.sh(ask.format("ending")).stdout
        # The day has come; the file that nginx reads is exchanged for an older one, since no clock can be moved here.
        sound.sh(f"cat /etc/tls/ended.pem /etc/tls/ended.key >{ETC}/tls/gateway.pem")
        sound.run("systemctl", "reload", "llm-appliance-gateway")
        sound.sh(
            f"for i in $(seq 50); do {ask.format('ended')} 2>&1 | grep 'has expired' && exit; sleep 0.1; done; exit 1"
        )
        assert '"smoke"' in sound.sh(f"{ask.format('ended')} --insecure").stdout
        looked = sound.run("llm-appliance", "status").stdout
        assert "the gateway's certificate ended on" in looked
        assert "changed=0" in sound.run(*INSTALL).stdout, "it is told of, and no hindrance"
    finally:
        sound.run(*INSTALL, "--tls", "off")
        sound.write(spec, before)


# ------------------------------------------------------------------------------------------------ what is asked

CHAT = {"model": "smoke", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
HOSTILE: dict[str, dict[str, object]] = {
    "n": {"n": 10**9}, "negative": {"max_tokens": -5}, "huge": {"max_tokens": 2**62}, "float": {"max_tokens": 1e300},
    "temperature": {"temperature": "NaN"}, "cold": {"temperature": -1e9}, "n_discard": {"n_discard": -1},
    "n_keep": {"n_keep": -(2**31)}, "logit_bias": {"logit_bias": {"999999999": 1e308, "-1": 5}},
    "stop": {"stop": ["x" * 9] * 100_000}, "top_k": {"top_k": -(2**31)}, "penalty": {"repeat_last_n": 2**31 - 1},
    "grammar": {"grammar": "root ::= root"}, "schema": {"response_format": {"type": "json_schema", "json_schema": 5}},
    "slot": {"id_slot": 10**6}, "samplers": {"samplers": ["x"] * 10_000}, "lora": {"lora": [{"id": 10**6, "scale": 1}]},
    "seed": {"seed": -(2**63)}, "probabilities": {"logprobs": True, "top_logprobs": 10**9}, "tools": {"tools": [{}] * 99},
    "no text": {"messages": [{"role": "user", "content": None}]}, "role": {"messages": [{"role": "x" * 9999}]},
    "template": {"messages": [{"role": "user", "content": "{{ ''.__class__ }}{% for x in range(10**9) %}{% endfor %}"}]},
}  # fmt: skip
IMAGES = ("file:///etc/passwd", "http://169.254.169.254/latest/", "http:\\\\127.0.0.1\\", "data:image/png;base64,AAAA")


def asked(server: Server, body: dict[str, object]) -> tuple[int, str]:
    """Ask for a chat; return status and answer."""
    server.write("/tmp/body.json", json.dumps(body))
    url = f"{BASE}/v1/chat/completions"
    done = server.run("curl", "-s", "-m", "60", "-w", "\n%{http_code}", url, "-d", "@/tmp/body.json", check=False)
    text, _, code = done.stdout.rpartition("\n")
    return int(code), text


def test_values_that_no_engine_expects_kill_none(sound: Server) -> None:
    before = pid(sound)
    for name, more in HOSTILE.items():
        code, text = asked(sound, {**CHAT, **more})
        print(f"{name}: {code} {text[:120]}")
        assert 200 <= code < 501, (name, code, text)
        assert json.loads(text), (name, text)
        assert pid(sound) == before, f"{name} killed the engine"
    answers(sound)


def test_an_engine_fetches_nothing_that_a_request_names(sound: Server) -> None:
    for url in IMAGES:
        image = {"type": "image_url", "image_url": {"url": url}}
        code, text = asked(sound, {**CHAT, "messages": [{"role": "user", "content": [image]}]})
        print(f"{url}: {code} {text[:200]}")
        assert 400 <= code <= 500, (url, code, text)
        assert "root:" not in text, url
    answers(sound)


def test_a_prompt_that_is_longer_than_the_context_is_refused_with_numbers(sound: Server) -> None:
    long = {**CHAT, "messages": [{"role": "user", "content": "word " * 20_000}]}
    code, text = asked(sound, long)
    print(text[:300])
    assert code == 400
    assert any(character.isdigit() for character in text)
    answers(sound)


# ------------------------------------------------------------------------------------------------ the command line


MEANINGLESS = (
    ("instal", 2, "install"),
    ("install --lisen 127.0.0.1:1", 2, "--listen"),
    ("install --listen", 2, "--listen"),
    ("add-model", 2, "Missing argument"),
    ("status --json --nonsense", 2, "--nonsense"),
    ("install --listen 127.0.0.1:70000", 3, "70000"),
    ("install --listen [fe80::1%eth0]:80", 3, "not an IP address"),
    ("add-model new /srv/second.gguf --context 10GBB", 2, "--context"),
    ("add-model new /srv/second.gguf --context 1.5", 2, "--context"),
    ("add-model new /srv/second.gguf --context 99999999999999999999999", 3, "context"),
    ("add-model new /srv/second.gguf --gpus 1", 4, "GPU"),
    ("add-model new /srv/second.gguf --env $'A=b\\nExecStart=/bin/x'", 3, "control character"),
    ("add-model new /srv/second.gguf --env '1;}%$=x'", 3, "1;}%$"),
    ("add-model '$(reboot)' /srv/second.gguf", 3, "cannot be a model's name"),
    ("add-model new $'/srv/x\\n.gguf'", 3, "control character"),
    ("add-model new /dev/zero", 5, "/dev/zero"),
    ("add-model new /proc/self/mem", 4, "/proc/self/mem"),
    ("logs nobody", 3, "no model is called"),
    ("rollback 99999999999999999999", 3, "no generation"),
    ("apply /dev/null", 3, "/dev/null"),
    ("keys add $'a\\nb'", 3, "a"),
)


def test_a_command_that_cannot_be_meant_is_told_and_changes_nothing(sound: Server) -> None:
    elsewhere = ("/usr", "/opt", "/root", "/var/cache")
    before = sound.files(elsewhere)
    for words, code, said in MEANINGLESS:
        done = sound.sh(f"llm-appliance {words} </dev/null", check=False)
        print(f"# llm-appliance {words}\n{done.stderr}")
        refused(done, code, said)
    nothing_more(before, sound.files(elsewhere), LOG)


def test_nobody_is_asked_where_nobody_can_answer(sound: Server) -> None:
    done = sound.sh("yes | timeout 30 llm-appliance uninstall --dry-run", check=False)
    assert done.code in (0, 141)
    done = sound.sh("timeout 30 llm-appliance add-model </dev/null", check=False)
    refused(done, 2)


# ------------------------------------------------------------------------------------------------ engines and gateway


def test_a_killed_gateway_is_back_at_once_and_its_workers_at_any_time(sound: Server) -> None:
    before = pid(sound)
    for whom in ("{0}", "$(cut -d ' ' -f 1 /proc/{0}/task/{0}/children)"):
        victim = whom.format(pid(sound, "gateway"))
        sound.sh(f"kill -KILL {victim}; until curl -fsS -o /dev/null {BASE}/v1/models; do sleep 0.1; done", timeout=30)
        answers(sound)
    assert pid(sound) == before, "the engine noticed nothing"


@pytest.mark.parametrize("harm", ["rm engine.sock", "chmod 000 .", "chown nobody: ."])
def test_a_socket_that_is_gone_or_out_of_reach_is_told_and_a_restart_mends_it(sound: Server, harm: str) -> None:
    sound.sh(f"cd /run/llm-appliance/smoke && {harm}")
    code, text = asked(sound, CHAT)
    try:
        assert code in (502, 503), text
        assert "smoke" in json.loads(text)["error"]["message"]
        assert sound.run("curl", "-fsS", f"{BASE}/v1/models").stdout
    finally:
        refused(sound.run("llm-appliance", "restart", "smoke", check=False), 0)
    answers(sound)


def test_a_hung_engine_is_told_and_a_restart_mends_it(sound: Server) -> None:
    sound.sh(f"kill -STOP {pid(sound)}")
    slow = sound.run("curl", "-s", "-m", "3", f"{BASE}/smoke/v1/completions", "-d", '{"prompt": "Hi"}', check=False)
    assert slow.code == 28, "whoever asked waits"
    assert sound.run("curl", "-fsS", "-m", "3", f"{BASE}/v1/models").stdout, "everybody else is answered"
    refused(sound.run("llm-appliance", "restart", "smoke", check=False), 0)
    answers(sound)


@SLOW
def test_weights_that_vanish_are_told_while_they_are_served_and_come_back_from_their_source(sound: Server) -> None:
    path = sound.sh(f"find {STATE}/store/models -name smoke.gguf").stdout.strip()
    sound.run("rm", path)
    with answering(sound):
        refused(sound.run("llm-appliance", "doctor", check=False), 4, "weights-gone", "smoke.gguf")
    refused(sound.run("llm-appliance", "restart", "smoke", check=False), 4, "hint:")
    sound.sh("until llm-appliance status | grep -qE 'smoke +failed'; do sleep 0.2; done", timeout=60)
    assert "failed to load model" in sound.run("llm-appliance", "logs", "smoke").stdout
    sound.run("rm", "-r", path.rpartition("/")[0])  # as the doctor says
    refused(sound.run(*INSTALL, check=False), 0, "smoke answers")


def test_weights_with_a_flipped_bit_are_found(sound: Server) -> None:
    flip = f"f=$(find {STATE}/store/models -name smoke.gguf) && cp $f /srv/whole && cp $f $f.new && mv $f.new $f && "
    sound.sh(flip + "printf X | dd of=$f bs=1 seek=2000000 conv=notrunc status=none")
    refused(sound.run("llm-appliance", "verify", "--weights", check=False), 5, "damaged: ", "smoke.gguf", "hint:")
    sound.sh(f"f=$(find {STATE}/store/models -name smoke.gguf) && cp /srv/whole $f.new && mv $f.new $f")
    refused(sound.run("llm-appliance", "verify", "--weights", check=False), 0, "weights: 3.0 MiB")


def test_a_way_back_whose_weights_are_gone_is_refused_by_name(sound: Server) -> None:
    sound.run(*ADD)
    sound.run(*REMOVE)
    home = sound.sh(f"find {STATE}/store/models -name second.gguf -printf %h").stdout
    sound.sh(f"mv {SECOND} /srv/hidden; mv {home} /srv/weights")
    with answering(sound):
        refused(sound.run("llm-appliance", "rollback", check=False), 5, SECOND, "hint:")
        assert not sound.exists(f"{ETC}/models.d/second.yaml")
    sound.sh(f"mv /srv/hidden {SECOND}; mv /srv/weights {home}")


# ------------------------------------------------------------------------------------------------ two replicas

# Asks from several threads until told to stop; each request on a connection of its own, the answer read to its end.
ASKERS = r"""
import json, os, threading, time, urllib.request
url, lost, asked = "http://127.0.0.1:8080/smoke/v1/completions", [], []
def ask():
    while not os.path.exists("/tmp/enough"):
        body = json.dumps({"prompt": "Hi", "max_tokens": 3}).encode()
        try:
            with urllib.request.urlopen(url, body, timeout=30) as answer:
                json.loads(answer.read())["choices"][0]
        except Exception as error:
            lost.append(f"{error!r} {getattr(error, 'read', bytes)()[:200]}")
        asked.append(1)
        time.sleep(0.02)
threads = [threading.Thread(target=ask) for _ in range(6)]
print("asking", flush=True)
for one in threads: one.start()
for one in threads: one.join()
print(json.dumps([len(asked), lost]))
"""


def test_with_a_second_replica_no_request_is_lost(sound: Server) -> None:
    """While one replica is killed, the gateway rereads itself, a model comes and goes, and one replica is restarted."""
    spec = f"{ETC}/models.d/smoke.yaml"
    before = sound.read(spec)
    sound.write(spec, before.replace("replicas: 1", "replicas: 2") + "retry: before_first_byte\n")
    sound.run(*INSTALL)
    sound.write("/root/askers.py", ASKERS)
    asker = sound.popen(PYTHON, "/root/askers.py")
    asker.wait_for("asking")
    try:
        for number in (1, 2):
            sound.run("systemctl", "kill", "--signal=KILL", f"llm-appliance-model@smoke_{number}")
            sound.sh("sleep 1; until llm-appliance status >/dev/null; do sleep 0.2; done", timeout=60)
            sound.run("llm-appliance", "verify")
            sound.sh("sleep 2")  # the gateway asks a replica that was away every second
        sound.run("systemctl", "reload", "llm-appliance-gateway")
        sound.run(*ADD)
        sound.run(*REMOVE)
        sound.run("systemctl", "restart", "llm-appliance-model@smoke_1")
    finally:
        sound.run("touch", "/tmp/enough")
    asker.wait(timeout=60)
    asked, lost = json.loads(asker.output.splitlines()[-1])
    told("requests", len(lost), asked)
    assert lost == []
    assert asked > 100
    sound.run("rm", "/tmp/enough")
    sound.write(spec, before)


# ------------------------------------------------------------------------------------------------ rough


@SLOW
def test_an_engine_that_takes_too_much_memory_is_ended_alone_and_status_says_so(sound: Server) -> None:
    drop_in = f"{UNITS}/llm-appliance-model@smoke.service.d"
    sound.write(f"{drop_in}/memory.conf", "[Service]\nMemoryMax=12M\n")
    sound.sh("systemctl daemon-reload; systemctl restart --no-block llm-appliance-model@smoke")
    sound.sh("until llm-appliance status | grep -qE 'smoke +failed'; do sleep 0.1; done", timeout=60)
    asked_for = sound.run("curl", "-s", f"{BASE}/smoke/v1/completions", "-d", '{"prompt": "Hi"}').stdout
    assert json.loads(asked_for)["error"]["message"], "the gateway is there and says so"
    sound.sh(f"rm -r {drop_in}; systemctl daemon-reload")
    refused(sound.run("llm-appliance", "restart", check=False), 0)
    answers(sound)


@SLOW
def test_without_python_what_runs_goes_on(sound: Server) -> None:
    interpreter = sound.run("readlink", "-f", PYTHON).stdout.strip()
    sound.run("mv", interpreter, f"{interpreter}.gone")
    try:
        with answering(sound):
            assert sound.sh("llm-appliance status", check=False).code in (126, 127), "by a shell, as people type it"
    finally:
        sound.run("mv", f"{interpreter}.gone", interpreter)


@SLOW
def test_a_state_that_moved_to_another_disk_behind_a_link(sound: Server) -> None:
    """The operator moves it by hand, and leaves a link where it was; uninstalling takes what is ours and not the disk."""
    sound.sh(
        f"llm-appliance stop && mkdir /srv/disk && mount -t tmpfs -o size=900m,mode=755 tmpfs /srv/disk && "
        f"mv {STATE} /srv/disk/state && ln -s /srv/disk/state {STATE} && llm-appliance start",
        timeout=120,
    )
    answers(sound)
    converges(sound, ADD, "second", "smoke")
    sound.run(*REMOVE)
    assert sound.run("readlink", STATE).stdout.strip() == "/srv/disk/state"
    sound.sh(f"llm-appliance stop && rm {STATE} && mv /srv/disk/state {STATE} && umount --lazy /srv/disk", timeout=120)
    sound.sh("rmdir /srv/disk; llm-appliance start", timeout=120)
