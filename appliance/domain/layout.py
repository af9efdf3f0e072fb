"""Where an appliance's files live."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things live; all absolute. `prefix` is "/" for a system-wide appliance."""

    prefix: str
    etc: str
    """The operator's files: appliance.yaml, models.d/."""
    state: str
    """Generations, record, store of weights, engine and gateway environments."""
    cache: str
    """Can be deleted at any time: downloads, build trees."""
    run: str
    """Sockets and pid files; gone after a reboot."""
    log: str

    @property
    def current(self) -> str:
        """The link to the generation in force."""
        return f"{self.state}/current"

    @property
    def sockets(self) -> str:
        """What containers see as `run`: there after a reboot too, before anybody could make it."""
        return f"{self.state}/sockets"

    @property
    def keys(self) -> str:
        """The digests of the clients' keys."""
        return f"{self.etc}/keys.json"

    @property
    def inside(self) -> str:
        """The gateway's socket where no key is asked for: only root and its own user come into that directory."""
        return f"{self.run}/gateway/inside.sock"
