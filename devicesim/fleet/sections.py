"""The sections of a fleet file, as pydantic models: together they are its published JSON Schema."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from devicesim.fleet.arrival import Arrival
from devicesim.fleet.fields import MAX_DEVICES, Deadline, Model, Name, Period, Sample, Seconds, SecondsRange, Template
from devicesim.fleet.thresholds import Thresholds
from devicesim.net.tls import TLSContext, TLSSettings
from devicesim.pki.profile import KeyType

SUBJECT_CLIENT_ID = "{common_name}"
TOPIC_CLIENT_ID = "{client_id}"
MAX_PAYLOAD = 128 * 1024
"""Bytes (aws-iot-behaviour.md §5)."""


def _ciphers(text: str) -> str:
    TLSContext(TLSSettings(roots=(), ciphers=text))  # OpenSSL alone knows which names it knows
    return text


class CA(Model):
    """The shared CA. Without ``certificate`` one is made for the run and kept in memory only."""

    certificate: str | None = None
    """PEM file of the CA that signs the devices directly (then its own issuers, if it is an intermediate)."""
    key: str | None = None
    """PEM file of its private key; not needed when every device is imported and no account is DEFAULT."""
    secret: str | None = None
    """File with the fleet secret (`devicesim ca create` makes one), from which device keys are derived."""
    key_type: KeyType = KeyType.EC_P256
    """Of a CA that is made for the run."""
    common_name: str = Field(default="devicesim shared CA", min_length=1, max_length=64)
    """Of a CA that is made for the run."""


class Account(Model):
    """One AWS account in one Region."""

    id: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    """The 12-digit account id."""
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")] = "us-east-1"
    ca_mode: Literal["DEFAULT", "SNI_ONLY", "none"]
    """How the shared CA is registered here; `none` does not register it."""
    provisioning: Literal["JITP", "JITR", "none"] = "none"
    """JITP (a template provisions), JITR (an activator does), or `none`: automatic registration disabled."""
    activator: Literal["devicesim", "external", "none"] | None = None
    """Who activates under JITR: `devicesim` (the default), `external` (a Lambda or service of your own) or `none`."""
    template: str | None = None
    """JITP template: a JSON file, or the JSON itself. Left out: thing named after the CN, `policy_name`, ACTIVE."""
    policy: str | None = None
    """The devices' IoT policy: a JSON file, or the JSON itself. Left out: connect with a client id equal to the CN."""
    # the length apart: as a regular expression \w{1,128} takes 11 MB
    policy_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=,.@-]+$", max_length=128)] | None = None
    """Left out: `devicesim-<fleet name>`."""
    role_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$")] | None = None
    """The role that JITP assumes. On AWS it is needed; the emulator does not check roles."""
    profile: str | None = None
    """The AWS profile with credentials for this account (`--target aws`)."""


class SubjectFields(Model):
    """Templates of the certificate's subject; `{index}`, `{fleet}` and `{group}` are filled in."""

    common_name: Template | None = None
    serial_number: Template | None = None
    organization: Template | None = None
    organizational_unit: Template | None = None
    country: Template | None = None
    state: Template | None = None
    dn_qualifier: Template | None = None


class Expect(Model):
    """What the user says should happen, in place of what the oracle says."""

    outcome: Literal["provisioned", "pending", "refused", "unreachable", "failed"]
    account: str | None = None
    """Where; needed with `provisioned` and `pending`."""


class GroupTelemetry(Model):
    """What each device of a group publishes while it is connected; `session.hold` says for how long."""

    every: Period = 10.0
    """Seconds from one message to the next; a device's first comes at a random moment within them."""
    topic: Annotated[str, Field(min_length=1, max_length=256)] = "{client_id}/telemetry"
    """`{client_id}`, `{index}`, `{fleet}` and `{group}` are filled in. The policy that is made where none is given
    allows topics below the certificate's CN, which is the client id unless the group says otherwise."""
    qos: Literal[0, 1] = 1
    bytes: Annotated[int, Field(ge=1, le=MAX_PAYLOAD)] = 200
    """Of a payload."""


class Session(Model):
    """What devices do once they are accepted."""

    hold: Seconds = 0.0
    """Seconds that each stays connected from its first CONNACK 0 on, such as `"10m"`; a connection that is lost
    meanwhile is a failed try, and is made again as `[retry]` says. 0: it disconnects at once."""


class Verification(Model):
    """What the accounts are asked after a run."""

    things: Sample = "all"
    """Of how many certificates of each account the things are asked for, where devices should have one: a call each,
    of which AWS answers ten a second; `all`, `none` or a number. Of the others a verdict does not look at things."""


class Group(Model):
    """Devices that do the same."""

    count: Annotated[int, Field(ge=1, le=MAX_DEVICES)]
    account: str
    """The account that is dialled: its address, and the endpoint name that the server's certificate must carry."""
    sni: Annotated[str, Field(pattern=r"^(endpoint|none|other:.+|literal:.+)$")] = "endpoint"
    """The server name sent: `endpoint` (of the account dialled), `none` (no SNI extension at all),
    `other:<account>` (that account's endpoint) or `literal:<name>` (verbatim)."""
    subject: SubjectFields = SubjectFields()
    client_id: str = SUBJECT_CLIENT_ID
    """MQTT client id: `{common_name}`, `{index}`, `{fleet}` and `{group}` are filled in."""
    first_index: Annotated[int, Field(ge=0)] | None = None
    """Index of the first device's identity; left out: behind the devices of the groups above. Two groups with the same
    indexes and subject are the same devices: a fleet moved to another account."""
    telemetry: GroupTelemetry | None = None
    """What its devices publish while they are connected; left out: nothing."""
    verify_name: str | None = None
    """The name that the server's certificate must carry, when it is not the endpoint of the account dialled."""
    expect: Expect | None = None


class Devices(Model):
    """Where the devices' identities come from."""

    keys: Literal["derived", "random", "imported"] = "derived"
    """`derived` from (CA, fleet secret, index): the same certificates on every run. `random`: new ones. `imported`."""
    key_type: KeyType = KeyType.EC_P256
    bundles: str | None = None
    """For `imported`: a glob of PEM bundles (key, certificate, issuers), taken in the order of their names."""
    not_before: AwareDatetime | None = None
    """Left out: the CA's."""
    not_after: AwareDatetime | None = None
    """Left out: the CA's."""


class Retry(Model):
    """A refused device tries again: AWS provisions on a first connection that always drops (after 1 to 3 s)."""

    first_delay: SecondsRange = (3.0, 5.0)
    """Seconds before the second try, drawn evenly."""
    backoff: Annotated[float, Field(ge=1, le=10)] = 2.0
    """Each further delay is this many times the one before it."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Each delay after the first is stretched or shortened by up to this share."""
    max_delay: Seconds = 60.0
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Tries in all; and again from the first CONNACK 0 of a device that stays connected, should it lose that."""
    stable_after: Seconds = 20.0
    """A device that stays has its tries and delays from the beginning again once a connection has lasted so long; the
    SDKs of AWS do the same after 20 s. One that is put out sooner, time and again, gives up."""


class DeadlineSection(Model):
    """Seconds that each stage of a connection may take."""

    tcp: Deadline = 10.0
    tls: Deadline = 15.0
    connack: Deadline = 15.0


class TLS(Model):
    """TLS as the devices speak it."""

    minimum_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    maximum_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.3"
    group: Literal["P-256", "P-384", "P-521", "any"] = "P-256"
    """Key-exchange group offered; `any` is OpenSSL's own list, post-quantum hybrid first."""
    ciphers: Annotated[str, AfterValidator(_ciphers)] | None = None
    """OpenSSL cipher list for TLS 1.2."""
    alpn: tuple[Annotated[str, Field(pattern=r"^[!-~]{1,255}$")], ...] = ()
    """Protocols offered, such as `x-amzn-mqtt-ca` on port 443."""
    send_chain: bool = True
    """Send the CA's certificate after the leaf."""
    roots: str | None = None
    """PEM file of the roots that devices trust. Left out: the target's (Amazon's roots, or the emulator's)."""


class MQTT(Model):
    """MQTT as the devices speak it."""

    version: Literal["3.1.1", "5"] = "3.1.1"
    keep_alive: Annotated[int, Field(ge=30, le=1200)] = 60
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    """On AWS; the emulator says its own."""


class Emulator(Model):
    """Settings of the emulator that `run` starts; unknown to AWS."""

    jitp_delay: SecondsRange = (1.0, 3.0)
    """Seconds that JITP takes, drawn evenly unless `settings` has `jitp_delay_shape`; AWS: usually 1 to 3."""
    seed: int | None = None
    """Of the emulator's randomness."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Further settings by name, in place of their defaults: README lists those where AWS's behaviour is not known."""
    quotas: dict[str, Any] = Field(default_factory=dict)
    """AWS's quotas by name, in place of their defaults: a number, or `"none"` to lift one; `lifted = true` lifts those
    that are not named. `api` is a table by operation."""
    faults: list[dict[str, Any]] = Field(default_factory=list)
    """Faults on purpose, from the start: `kind` and, as far as wanted, `name`, `share`, `count`, `account`, `region`,
    `certificate_id`, `client_id`, `operation`, `after`, `duration`, `seconds`, `seed`."""


class FleetFile(Model):
    """A devicesim fleet file."""

    version: Literal[1]
    """Of this format."""
    name: Name
    description: str = ""
    ca: CA = CA()
    accounts: Annotated[dict[Name, Account], Field(min_length=1)]
    groups: Annotated[dict[Name, Group], Field(min_length=1)]
    devices: Devices = Devices()
    retry: Retry = Retry()
    arrival: Arrival = Arrival()
    session: Session = Session()
    verification: Verification = Verification()
    thresholds: Thresholds = Field(default_factory=dict)
    """What the run must keep, by metric: `time_to_provision = ["p(95)<5s"]`."""
    deadlines: DeadlineSection = DeadlineSection()
    tls: TLS = TLS()
    mqtt: MQTT = MQTT()
    emulator: Emulator = Emulator()
