"""Causes that stand at the CA in an account: not registering, not found as the issuer, its registration refused
(aws-iot-behaviour.md §9: 2, 4, 10). Pure.
"""

import re
from collections.abc import Iterator

from devicesim.diagnosis import catalogue, commands
from devicesim.diagnosis.case import PROVISIONING_SECONDS, Case
from devicesim.diagnosis.evidence import AccountEvidence, CAEvidence
from devicesim.diagnosis.findings import Finding
from devicesim.diagnosis.scales import HINT, PROOF, USUAL, Scales


def not_registering(case: Case) -> Finding | None:
    """2: CA INACTIVE, auto-registration DISABLE, not registered here; wrong account or Region."""
    scales, place = Scales(), case.place
    if place is None:
        return None
    settled = case.record is not None and case.record.status != "PENDING_ACTIVATION"
    if place.cas is None:
        if not settled:
            _from_outside(case, scales, place)
    elif case.registering is None:
        _no_ca(case, scales, place)
    for event in case.logged:
        if event.reason == "DEVICE_CERTIFICATE_NOT_REGISTERED":
            scales.speaks_for(USUAL, f"{place.name} logged DEVICE_CERTIFICATE_NOT_REGISTERED")
            break
    if not scales.supporting:
        return None
    if settled and case.record is not None:
        scales.speaks_against(PROOF, f"{place.name} has the certificate on record already ({case.record.status})")
    elif case.record is not None and case.registering is not None:
        scales.speaks_against(PROOF, f"{place.name} has registered the certificate (PENDING_ACTIVATION)")
    if case.registering is not None:
        ca = case.registering
        scales.speaks_against(USUAL, f"{named(ca)} is ACTIVE in {place.name}, with auto-registration, {ca.mode}")
    if case.peers_get_in and place.cas is None:
        scales.speaks_against(USUAL, "others of its group are accepted")
    if not scales.fixes:
        scales.fix(
            f"look whether the CA is registered in {place.name}, ACTIVE and with automatic registration",
            commands.aws("list-ca-certificates", place.region),
        )
    return scales.finding(catalogue.CA)


def _no_ca(case: Case, scales: Scales, place: AccountEvidence) -> None:
    """The account was asked, and registers no certificate of this issuer."""
    region = place.region
    for ca in case.signers:
        wrong = [] if ca.active else ["INACTIVE"]
        wrong += [] if ca.auto_registration else ["without automatic registration (DISABLE)"]
        scales.speaks_for(case.proof, f"{named(ca)} is {' and '.join(wrong)} in {place.name}")
        scales.fix(
            f"let {named(ca)} register in {place.name}",
            commands.aws(
                "update-ca-certificate",
                region,
                certificate_id=ca.certificate_id or "CA_CERTIFICATE_ID",
                new_status=False if ca.active else "ACTIVE",
                new_auto_registration_status=False if ca.auto_registration else "ENABLE",
            ),
        )
    if case.signers:
        return
    if case.cas:  # one of its subject, or its key: 4 tells of it
        scales.speaks_for(HINT, f"{place.name} ({place.account_id}, {region}) holds no CA that is found as the issuer")
        return
    planned = " (as the fleet file says)" if place.planned_mode is None else ""
    scales.speaks_for(case.proof, f"the CA is not registered in {place.name} ({place.account_id}, {region}){planned}")
    elsewhere = [f"{other.name} in {other.region} has {what}" for other, what in _elsewhere(case, place)]
    if elsewhere:
        scales.speaks_for(HINT, f"{', '.join(elsewhere)}, which does not count here")
    mode = place.planned_mode or "SNI_ONLY"
    scales.fix(f"register the CA in {place.name} in {region}, {mode}", _register(place, mode))


def _elsewhere(case: Case, place: AccountEvidence) -> Iterator[tuple[AccountEvidence, str]]:
    """Other accounts with the CA, else with the certificate."""
    for other in case.evidence.accounts:
        held = next((ca for ca in other.cas or () if ca.signed_leaf), None)
        if other is not place and held is not None:
            yield other, f"the CA ({held.mode})"
        elif other is not place and other.record is not None:
            yield other, "the certificate"


def _from_outside(case: Case, scales: Scales, place: AccountEvidence) -> None:
    """What the device alone can tell: that it is turned away, and keeps being."""
    if not case.refused or (case.tries == 1 and case.still_trying):
        return
    if case.alert in ("unknown_ca", "certificate_unknown", "bad_certificate"):
        scales.speaks_for(USUAL, f"the server sent the TLS alert {case.alert}: it knows neither certificate nor CA")
    elif case.tries > 1 and case.tried_for >= PROVISIONING_SECONDS and case.decider is not None:
        scales.speaks_for(
            USUAL,
            f"{case.tries} tries within {case.tried_for:.0f} s were all turned away: nothing seems registered",
        )
    else:
        scales.speaks_for(HINT, "it was turned away as a certificate is that nobody knows")
    if case.no_record:
        scales.speaks_for(USUAL, f"{place.name} has no record of the certificate")


def issuer(case: Case) -> Finding | None:
    """4: the chain is not sent where it is needed, the issuer is another CA of the same name, or one of several."""
    scales, place, wire = Scales(), case.place, case.evidence.wire
    if place is None:
        return None
    cas = place.cas or ()
    strangers = [ca for ca in cas if ca.same_subject and not ca.signed_leaf]
    renamed = [ca for ca in cas if ca.signed_leaf and not ca.same_subject]
    if strangers and not case.signers:
        for ca in strangers:
            scales.speaks_for(
                case.proof, f"{named(ca)} in {place.name} has the issuer's subject, but another key: {ca.subject}"
            )
        scales.fix(
            f"register in {place.name} the very CA that signed the certificate, not one of the same name",
            _register(place),
        )
    if renamed and not case.signers:
        for ca in renamed:
            says = f"; the certificate says {case.evidence.leaf.issuer}" if case.evidence.leaf is not None else ""
            scales.speaks_for(
                case.proof,
                f"{named(ca)} in {place.name} has the signing key, and another subject: {ca.subject}{says}",
            )
        scales.fix("issue the certificate with the CA's subject, byte for byte, as its issuer")
    alike = [ca for ca in cas if ca.same_subject]
    if case.signers and len(alike) > 1:
        scales.speaks_for(
            HINT if wire.chain_sent else USUAL,
            f"{place.name} holds {len(alike)} CAs of this subject"
            + ("" if wire.chain_sent else ", and the chain, which tells them apart, is not sent"),
        )
        if any(not (ca.active and ca.auto_registration) for ca in alike):
            scales.speaks_for(HINT, "not all of them register")
        scales.fix("send the CA's certificate after the device's own; in a fleet file: tls.send_chain = true")
    if case.sent is None and not wire.chain_sent:
        default = [ca for ca in case.signers if ca.mode == "DEFAULT"]
        if default and case.record is None:
            scales.speaks_for(case.proof, "neither server name nor chain is sent: one of them must tell the CA")
            scales.speaks_for(USUAL, f"{place.name} holds {named(default[0])} DEFAULT, for which the chain would do")
        elif place.cas is None:
            scales.speaks_for(HINT, "neither server name nor chain is sent: one of them must tell the CA")
        scales.fix("send the CA's certificate after the device's own; in a fleet file: tls.send_chain = true")
    if not scales.supporting:
        return None
    if case.record is not None:
        scales.speaks_against(PROOF, f"{place.name} has the certificate on record: its issuer was found")
    if case.peers_get_in:
        scales.speaks_against(USUAL, "others of its group are accepted")
    return scales.finding(catalogue.ISSUER)


_REGISTRATION = re.compile(
    r"register_?ca_?certificate|CertificateValidationException|RegistrationCodeValidationException|"
    r"verification.?certificate|basicConstraints|is registered already, but",
    re.IGNORECASE,
)
_WHY = (
    (
        re.compile(r"basicConstraints", re.IGNORECASE),
        "the CA must have basicConstraints CA:TRUE: make it anew",
    ),
    (
        re.compile(r"key in the certificate is not valid", re.IGNORECASE),
        "the CA's key must be RSA of 2048 bits or more, or EC P-256: make it anew",
    ),
    (
        re.compile(r"RegistrationCodeValidation", re.IGNORECASE),
        "the CN of the verification certificate must be this very account's registration code",
    ),
    (
        re.compile(r"ResourceAlreadyExists|already exists|already registered", re.IGNORECASE),
        "one account a Region holds a CA in DEFAULT mode: register it SNI_ONLY here, or delete it there",
    ),
    (re.compile(r"LimitExceeded", re.IGNORECASE), "an account takes 10 CAs of one subject: delete one"),
    (
        re.compile(r"is registered already, but", re.IGNORECASE),
        "a mode is changed by deleting the CA and registering it again; or correct the fleet file",
    ),
    (
        re.compile(r"required.*verification.?certificate|verification.?certificate.*required", re.IGNORECASE),
        "bring the AWS CLI up to date: an old one wants a verification certificate for SNI_ONLY too",
    ),
    (
        re.compile(r"registration template", re.IGNORECASE),
        "correct the provisioning template: it is checked when the CA is registered",
    ),
)


def registration_refused(case: Case) -> Finding | None:
    """10: RegisterCACertificate said no, so that the account lacks the CA, or holds it otherwise than planned."""
    scales, place = Scales(), case.dialled
    if place is None:
        return None
    said = [text for text in case.evidence.fleet.errors if _REGISTRATION.search(text)]
    said = [text for text in said if _about(text, place, case)]
    held = [ca for ca in place.cas or () if ca.signed_leaf]
    lacks = place.cas is not None and place.planned_mode is not None and not held
    otherwise = [ca for ca in held if place.planned_mode not in (None, ca.mode)]
    if held and not otherwise and not said:
        return None
    for text in said:
        scales.speaks_for(PROOF, text)
        words = next((words for pattern, words in _WHY if pattern.search(text)), "")
        look = (commands.aws("get-registration-code", place.region),) if "registration code" in words else ()
        if words:
            scales.fix(words, *look)
    if lacks:
        scales.speaks_for(USUAL, f"the fleet file wants the CA {place.planned_mode} in {place.name}, which has it not")
        other = _default_holder(case, place)
        if place.planned_mode == "DEFAULT" and other is not None:
            scales.speaks_for(
                PROOF, f"{other.name} holds it in DEFAULT mode in {place.region} already: one account a Region"
            )
            scales.fix(
                f"register it SNI_ONLY in {place.name}, which any number of accounts may",
                _register(place, "SNI_ONLY"),
            )
    for ca in otherwise:
        mode = place.planned_mode
        # with a server name both modes do the same
        weight = USUAL if case.sent is None and mode == "DEFAULT" else HINT
        scales.speaks_for(weight, f"{named(ca)} is {ca.mode} in {place.name}, the fleet file wants {mode}")
        scales.fix(
            "a mode is changed by deleting the CA and registering it again; or correct the fleet file",
            commands.aws(
                "update-ca-certificate", place.region, certificate_id=ca.certificate_id, new_status="INACTIVE"
            ),
            commands.aws("delete-ca-certificate", place.region, certificate_id=ca.certificate_id),
        )
    if held and not otherwise:
        scales.speaks_against(PROOF, f"{place.name} holds {named(held[0])} as planned")
    if case.ever_accepted or (case.record is not None and case.place is place):
        scales.speaks_against(PROOF, f"{place.name} has registered the certificate")
    if not scales.fixes:
        scales.fix(
            f"register the CA in {place.name} again, and read what RegisterCACertificate says",
            _register(place),
        )
    return scales.finding(catalogue.CA_REFUSED)


def _about(text: str, place: AccountEvidence, case: Case) -> bool:
    """Whether an error is about this account: it names it, or names no other."""
    others = [each for each in case.evidence.accounts if each is not place]
    if place.account_id in text or re.search(rf"(?<![\w-]){re.escape(place.name)}(?![\w-])", text):
        return True
    return not any(
        each.account_id in text or re.search(rf"(?<![\w-]){re.escape(each.name)}(?![\w-])", text) for each in others
    )


def _default_holder(case: Case, place: AccountEvidence) -> AccountEvidence | None:
    """Another account of the Region that holds the CA in DEFAULT mode."""
    for each in case.evidence.accounts:
        holds = any(ca.signed_leaf and ca.mode == "DEFAULT" for ca in each.cas or ())
        if holds and each is not place and each.region == place.region:
            return each
    return None


def _register(place: AccountEvidence, mode: str | None = None) -> str:
    """The command that registers the CA as the fleet file wants it, or in another mode."""
    return commands.register_ca(place.region, mode or place.planned_mode or "SNI_ONLY", template=place.planned_template)


def named(ca: CAEvidence) -> str:
    """A CA for people: eight digits of its id."""
    return f"CA {ca.certificate_id[:8]}" if ca.certificate_id else "the CA"
