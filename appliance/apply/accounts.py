"""The users and the group that engines and gateway run as, and the directories that they may write."""

import shutil
from pathlib import Path

from appliance.domain.changes import Command
from appliance.domain.deployment import Deployment
from appliance.errors import CommandError
from appliance.system.machine import Machine, group_exists, user_comment, user_exists

COMMENT = "LLM appliance"
"""In the account's comment field: how we know our own again, also after a run that was killed."""


def create(deployment: Deployment, machine: Machine) -> None:
    """Create the accounts that are missing. Raises CommandError."""
    if not deployment.user or deployment.user.isdigit():
        return
    if not group_exists(deployment.group):
        _must(machine, "groupadd", "--system", deployment.group)
    for user in (deployment.user, deployment.gateway_user):
        if not user_exists(user):
            _must(
                machine, "useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent",
                "--shell", "/usr/sbin/nologin", "--comment", COMMENT, "--gid", deployment.group, user,
            )  # fmt: skip


def ours(deployment: Deployment) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the (users, groups) that we made; an account of the same name that was there before is not ours."""
    names = (deployment.user, deployment.gateway_user)
    users = tuple(name for name in names if name and user_comment(name) == COMMENT)
    return users, (deployment.group,) if users else ()


def delete(users: tuple[str, ...], groups: tuple[str, ...], machine: Machine) -> tuple[str, ...]:
    """Remove accounts; return those that could not be."""
    left = [user for user in users if machine.run(Command(argv=("userdel", user), ok_codes=(0, 6))).code not in (0, 6)]
    left += [group for group in groups if group_exists(group) and machine.run(Command(argv=("groupdel", group))).code]
    return tuple(left)


def directories(deployment: Deployment) -> None:
    """Make the directories of sockets, caches and logs that systemd does not make, each owned by who writes there.

    The gateway's are made under systemd too: its configuration is checked before its unit has ever run.
    """
    layout, owner = deployment.layout, deployment.gateway_user
    run = layout.sockets if deployment.gateway.image else layout.run
    Path(run).mkdir(mode=0o755, parents=True, exist_ok=True)
    Path(layout.log).mkdir(mode=0o755, parents=True, exist_ok=True)
    if deployment.gateway.image:
        # Its container sees it: where it is missing Docker would make it, and Podman would not.
        Path(layout.etc).mkdir(mode=0o755, parents=True, exist_ok=True)
    _own(f"{run}/gateway", 0o700, owner, deployment.group)
    if not deployment.gateway.image:
        _own(f"{layout.log}/gateway", 0o750, owner, deployment.group)
    _own_secrets(deployment)
    if deployment.runtime == "systemd":
        return
    for service in deployment.started:
        _own(f"{run}/{service.name}", 0o750, deployment.user, deployment.group)
        _own(f"{layout.cache}/{service.name}", 0o700, deployment.user, deployment.group)


def _own_secrets(deployment: Deployment) -> None:
    """Give the keys of providers, and the digests of clients', to the gateway alone: those files that we keep."""
    home = f"{deployment.layout.etc}/secrets"
    digests = Path(deployment.layout.keys)
    if digests.is_file() and deployment.gateway_user:
        shutil.chown(digests, _account(deployment.gateway_user), _account(deployment.group))
    tls = deployment.gateway.tls
    if tls and tls.key.startswith(f"{deployment.layout.etc}/tls/") and Path(tls.key).is_file():
        _give(tls.key, deployment)
    keys = {route.remote.key_file for route in deployment.gateway.routes if route.remote}
    for path in keys:
        if path.startswith(f"{home}/") and Path(path).is_file():
            _own(home, 0o700, deployment.gateway_user, deployment.group)
            _give(path, deployment)


def _give(path: str, deployment: Deployment) -> None:
    """Let the gateway alone read a file."""
    Path(path).chmod(0o600)
    if deployment.gateway_user:
        shutil.chown(path, _account(deployment.gateway_user), _account(deployment.group))


def _own(path: str, mode: int, user: str, group: str) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)
    if user:
        shutil.chown(path, _account(user), _account(group))
    Path(path).chmod(mode)


def _account(name: str) -> str | int:
    """Return a name, or the number that stands for an account inside of containers only."""
    return int(name) if name.isdigit() else name


def _must(machine: Machine, *argv: str) -> None:
    done = machine.run(Command(argv=argv))
    if done.code:
        raise CommandError(f"{argv[0]} {argv[-1]} ends with {done.code}: {done.stderr.strip()}")
