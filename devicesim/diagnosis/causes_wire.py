"""Causes that stand on the wire: server name, roots, ALPN, endpoint's name, port (aws-iot-behaviour.md §9: 3, 9, 12,
14, 15). Each function takes a device's case and says what speaks for and against its cause, or ``None``. Pure.
"""

import re
from collections.abc import Iterator

from devicesim.diagnosis import catalogue, commands
from devicesim.diagnosis.case import MQTT_ALPN, Case, Sight, Telling
from devicesim.diagnosis.evidence import AccountEvidence
from devicesim.diagnosis.findings import Finding
from devicesim.diagnosis.scales import HINT, PROOF, USUAL, Scales
from devicesim.outcome import FailureKind
from devicesim.rules import read_server_name

MQTT_PORTS = (8883, 443)
"""Where AWS speaks MQTT with a certificate (§4.3)."""
HTTPS_PORT = 8443
"""HTTPS with a certificate (§4.3)."""
_ATS = re.compile(r"^[a-z0-9]+-ats\.iot\.[a-z0-9-]+\.", re.IGNORECASE)
_LEGACY = re.compile(r"^[a-z0-9]+\.iot\.[a-z0-9-]+\.", re.IGNORECASE)
_NO_DATA = re.compile(r"^[a-z0-9]+\.(credentials|jobs)\.iot\.", re.IGNORECASE)
"""Endpoints of another type than iot:Data-ATS."""


def server_name(case: Case) -> Finding | None:
    """3: none sent, one that counts as none, another account's or another Region's."""
    scales, wire = Scales(), case.evidence.wire
    wanted = case.dialled
    owner = _owner(case, case.sent)
    could = case.refused or case.sight in (Sight.SILENT, Sight.LOST)
    direct, usual = (PROOF, USUAL) if could else (HINT, HINT)
    if case.sent is None:
        words = "no server name is sent" if wire.server_name is None else f"{wire.server_name!r} counts as none"
        scales.speaks_for(usual, f"{words}: without one only DEFAULT mode answers")
        modes = {ca.mode for ca in case.signers}
        if modes == {"SNI_ONLY"} and wanted is not None:
            scales.speaks_for(direct, f"{wanted.name} holds the CA SNI_ONLY: a server name is required")
        if case.record is not None and case.record.mode == "SNI_ONLY" and case.decider is None and wanted is not None:
            scales.speaks_for(direct, f"{wanted.name} has the certificate SNI_ONLY: a server name is required")
        if case.decider is not None and case.decider is wanted:
            scales.speaks_against(PROOF, f"{wanted.name} holds it in DEFAULT mode, which answers without a server name")
        elif case.decider is not None and wanted is not None:
            scales.speaks_for(
                direct, f"without a server name {case.decider.name} answers, by DEFAULT mode, and not {wanted.name}"
            )
    elif owner is not None and wanted is not None and owner is not wanted:
        where = f"{owner.name} in {owner.region}" if owner.region != wanted.region else owner.name
        scales.speaks_for(direct, f"the server name is the endpoint of {where}; {wanted.name} is dialled")
    elif (
        owner is None and wanted is not None and wanted.endpoint and (_ATS.match(case.sent) or not case.endpoints_known)
    ):
        scales.speaks_for(
            usual, f"the server name {case.sent!r} is not the endpoint of {wanted.name}, which is dialled"
        )
    for event in case.logged:
        if event.reason == "SNI_MISUSED":
            scales.speaks_for(PROOF, f"{case.place_name} logged SNI_MISUSED: {event.details}".rstrip(": "))
            break
    if case.alert == "unrecognized_name":
        scales.speaks_for(direct, "the server sent the TLS alert unrecognized_name")
    if scales.supporting and case.right_name and wanted is not None:
        scales.speaks_against(PROOF, f"the server name is the endpoint of {wanted.name}, the account dialled")
    if case.peers_get_in:
        scales.speaks_against(USUAL, "others of its group, which send the same name, are accepted")
    endpoint = wanted.endpoint if wanted is not None and wanted.endpoint else None
    name = endpoint or "the endpoint of its account (DescribeEndpoint, iot:Data-ATS)"
    look = () if endpoint or wanted is None else (commands.describe_endpoint(wanted.region),)
    scales.fix(f'send {name} as server name; in a fleet file: sni = "endpoint"', *look)
    return scales.finding(catalogue.SNI)


def wrong_root(case: Case) -> Finding | None:
    """9: the device's own check of the server's chain failed."""
    scales, wire = Scales(), case.evidence.wire
    if case.sight is not Sight.UNTRUSTED:
        return None
    assert case.failure is not None
    scales.speaks_for(PROOF, f"the device refused the server's certificate: {case.failure.detail or case.failure.kind}")
    if wire.foreign_roots:
        scales.speaks_for(USUAL, "it trusts roots that the fleet file names, not the target's own")
    if case.ever_shook_hands:
        scales.speaks_against(USUAL, "an earlier try did verify the server with the same roots")
    if any(_is_legacy(name) for _, name in _names(case)):
        scales.speaks_against(USUAL, "a legacy endpoint, without -ats, has a certificate of another root")
    if case.peers_get_in:
        scales.speaks_against(USUAL, "others of its group, which trust the same roots, are accepted")
    scales.fix(
        "trust Amazon Root CA 1 and 3, not the devices' own CA; in a fleet file leave tls.roots out",
        "curl -O https://www.amazontrust.com/repository/AmazonRootCA1.pem",
        "curl -O https://www.amazontrust.com/repository/AmazonRootCA3.pem",
    )
    return scales.finding(catalogue.ROOT)


def no_alpn(case: Case) -> Finding | None:
    """12: MQTT with a certificate on 443 needs ALPN x-amzn-mqtt-ca; without it the port speaks HTTP (§4.3 [D])."""
    scales, wire = Scales(), case.evidence.wire
    if case.sight in (Sight.NOTHING, Sight.NO_NAME, Sight.NO_TCP, Sight.OURS):
        return None
    lacks = wire.port == 443 and MQTT_ALPN not in wire.alpn
    here = PROOF if case.sight not in (Sight.UNTRUSTED, Sight.SERVER_EXPIRED, Sight.WRONG_NAME, Sight.LOST) else HINT
    if lacks:
        offers = f"offers {', '.join(wire.alpn)}" if wire.alpn else "offers no ALPN protocol"
        scales.speaks_for(here, f"it {offers} on port 443, which speaks MQTT with a certificate by {MQTT_ALPN} only")
    if case.tells is Telling.HTTP:
        scales.speaks_for(PROOF, "the server answered in HTTP")
    if case.alert == "no_application_protocol":
        scales.speaks_for(PROOF, "the server sent the TLS alert no_application_protocol")
    if scales.supporting:
        if wire.port == 443 and not lacks:
            scales.speaks_against(USUAL, f"it offers {MQTT_ALPN}")
        elif wire.port == 8883 and not wire.assumed:
            scales.speaks_against(USUAL, "port 8883 needs no ALPN")
        if case.ever_accepted:
            scales.speaks_against(PROOF, "an earlier try was accepted")
        if case.peers_get_in:
            scales.speaks_against(USUAL, "others of its group, which offer the same, are accepted")
    scales.fix(f'offer the ALPN protocol {MQTT_ALPN} on port 443 (fleet file: tls.alpn = ["{MQTT_ALPN}"]), or use 8883')
    return scales.finding(catalogue.ALPN)


def wrong_endpoint(case: Case) -> Finding | None:
    """14: a name that is nobody's endpoint: legacy (iot:Data), typed by hand, or a domain that is switched off."""
    scales, wanted = Scales(), case.dialled
    for use, name in _names(case):
        weight = _weight(case, use)
        if _owner(case, name) is not None or not weight:
            continue
        if _is_legacy(name):
            scales.speaks_for(weight, f"{use} {name!r} is a legacy name, without -ats")
        elif (other := _NO_DATA.match(name)) is not None:
            scales.speaks_for(weight, f"{use} {name!r} is an endpoint for {other[1]}, not for data")
        elif case.endpoints_known and (_ATS.match(name) or case.sight is Sight.NO_NAME):
            scales.speaks_for(weight, f"{use} {name!r} is the endpoint of no account looked at")
        elif case.endpoints_known:
            scales.speaks_for(
                min(weight, USUAL), f"{use} {name!r} is no account's endpoint, nor a custom domain that is known"
            )
    if case.sight is Sight.WRONG_NAME and case.failure is not None:
        scales.speaks_for(USUAL, case.failure.detail or "the server's certificate is for another name")
    if case.sight is Sight.NO_NAME and not case.endpoints_known:
        scales.speaks_for(USUAL, f"the name dialled does not exist: {case.failure.detail if case.failure else ''}")
    for event in case.logged:
        if event.reason.startswith("DOMAIN_CONFIGURATION_"):
            scales.speaks_for(PROOF, f"{case.place_name} logged {event.reason}: {event.details}".rstrip(": "))
            break
    if scales.supporting:
        wire = case.evidence.wire
        checked = wanted is not None and (wanted.endpoint or "").lower() == wire.verify_name.lower()
        if case.right_name and checked and wanted is not None and case.sight is not Sight.NO_NAME:
            scales.speaks_against(
                HINT if case.sight is Sight.WRONG_NAME else PROOF,
                f"the name sent and verified is the endpoint of {wanted.name}, the account dialled",
            )
            if case.sight is Sight.WRONG_NAME:
                scales.fix(
                    "look what answers at the address dialled: a proxy, another's DNS or hosts file, another server"
                )
        if case.peers_get_in:
            scales.speaks_against(USUAL, "others of its group, which use the same names, are accepted")
    endpoint = None if wanted is None else wanted.endpoint
    region = "REGION" if wanted is None else wanted.region
    scales.fix(
        f"use the account's own endpoint, {endpoint}" if endpoint else "use the account's own endpoint (iot:Data-ATS)",
        commands.describe_endpoint(region),
    )
    return scales.finding(catalogue.ENDPOINT)


def wrong_port(case: Case) -> Finding | None:
    """15: nothing listens, something else does, or TLS fails for neither trust nor name."""
    scales, wire, failure = Scales(), case.evidence.wire, case.failure
    if failure is None:
        return None
    host, port = wire.address or (wire.verify_name, wire.port)
    where = "its endpoint" if wire.assumed else f"{host} port {port}"
    if case.sight is Sight.NO_TCP:
        refused = failure.kind is FailureKind.TCP_REFUSED
        told = "refused: nothing listens there" if refused else f"not made: {failure.detail or failure.kind}"
        scales.speaks_for(PROOF if refused else USUAL, f"the TCP connection to {where} was {told}")
    elif case.sight is Sight.HANDSHAKE:
        named = {FailureKind.TLS_ALERT: case.alert, FailureKind.TIMEOUT: "no answer within the deadline"}
        told = named.get(failure.kind, failure.detail or failure.kind)
        broken = failure.kind in (FailureKind.TLS_PROTOCOL_ERROR, FailureKind.TLS_ALERT)
        scales.speaks_for(PROOF if broken else USUAL, f"the TLS handshake failed for neither name nor trust: {told}")
        if case.tells in (Telling.PLAIN_TEXT, Telling.HTTP):
            scales.speaks_for(USUAL, f"what answers at {where} does not speak TLS")
    elif case.sight is Sight.NOT_MQTT:
        scales.speaks_for(USUAL, f"what answers at {where} is not MQTT: {failure.detail}".rstrip(": "))
    elif case.sight is Sight.SILENT:
        scales.speaks_for(HINT, "CONNECT was not answered: something else may listen there")
    if wire.port not in MQTT_PORTS and case.sight is not Sight.LOST:
        scales.speaks_for(
            PROOF if wire.port == HTTPS_PORT else USUAL,
            f"port {wire.port}: AWS speaks MQTT with a certificate on 8883 and 443",
        )
    if not scales.supporting:
        return None
    if case.ever_accepted:
        scales.speaks_against(PROOF, "an earlier try was accepted")
    elif case.sight is Sight.HANDSHAKE and case.ever_shook_hands:
        scales.speaks_against(USUAL, "the handshake of an earlier try was good")
    if case.peers_get_in:
        scales.speaks_against(USUAL, "others of its group, which dial the same, are accepted")
    if case.sight is Sight.HANDSHAKE and case.tells is Telling.NONE:
        scales.fix("TLS 1.2 or newer, P-256 or RSA, and room for records of 16 KiB: no maximum fragment length")
    scales.fix(
        "dial port 8883, or 443 with ALPN x-amzn-mqtt-ca, and let no firewall stand between",
        *(() if wire.assumed else (commands.handshake(host, port, case.sent or wire.verify_name),)),
    )
    return scales.finding(catalogue.PORT)


def _weight(case: Case, use: str) -> int:
    """What a name that is nobody's weighs in this use, by what was seen; 0: nothing."""
    match case.sight:
        case Sight.NO_NAME:
            return PROOF if use == _DIALLED else 0
        case Sight.WRONG_NAME | Sight.UNTRUSTED:
            return PROOF
        case Sight.REFUSED:
            return PROOF if use == _SENT else 0
        case Sight.SILENT | Sight.HANDSHAKE:
            return USUAL if use == _SENT else 0
        case _:
            return 0


_DIALLED, _SENT, _VERIFIED = "the name dialled,", "the server name", "the name verified,"


def _names(case: Case) -> Iterator[tuple[str, str]]:
    """The names that the device uses, each once and with its use."""
    wire, seen = case.evidence.wire, set()
    for use, name in (
        (_SENT, case.sent),
        (_VERIFIED, wire.verify_name),
        (_DIALLED, None if wire.address is None else wire.address[0]),
    ):
        if name is None or (read_server_name(name)[0] is None and use != _SENT):
            continue  # an address is no name
        if name.lower() in seen and use == _VERIFIED:
            continue
        seen.add(name.lower())
        yield use, name


def _is_legacy(name: str) -> bool:
    return _LEGACY.match(name) is not None and not _ATS.match(name)


def _owner(case: Case, name: str | None) -> AccountEvidence | None:
    """The account whose endpoint a name is."""
    if name is None:
        return None
    return next((each for each in case.evidence.accounts if (each.endpoint or "").lower() == name.lower()), None)
