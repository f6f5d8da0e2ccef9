"""The fleet file: accounts, groups of devices, how they arrive and retry. TOML, checked by pydantic.

Every mistake is reported at once, each with its path in the file: unknown keys, wrong values, and contradictions
between places (:mod:`devicesim.fleet.contradictions`). The models are the published JSON Schema
(``devicesim schema fleet``).
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from devicesim.errors import FleetFileError, KeyMaterialError, Problem
from devicesim.fleet.contradictions import find_contradictions
from devicesim.net.tls import TLSContext, TLSSettings
from devicesim.pki.profile import KeyType, Profile, Subject, render

SUBJECT_CLIENT_ID = "{common_name}"
MOST_SHOWN = 80
"""Characters of a wrong value that a message repeats."""
MAX_RATE = 1_000_000
"""Starts a second."""
MAX_DEVICES = 10_000_000
"""Of a group; of all groups together with ``--devices``."""


def parse_rate(text: str) -> float:
    """``"50/s"``, ``"3000/min"``, ``"500/h"`` or ``"50"`` as starts a second. Raises ``ValueError``."""
    number, slash, unit = text.partition("/")
    seconds = {"s": 1.0, "min": 60.0, "h": 3600.0}.get(unit if slash else "s")
    try:
        if seconds:
            return float(number) / seconds
    except ValueError:
        pass
    raise ValueError("a rate is a number of starts a second, or a text such as '50/s', '3000/min' or '500/h'")


def _rate(value: object) -> object:
    return parse_rate(value) if isinstance(value, str) else value


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[1] < pair[0]:
        raise ValueError("the second number is smaller than the first; a range is [shortest, longest]")
    return pair


def _template(text: str) -> str:
    try:
        render(text, 0, {"fleet": "x", "group": "x"}, "")
    except KeyMaterialError as exc:
        raise ValueError(str(exc).strip()) from exc
    return text


def _ciphers(text: str) -> str:
    TLSContext(TLSSettings(roots=(), ciphers=text))  # OpenSSL alone knows which names it knows
    return text


Seconds = Annotated[float, Field(ge=0, le=86_400)]
Deadline = Annotated[float, Field(gt=0, le=3600)]
SecondsRange = Annotated[tuple[Seconds, Seconds], AfterValidator(_ordered)]
Rate = Annotated[float, BeforeValidator(_rate), Field(gt=0, le=MAX_RATE)]
Template = Annotated[str, AfterValidator(_template)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CA(_Model):
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


class Account(_Model):
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
    policy_name: Annotated[str, Field(pattern=r"^[\w+=,.@-]{1,128}$")] | None = None
    """Left out: `devicesim-<fleet name>`."""
    role_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$")] | None = None
    """The role that JITP assumes. On AWS it is needed; the emulator does not check roles."""
    profile: str | None = None
    """The AWS profile with credentials for this account (`--target aws`)."""


class SubjectFields(_Model):
    """Templates of the certificate's subject; `{index}`, `{fleet}` and `{group}` are filled in."""

    common_name: Template | None = None
    serial_number: Template | None = None
    organization: Template | None = None
    organizational_unit: Template | None = None
    country: Template | None = None
    state: Template | None = None
    dn_qualifier: Template | None = None


class Expect(_Model):
    """What the user says should happen, in place of what the oracle says."""

    outcome: Literal["provisioned", "pending", "refused", "unreachable", "failed"]
    account: str | None = None
    """Where; needed with `provisioned` and `pending`."""


class Group(_Model):
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
    verify_name: str | None = None
    """The name that the server's certificate must carry, when it is not the endpoint of the account dialled."""
    expect: Expect | None = None


class Devices(_Model):
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


class Retry(_Model):
    """A refused device tries again: AWS provisions on a first connection that always drops (after 1 to 3 s)."""

    first_delay: SecondsRange = (3.0, 5.0)
    """Seconds before the second try, drawn evenly."""
    backoff: Annotated[float, Field(ge=1, le=10)] = 2.0
    """Each further delay is this many times the one before it."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Each delay after the first is stretched or shortened by up to this share."""
    max_delay: Seconds = 60.0
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Tries in all."""


class Arrival(_Model):
    """When devices start: an open model, one schedule for the whole fleet, groups interleaved."""

    rate: Rate = 50.0
    """Starts a second: a number or a text such as `"50/s"` or `"3000/min"`."""


class DeadlineSection(_Model):
    """Seconds that each stage of a connection may take."""

    tcp: Deadline = 10.0
    tls: Deadline = 15.0
    connack: Deadline = 15.0


class TLS(_Model):
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


class MQTT(_Model):
    """MQTT as the devices speak it."""

    version: Literal["3.1.1", "5"] = "3.1.1"
    keep_alive: Annotated[int, Field(ge=30, le=1200)] = 60
    port: Annotated[int, Field(ge=1, le=65535)] = 8883
    """On AWS; the emulator says its own."""


class Emulator(_Model):
    """Settings of the emulator that `run` starts; unknown to AWS."""

    jitp_delay: SecondsRange = (1.0, 3.0)
    """Seconds that JITP takes, drawn evenly unless `settings` has `jitp_delay_shape`; AWS: usually 1 to 3."""
    seed: int | None = None
    """Of the emulator's randomness."""
    settings: dict[str, Any] = {}
    """Further settings by name, in place of their defaults: README lists those where AWS's behaviour is not known."""
    quotas: dict[str, Any] = {}
    """AWS's quotas by name, in place of their defaults: a number, or `"none"` to lift one; `lifted = true` lifts those
    that are not named. `api` is a table by operation."""
    faults: list[dict[str, Any]] = []
    """Faults on purpose, from the start: `kind` and, as far as wanted, `name`, `share`, `count`, `account`, `region`,
    `certificate_id`, `client_id`, `operation`, `after`, `duration`, `seconds`, `seed`."""


class FleetFile(_Model):
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
    deadlines: DeadlineSection = DeadlineSection()
    tls: TLS = TLS()
    mqtt: MQTT = MQTT()
    emulator: Emulator = Emulator()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet file that has been read and checked, with what it refers to."""

    file: FleetFile
    path: Path
    text: str
    """The file as read; it holds no secret."""
    templates: Mapping[str, str]
    """JITP template text by account name, for the accounts whose file gives one."""
    policies: Mapping[str, str]
    """Policy text by account name, likewise."""

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def size(self) -> int:
        """Devices in all groups."""
        return sum(group.count for group in self.file.groups.values())

    def resolve(self, reference: str) -> Path:
        """A path of the file: relative ones are relative to the fleet file."""
        return self.path.parent / os.path.expanduser(reference)  # which leaves ~nobody as it is, where Path raises

    def first_index(self, group_name: str) -> int:
        """Identity index of a group's first device."""
        position = 0
        for name, group in self.file.groups.items():
            first = position if group.first_index is None else group.first_index
            if name == group_name:
                return first
            position = max(position, first + group.count)
        raise KeyError(group_name)

    def device_profile(self, group_name: str) -> Profile:
        """What the certificates of a group's devices say."""
        devices = self.file.devices
        return Profile(
            subject=_subject(self.file.groups[group_name].subject),
            names=self.names(group_name),
            key_type=devices.key_type,
            not_before=devices.not_before,
            not_after=devices.not_after,
        )

    def names(self, group_name: str) -> dict[str, str]:
        return {"fleet": self.file.name, "group": group_name}

    def resized(self, total: int) -> "Fleet":
        """The same fleet with ``total`` devices, split over the groups in the file's proportions, at least 1 each.

        Largest remainders; raises :class:`FleetFileError` when ``total`` is smaller than the number of groups.
        """
        groups = self.file.groups
        if total < len(groups):
            message = f"{total} devices cannot be split over {len(groups)} groups; at least 1 each is needed"
            raise FleetFileError(str(self.path), [Problem("groups", message)])
        spare = total - len(groups)
        shares = {name: group.count * spare / self.size for name, group in groups.items()}
        counts = {name: 1 + int(share) for name, share in shares.items()}
        by_remainder = sorted(shares, key=lambda name: int(shares[name]) - shares[name])
        for name in by_remainder[: total - sum(counts.values())]:
            counts[name] += 1
        resized = {name: group.model_copy(update={"count": counts[name]}) for name, group in groups.items()}
        return replace(self, file=self.file.model_copy(update={"groups": resized}))


def load_fleet(path: Path) -> Fleet:
    """Read and check a fleet file. Raises :class:`FleetFileError` with all its problems."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise FleetFileError(str(path), [Problem("file", f"cannot be read: {reason}")]) from exc
    return parse_fleet(text, path)


def parse_fleet(text: str, path: Path) -> Fleet:
    """Check the text of a fleet file; ``path`` is where it stands, for what it refers to."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise FleetFileError(str(path), [Problem("file", f"is not TOML: {exc}")]) from exc
    problems: list[Problem] = []
    file: FleetFile | None = None
    try:
        file = FleetFile.model_validate(raw)
    except ValidationError as exc:
        problems += [_problem(error) for error in exc.errors(include_url=False)]
    seen = {problem.path for problem in problems}
    problems += [problem for problem in find_contradictions(raw) if problem.path not in seen]
    documents: dict[str, dict[str, str]] = {"template": {}, "policy": {}}
    if file is not None:
        problems += _subject_problems(file)
        for kind, found in documents.items():
            problems += _read_documents(file, path, kind, found)
    if problems or file is None:
        raise FleetFileError(str(path), problems)
    return Fleet(file=file, path=path, text=text, templates=documents["template"], policies=documents["policy"])


def _problem(error: Mapping[str, Any]) -> Problem:
    """One pydantic error in the house style."""
    where = ".".join(str(each) for each in error["loc"] if each != "[key]") or "file"
    context, value, shown = error.get("ctx", {}), error.get("input"), _shown(error.get("input"))
    match error["type"]:
        case "extra_forbidden":
            message = "unknown key"
        case "missing":
            message = "is missing"
        case "value_error":
            message = f"{shown} is not allowed: {context['error']}"
        case "literal_error" | "enum":
            message = f"{shown} is not allowed; expected {context['expected']}"
        case "string_pattern_mismatch":
            message = f"{shown} does not match {context['pattern']}"
        case _:
            text = str(error["msg"])
            message = f"{shown}: {text[:1].lower()}{text[1:]}" if not isinstance(value, dict) else text.lower()
    return Problem(where, message)


def _shown(value: object) -> str:
    """A value for a message of one line, however much was put there."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _subject(fields: SubjectFields) -> Subject:
    """Unset attributes stay out of the subject; the CN alone has a default."""
    return Subject(**fields.model_dump(exclude_none=True))


def _subject_problems(file: FleetFile) -> list[Problem]:
    """Templates are tried on a group's first and last device, so that a bad one is found before anything starts."""
    problems = []
    for name, group in file.groups.items():
        first = group.first_index or 0
        names = {"fleet": file.name, "group": name}
        for index in (first, first + group.count - 1):
            try:
                _subject(group.subject).name(index, names)
            except KeyMaterialError as exc:
                problems.append(Problem(f"groups.{name}.subject", str(exc)))
                break
            try:
                render(group.client_id.replace(SUBJECT_CLIENT_ID, "x"), index, names, "client_id")
            except KeyMaterialError as exc:
                problems.append(Problem(f"groups.{name}.client_id", f"{exc}, {SUBJECT_CLIENT_ID}"))
                break
    return problems


def _read_documents(file: FleetFile, path: Path, kind: str, found: dict[str, str]) -> list[Problem]:
    """JITP templates and policies: inline JSON starts with a brace, anything else names a file."""
    problems = []
    for name, account in file.accounts.items():
        value: str | None = getattr(account, kind)
        if value is None:
            continue
        where = f"accounts.{name}.{kind}"
        text = value
        if not value.lstrip().startswith("{"):
            try:
                text = (path.parent / value).read_text(encoding="utf-8")
            except (OSError, ValueError) as exc:  # not UTF-8, or a NUL in the name
                problems.append(Problem(where, f"{_shown(value)} cannot be read: {getattr(exc, 'strerror', exc)}"))
                continue
        try:
            document = json.loads(text)
        except ValueError as exc:
            problems.append(Problem(where, f"is not JSON: {exc}"))
            continue
        if not isinstance(document, dict):
            problems.append(Problem(where, f"is a JSON {type(document).__name__}; an object is expected"))
            continue
        found[name] = text
    return problems
