"""The appliance in containers, on a booted server with a Docker of its own: moved there, operated, taken away."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Process, Server, address, docker_into, serving
from tests.integration.load import lose_nothing
from tests.integration.product import BASE, SMOKE
from tests.integration.typed import command, until

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
WEIGHTS = product.ROOT / "appliance/smoke/smoke.gguf"
GOLDEN = product.ROOT / "tests/golden/compose"
SECOND = "/srv/models/second.gguf"
ETC, STATE = "/etc/llm-appliance", "/var/lib/llm-appliance"
COMPOSE = ("docker", "compose", "--ansi=never", "--project-name=llm-appliance", f"--file={STATE}/current/compose.yaml")
GATEWAY, MODEL = "llm-appliance-gateway-1", "llm-appliance-smoke-1"
LOCAL = "lab-base:1"
"""The base that images are built on here, where no registry can be reached."""
TCP = """FROM {base}
RUN apt-get -q update && apt-get -q install -y --no-install-recommends python3 curl && rm -rf /var/lib/apt/lists/*
COPY transformers /usr/local/bin/transformers
"""
STAND_IN = '''#!/usr/bin/python3
"""Stands in for an engine that knows ports only: says hello to everything, and what it can reach."""
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.say({"status": "ok"})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        devices = [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:]
        message = {"role": "assistant", "content": "on " + " ".join(devices)}
        self.say({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    def say(self, data):
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
address = (sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
'''


def containers(server: Server) -> dict[str, dict[str, Any]]:
    """Every container that is there, by name, as Docker describes it."""
    names = server.run("docker", "ps", "--all", "--quiet", "--no-trunc").stdout.split()
    rows = json.loads(server.run("docker", "inspect", *names).stdout) if names else []
    return {row["Name"].removeprefix("/"): row for row in rows}


def running(server: Server) -> dict[str, str]:
    return {name: row["Id"] for name, row in containers(server).items() if row["State"]["Running"]}


@pytest.fixture(scope="module")
def boxed(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """A server whose appliance was moved from systemd into containers, with images built from images/ on the lab's base."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "compose") as server:
        began = time.monotonic()
        docker_into(server, LOCAL)
        print(f"\nDocker and Compose in the server: {time.monotonic() - began:.0f} s")
        server.put(WEIGHTS, SECOND, mode="0644")
        command(server, "config", "set", "images.base", LOCAL)
        command(server, "install")  # what was set is in force: it counts as no edit beside the next change
        done = command(server, "install", "--runtime", "compose", timeout=900)
        assert ANSWER in done.stdout
        yield server


def test_what_ran_under_systemd_is_gone_and_one_unit_starts_the_containers(boxed: Server) -> None:
    assert not boxed.exists("/etc/systemd/system/llm-appliance-gateway.service")
    assert boxed.run("systemctl", "is-enabled", "llm-appliance").stdout.strip() == "enabled"
    assert set(running(boxed)) == {GATEWAY, MODEL}
    assert "models.d/smoke.yaml" in boxed.run("find", ETC).stdout
    assert product.chat(boxed, PROMPT, path="/smoke/v1") == ANSWER
    images = command(boxed, "image", "list").stdout
    assert "built from images/gateway" in images and "built from images/llama-cpp" in images


def test_what_docker_says_of_every_container(boxed: Server) -> None:
    for name, row in containers(boxed).items():
        config, host = row["Config"], row["HostConfig"]
        print(
            f"\n{name}: user {config['User']}, networks {[*row['NetworkSettings']['Networks']]}, ports {host['PortBindings']}"
        )
        assert not host["Privileged"] and host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert config["User"] in ("60700:60700", "60701:60700"), name
        assert host["PidsLimit"] > 0 and host["Memory"] > 0, name
        assert (host["IpcMode"], host["PidMode"], host["UTSMode"]) == ("private", "", ""), name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        assert host["LogConfig"]["Config"]["max-size"] == "20m", name
        for mount in row["Mounts"]:
            assert "docker.sock" not in mount["Source"], name
            ours = (f"{STATE}/sockets/{name.split('-')[2]}", f"/var/cache/llm-appliance/{name.split('-')[2]}")
            assert not mount["RW"] or mount["Source"] in ours, f"{name}: {mount}"
        bound = host["PortBindings"] or {}
        assert bound == ({"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]} if name == GATEWAY else {})
        assert host["NetworkMode"] == ("llm-appliance_outside" if name == GATEWAY else "none"), name
        effective = boxed.run("docker", "exec", name, "grep", "-E", "CapEff|NoNewPrivs|Uid", "/proc/1/status").stdout
        assert re.search(r"CapEff:\t0+\n", effective) and re.search(r"NoNewPrivs:\t1\n", effective), effective
    listening = [line.split()[3] for line in boxed.run("ss", "-ltnH").stdout.splitlines()]
    assert [one for one in listening if one.endswith(":8080")] == ["127.0.0.1:8080"]


def test_only_root_reads_what_holds_the_environment_of_engines(boxed: Server) -> None:
    command(boxed, "config", "set", "env.LLAMA_LOG_PREFIX", "1")
    command(boxed, "install")
    assert "LLAMA_LOG_PREFIX=1" in containers(boxed)[MODEL]["Config"]["Env"]
    files = boxed.run("find", f"{STATE}/generations", "-name", "compose.yaml", "-printf", "%m %u\n").stdout
    assert {*files.split("\n")[:-1]} == {"600 root"}
    done = command(boxed, "config", "set", "env.HF_TOKEN", "hf_x", code=None)
    assert done.code == 3 and "hub.token-file" in done.stderr
    command(boxed, "config", "unset", "env.LLAMA_LOG_PREFIX")
    command(boxed, "install")


def test_compose_reads_every_file_of_the_plan_table_and_the_one_in_force(boxed: Server) -> None:
    assert boxed.run(*COMPOSE, "config", "--quiet").stderr == ""
    boxed.put(GOLDEN, "/root/golden")
    script = (
        "cd /root/golden; for file in *.yaml; do docker compose --file $file config --quiet 2>&1 || echo failed $file; "
        "done; ls | wc -l"
    )
    *said, count = boxed.sh(script, timeout=300).stdout.split("\n")[:-1]
    print(f"\n{count} files")
    assert said == [] and int(count) == len(list(GOLDEN.iterdir())) >= 40


def test_a_second_install_changes_nothing(boxed: Server) -> None:
    before = running(boxed)
    assert "changed=0" in command(boxed, "install").stdout
    assert running(boxed) == before
    assert "nothing would change" in command(boxed, "plan").stdout


def test_a_certificate_is_renewed_under_a_container_and_docker_can_tell_no_secret(boxed: Server) -> None:
    key = json.loads(boxed.run("llm-appliance", "keys", "add", "ann", "--json").stdout)["data"]["key"]
    command(boxed, "install", "--tls", "own")
    gateway = running(boxed)[GATEWAY]
    command(boxed, "tls", "renew")
    pem = boxed.read(f"{ETC}/tls/gateway.pem")
    body = pem.partition("-----END CERTIFICATE-----")[0].split()[-1]
    ask = f"curl -s --cacert {ETC}/tls/authority.crt -w '%{{certs}}' https://localhost:8080/v1/models -H @-"

    def renewed() -> bool:
        return body in boxed.run("sh", "-c", ask, input=f"Authorization: Bearer {key}\n", check=False).stdout

    until("the new certificate", renewed)
    assert running(boxed)[GATEWAY] == gateway, "nothing was restarted"
    secrets = (key, pem.partition("PRIVATE KEY-----")[2].split()[1])
    told = boxed.sh(
        "docker inspect $(docker ps -aq) $(docker images -q); for one in $(docker ps -aq); do docker logs $one; "
        f"docker top $one; done; docker network inspect $(docker network ls -q); {' '.join(COMPOSE)} config"
    )
    assert not [one for one in secrets if one in told.stdout + told.stderr]
    command(boxed, "install", "--tls", "off")
    command(boxed, "keys", "revoke", "ann")
    until("everybody may come in again", lambda: product.answers(boxed))


def test_systemd_and_compose_tell_the_same(boxed: Server) -> None:
    boxed.run("systemctl", "stop", "llm-appliance")
    assert running(boxed) == {}
    assert boxed.run(*COMPOSE, "ps", "--quiet").stdout == ""
    assert boxed.run("systemctl", "status", "llm-appliance", check=False).code == 3
    assert command(boxed, "status", code=None).code == 7
    assert ":8080" not in boxed.run("ss", "-ltnH").stdout
    boxed.run("systemctl", "start", "llm-appliance")
    assert set(running(boxed)) == {GATEWAY, MODEL}
    healthy = boxed.run(*COMPOSE, "ps", "--format", "{{.Service}} {{.Health}}").stdout.split("\n")
    assert sorted(filter(None, healthy)) == ["gateway healthy", "smoke healthy"]
    assert product.chat(boxed, PROMPT) == ANSWER


def test_one_model_is_stopped_started_and_restarted_by_itself(boxed: Server) -> None:
    gateway = running(boxed)[GATEWAY]
    command(boxed, "stop", "smoke")
    assert running(boxed) == {GATEWAY: gateway}
    command(boxed, "start", "smoke")
    assert product.chat(boxed, PROMPT) == ANSWER
    command(boxed, "restart", "smoke")
    assert product.chat(boxed, PROMPT) == ANSWER
    assert running(boxed)[GATEWAY] == gateway
    assert "model loaded" in command(boxed, "logs", "smoke", "--lines", "200").stdout


def test_a_log_that_is_followed_goes_on_over_a_restart(boxed: Server) -> None:
    following: Process = boxed.popen("llm-appliance", "logs", "smoke", "-f", "--lines", "1")
    command(boxed, "restart", "smoke")
    until("it has told of one start", lambda: following.output.count("model loaded") >= 1)
    command(boxed, "restart", "smoke")
    until("it has told of another", lambda: following.output.count("model loaded") >= 2)
    following.signal("INT")
    assert "\x1b" not in command(boxed, "logs").stdout


def test_a_killed_engine_comes_back(boxed: Server) -> None:
    pid = containers(boxed)[MODEL]["State"]["Pid"]
    boxed.sh(f"kill -KILL {pid}")
    until("it answers again", lambda: product.answers(boxed))
    assert containers(boxed)[MODEL]["State"]["Pid"] != pid


def test_a_model_is_added_and_removed_beside_a_running_stream(boxed: Server) -> None:
    body = {
        "model": "smoke", "messages": [{"role": "user", "content": SMOKE["endless"]["prompt"]}],
        "temperature": 0, "max_tokens": 400, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    before = running(boxed)
    stream: Process = boxed.popen("curl", "-sSN", f"{BASE}/v1/chat/completions", "-d", json.dumps(body))
    until("the stream has begun", lambda: "data:" in stream.output)
    command(boxed, "add-model", "second", SECOND)
    after = running(boxed)
    assert set(after) - set(before) == {"llm-appliance-second-1"}
    assert {name: after[name] for name in before} == before
    assert product.chat(boxed, PROMPT, model="second") == ANSWER
    assert stream.wait(timeout=600) == 0
    assert "[DONE]" in stream.output and '"completion_tokens":400' in stream.output
    command(boxed, "remove-model", "second")
    assert running(boxed) == before


def test_replicas_change_one_after_the_other_and_lose_no_request(boxed: Server) -> None:
    command(boxed, "add-model", "pair", SECOND, "--replicas", "2")
    before = running(boxed)

    def change() -> None:
        boxed.sh("echo 'context: 512' >>/etc/llm-appliance/models.d/pair.yaml")
        assert "another replica answers meanwhile" in command(boxed, "install").stderr
        command(boxed, "rollback")

    lose_nothing(boxed, "pair", change)
    after = running(boxed)
    assert {name for name in before if before[name] != after[name]} == {f"llm-appliance-pair_{n}-1" for n in (1, 2)}
    command(boxed, "remove-model", "pair")


def test_a_model_with_one_replica_loses_none_either_while_a_second_one_stands_in(boxed: Server) -> None:
    command(boxed, "add-model", "solo", SECOND)
    before = running(boxed)

    def change() -> None:
        boxed.sh("echo 'context: 512' >>/etc/llm-appliance/models.d/solo.yaml")
        assert "solo: a second one stands in while it is replaced" in command(boxed, "install").stderr

    lose_nothing(boxed, "solo", change)
    after = running(boxed)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == {"llm-appliance-solo-1"}
    command(boxed, "remove-model", "solo")


def test_what_does_not_start_is_taken_back_with_its_own_words(boxed: Server) -> None:
    before = running(boxed)
    done = command(boxed, "add-model", "bad", SECOND, "--set", "override-kv=nonsense", code=None)
    assert done.code == 7
    assert "override-kv" in done.stderr and re.search(r"generation \d+ is back", done.stderr)
    done = command(boxed, "add-model", "bad", SECOND, "--image", LOCAL, code=None)
    assert done.code == 7 and "/app/llama-server: not found" in done.stderr
    done = command(boxed, "add-model", "bad", SECOND, "--image", "registry.invalid/no:1", code=None)
    assert done.code == 5 and "registry.invalid/no:1 cannot be pulled" in done.stderr and "hint:" in done.stderr
    assert running(boxed) == before
    assert "nothing would change" in command(boxed, "plan").stdout


def test_an_engine_that_knows_ports_only_has_no_network_but_its_own(boxed: Server) -> None:
    """The engine is a stand-in, for those with ports need a GPU or a torch of some GB."""
    boxed.write("/root/tcp/Dockerfile", TCP.format(base=LOCAL))
    boxed.write("/root/tcp/transformers", STAND_IN, mode="0755")
    boxed.run("docker", "build", "--quiet", "--tag", "stand-in:1", "/root/tcp", timeout=300)
    boxed.put(product.ROOT / "appliance/smoke/safetensors", "/srv/models/safetensors")
    boxed.run("chmod", "-R", "a+rX", "/srv/models")
    words = ("--engine", "transformers", "--image", "stand-in:1", "--gpus", "0")
    command(boxed, "add-model", "tcp", "/srv/models/safetensors", *words)
    assert product.chat(boxed, PROMPT, model="tcp") == "on lo"
    pid = containers(boxed)["llm-appliance-tcp-1"]["State"]["Pid"]
    boxed.sh(f"kill -KILL {pid}")
    until("it answers again", lambda: _says(boxed, "tcp") == "on lo")
    command(boxed, "remove-model", "tcp")
    assert set(running(boxed)) == {GATEWAY, MODEL}
    assert boxed.run("docker", "ps", "--all", "--quiet").stdout.count("\n") == 2


def _says(server: Server, model: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}]})
    done = server.run("curl", "-s", f"{BASE}/v1/chat/completions", "-d", body, check=False)
    try:
        return str(json.loads(done.stdout)["choices"][0]["message"]["content"])
    except (ValueError, KeyError):
        return ""


def test_images_go_into_a_file_and_come_back(boxed: Server) -> None:
    images = [
        row["ref"] for row in json.loads(boxed.run("llm-appliance", "image", "list", "--json").stdout)["data"]["images"]
    ]
    assert len(images) == 2
    command(boxed, "image", "save", "/root/images.tar")
    boxed.run("systemctl", "stop", "llm-appliance")
    boxed.run(*COMPOSE, "rm", "--force")
    boxed.run("docker", "rmi", *images)
    done = boxed.run("llm-appliance", "image", "save", "/root/again.tar", check=False)
    assert done.code == 5 and images[0] in done.stderr and not boxed.exists("/root/again.tar")
    command(boxed, "image", "load", "/root/images.tar")
    boxed.run("systemctl", "start", "llm-appliance")
    assert product.chat(boxed, PROMPT) == ANSWER
    assert command(boxed, "image", "build").stdout.strip() == "nothing to build: all are here"
    assert command(boxed, "image", "prune").stdout.strip() == "nothing to remove"
    boxed.run("rm", "/root/images.tar")


def test_after_a_reboot_and_after_a_power_cut_it_answers(boxed: Server) -> None:
    for again in (boxed.reboot, boxed.kill_power):
        again()
        until(f"it answers after {again.__name__}", lambda: product.answers(boxed), 120)
        assert "smoke              running" in command(boxed, "status").stdout


def test_back_to_systemd_and_a_move_that_fails(boxed: Server) -> None:
    done = command(boxed, "install", "--runtime", "systemd", timeout=600)
    assert ANSWER in done.stdout
    assert containers(boxed) == {}
    assert boxed.run("docker", "network", "ls", "--filter", "name=llm-appliance", "--quiet").stdout == ""
    assert boxed.run("systemctl", "is-active", "llm-appliance-gateway").stdout.strip() == "active"

    settings = f"{ETC}/models.d/smoke.yaml"
    ours = boxed.read(settings)
    boxed.write(settings, ours + f"image: {LOCAL}\n")
    done = command(boxed, "install", "--runtime", "compose", code=None)
    assert done.code == 7 and re.search(r"generation \d+ is back", done.stderr)
    until("what was before answers again", lambda: product.answers(boxed))
    assert containers(boxed) == {}
    assert boxed.run("systemctl", "is-active", "llm-appliance-gateway").stdout.strip() == "active"
    assert boxed.read(settings) == ours
    kept = boxed.run("sh", "-c", f"ls {settings}.edited-*").stdout.strip()
    assert boxed.read(kept) == ours + f"image: {LOCAL}\n", "the edit that did not work is not lost"
    boxed.run("rm", kept)
    command(boxed, "install", "--runtime", "compose")
    assert set(running(boxed)) == {GATEWAY, MODEL}


def test_uninstall_leaves_no_container_network_volume_or_image_of_ours(boxed: Server) -> None:
    boxed.run("docker", "rmi", "stand-in:1", check=False)
    command(boxed, "uninstall", "--purge-models", "--purge-keys")
    assert containers(boxed) == {}
    networks = boxed.run("docker", "network", "ls", "--format", "{{.Name}}").stdout.split()
    assert sorted(networks) == ["bridge", "host", "none"]
    assert boxed.run("docker", "volume", "ls", "--quiet").stdout == ""
    images = boxed.run("docker", "images", "--all", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert images == [LOCAL]
    ours = (ETC, STATE, "/var/cache/llm-appliance", "/run/llm-appliance", "/etc/systemd/system/llm-appliance.service")
    assert boxed.run("find", *ours, check=False).stdout == ""


# Dockerfile.cuda


@pytest.fixture(scope="module")
def whole(quickstart: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of Dockerfile.cuda on the lab's base, with the engine that the quick start has built."""
    began = time.monotonic()
    with product.whole_image(tmp_path_factory.mktemp("context")) as image:
        print(f"\nDockerfile.cuda: built in {time.monotonic() - began:.0f} s")
        yield str(image)


def test_the_whole_appliance_in_one_container_without_a_word_without_root_and_read_only(whole: str) -> None:
    def says_it() -> bool:
        return product.ask(address(box, 8080), PROMPT) == str(ANSWER)

    def typed(*words: str) -> str:
        return str(box.exec([*words]).output.decode().strip())

    with serving(whole, 8080, read_only=True) as box:
        try:
            until("it answers", says_it)
            assert typed("id", "-u") == "60700"
            assert typed("touch", "/x").endswith("Read-only file system")
            # It answers sooner than supervisord, after a second, calls it running.
            until("both run", lambda: typed("llm-appliance", "status").count("running") == 2)
            print("\n" + typed("llm-appliance", "status"))
            assert typed("sh", "-c", "pkill -KILL llama-server 2>/dev/null || kill -KILL $(pidof llama-server)") == ""
            until("it answers again", says_it)
            wrapped = box.get_wrapped_container()
            wrapped.stop(timeout=30)
            assert wrapped.wait()["StatusCode"] == 0
            wrapped.start()
            until("it answers after a restart", says_it)
        except BaseException:
            print(*box.get_logs())
            raise
