"""A device's certificate as evidence, and whose signature it bears. Pure."""

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from devicesim.cloud.jitptemplate import subject_parameters
from devicesim.diagnosis.evidence import LeafEvidence
from devicesim.pki.identity import certificate_id


def leaf_evidence(certificate: x509.Certificate) -> LeafEvidence:
    return LeafEvidence(
        certificate_id=certificate_id(certificate),
        subject=subject_parameters(certificate.subject),
        subject_text=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether the CA's key verifies the certificate, whatever the two are called."""
    message, signature = certificate.tbs_certificate_bytes, certificate.signature
    try:
        algorithm, parameters = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
        match ca.public_key():
            case ec.EllipticCurvePublicKey() as key if isinstance(parameters, ec.ECDSA):
                key.verify(signature, message, parameters)
            case rsa.RSAPublicKey() as key if algorithm is not None and not isinstance(parameters, ec.ECDSA | None):
                key.verify(signature, message, parameters, algorithm)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
