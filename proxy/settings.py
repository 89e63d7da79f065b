"""What the configuration says once it has been checked: plain values, as the rest of Lockgate reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.secrets import Secret

#: How long keys go on being valid while the database cannot be read, where the file does not say.
STALE_HOURS = 24.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds: to connect, to the first byte, between bytes, altogether."""

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a target is left alone: after `failures` in a row (0: never), for `open` seconds."""

    failures: int = 5
    open: float = 10.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a model's targets are tried in one exchange; waits are in seconds.

    The wait before a target is tried again is drawn from 0 to `backoff`, doubled with each; an upstream that asks for
    more than `longest_wait` is not tried again.
    """

    attempts: int = 3
    backoff: float = 0.25
    longest_wait: float = 2.0


@dataclass(frozen=True, slots=True)
class Connection:
    """How one provider's upstream is reached; what `[providers.NAME]` leaves out comes from `[egress]`.

    `proxy` is a URL and may hold a password, so it is not shown.
    """

    proxy: str | None = field(default=None, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    timeouts: Timeouts = Timeouts()
    breaker: BreakerSettings = BreakerSettings()
    pool_size: int = 100
    max_answer_bytes: int = 32 << 20
    replay_stale: bool = False


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """`[plugins.NAME]`: `use` names the class, `options` is what its `Config` made of the rest (`None` without one)."""

    name: str
    use: str
    options: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """`[providers.NAME]`, as for a plugin, and how its upstream is reached."""

    name: str
    use: str
    options: dict[str, Any] | None = None
    connection: Connection = Connection()


@dataclass(frozen=True, slots=True)
class Target:
    """`"openai"` or `"openai/gpt-5.2"`; without a model the upstream is asked for the one that the client named.

    With a `weight` it takes part in the draw of the target that is tried first.
    """

    provider: str
    model: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """`[models.PATTERN]`: where exchanges for the model go, and through which chain (`None`: the top-level one).

    Only `*` is special in `pattern`. `parameters` may be set by callers beyond OpenAI's own, `"*"` allows all.
    `timeouts` overrides the provider's by name, in seconds.
    """

    pattern: str
    targets: tuple[Target, ...]
    chain: tuple[str, ...] | None = None
    public: bool = False
    web_search: bool = False
    strict: bool = False
    parameters: tuple[str, ...] = ()
    timeouts: dict[str, float] = field(default_factory=dict)
    retry: Retry = Retry()


@dataclass(frozen=True, slots=True)
class TeamSettings:
    """`[teams.NAME]`: what its keys may use, and how much, as `GrantsSchema` and `LimitsSchema` load it."""

    name: str
    grants: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`[server]`. `bind` is `HOST:PORT` or `unix:/PATH`; `state` is absolute; sizes are in bytes, `heartbeat` in s."""

    bind: str
    state: Path
    insecure: bool = False
    worker: str = "threads"
    workers: int = 2
    threads: int = 100
    plugins_dir: Path | None = None
    max_body_bytes: int = 32 << 20
    max_bodies_bytes: int = 256 << 20
    heartbeat: float = 15.0
    proxied: bool = False
    target_headers: bool = True
    docs: bool = True


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """`[database]`. `url` names a PostgreSQL database; without it there is SQLite in the state directory."""

    url: Secret | None = None


@dataclass(frozen=True, slots=True)
class CountersSettings:
    """`[counters]`: where is counted. `url`, a Redis', and `sentinel_password` are secrets; `hosts` share the Redis."""

    store: str = "lmdb"
    size_mib: int = 64
    url: Secret | None = None
    ca_file: Path | None = None
    cluster: bool = False
    sentinels: tuple[str, ...] = ()
    master: str = "mymaster"
    sentinel_password: Secret | None = None
    hosts: int = 1
    wait_ms: int = 50


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """`[journal]`. `fsync` is `"never"`, `"each"` or milliseconds; files are at most about `max_file_bytes` long."""

    key: Secret | None = None
    fsync: str | int = 1000
    max_file_bytes: int = 128 << 20
    when_full: str = "refuse"


@dataclass(frozen=True, slots=True)
class EstimatesSettings:
    """`[estimates]`: whether prompts are counted by tiktoken, and what an answer may have where nobody says."""

    exact: bool = False
    completion_tokens: int = 4096


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """`[ledger]`: who moves the journal there, and for how many days records, daily sums and shipped files are kept."""

    ship: bool = True
    keep_days: int = 90
    keep_usage_days: int = 1100
    journal_days: int = 7


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """`[admin]`. `bind` as in `ServerSettings`; `metrics` is `"local"`, `"key"` or `"open"`."""

    bind: str = "127.0.0.1:8081"
    metrics: str = "local"


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. `path` is the file that it was read from, `None` where there is none."""

    path: Path | None
    chain: tuple[str, ...]
    server: ServerSettings
    plugins: dict[str, PluginSettings]
    providers: dict[str, ProviderSettings]
    models: dict[str, ModelSettings]
    egress: Connection = Connection()
    pepper: Secret | None = None
    #: How long keys go on being valid while the database cannot be read, in hours.
    stale_hours: float = STALE_HOURS
    teams: dict[str, TeamSettings] = field(default_factory=dict)
    database: DatabaseSettings = DatabaseSettings()
    counters: CountersSettings = CountersSettings()
    admin: AdminSettings = AdminSettings()
    #: By `PROVIDER/MODEL`, where `*` stands for anything; each as `PriceSchema` loads it, in dollars.
    prices: dict[str, dict[str, Any]] = field(default_factory=dict)
    estimates: EstimatesSettings = EstimatesSettings()
    journal: JournalSettings = JournalSettings()
    ledger: LedgerSettings = LedgerSettings()
