"""``devicesim ca create|verify-cert|show``: the shared CA."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from devicesim.errors import KeyMaterialError
from devicesim.pki import keyfile
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import certificate_id, certificate_pem, load_certificates, private_key_pem
from devicesim.pki.profile import KeyType


@click.group(name="ca")
def command() -> None:
    """Make and show the shared CA; sign verification certificates."""


@command.command()
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory for the three files."
)
@click.option(
    "--key-type", type=click.Choice([each.value for each in KeyType]), default=KeyType.EC_P256.value, show_default=True
)
@click.option("--common-name", default="devicesim shared CA", show_default=True)
@click.option("--days", type=click.IntRange(1, 36_500), default=3650, show_default=True, help="Validity.")
def create(out: Path, key_type: str, common_name: str, days: int) -> None:
    """Make a CA and a fleet secret: ca.pem, ca.key and fleet.secret (both 0600) in DIR."""
    try:
        authority = new_shared_authority(
            common_name, KeyType(key_type), now=datetime.now(UTC), validity=timedelta(days=days)
        )
    except ValueError as exc:
        raise KeyMaterialError(f"common name {common_name!r} cannot stand in a certificate: {exc}") from exc
    assert authority.key is not None
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise KeyMaterialError(f"{out} cannot be made: {exc.strerror}") from exc
    for name in ("ca.pem", "ca.key", "fleet.secret"):
        if (out / name).exists():
            raise KeyMaterialError(f"{out / name} exists and is not overwritten", hint="choose another directory")
    keyfile.write_private(out / "ca.key", private_key_pem(authority.key))
    keyfile.write_private(out / "fleet.secret", keyfile.format_secret(keyfile.new_secret()))
    keyfile.write_public(out / "ca.pem", certificate_pem(authority.certificate))
    click.echo(f"CA certificate id {authority.certificate_id}")
    click.echo(f"wrote {out / 'ca.pem'}, {out / 'ca.key'} and {out / 'fleet.secret'}; name them in a fleet file:")
    click.echo(f'\n[ca]\ncertificate = "{out / "ca.pem"}"\nkey = "{out / "ca.key"}"\nsecret = "{out / "fleet.secret"}"')


@command.command("verify-cert")
@click.option("--ca", "ca_path", type=click.Path(path_type=Path), required=True, help="PEM certificate of the CA.")
@click.option("--ca-key", type=click.Path(path_type=Path), required=True, help="PEM private key of the CA.")
@click.option("--registration-code", required=True, help="Of the account and Region: aws iot get-registration-code.")
@click.option("--out", default="-", show_default=True, help="File to write, or - for standard output.")
@click.option("--days", type=click.IntRange(1, 3650), default=1, show_default=True, help="Validity.")
def verify_cert(ca_path: Path, ca_key: Path, registration_code: str, out: str, days: int) -> None:
    """Sign the verification certificate for a registration code (DEFAULT mode needs one).

    Its own key is thrown away: nobody needs it.
    """
    authority = Authority.load(keyfile.read(ca_path), keyfile.read(ca_key), str(ca_path))
    now = datetime.now(UTC)
    identity = authority.verification_certificate(
        registration_code, not_before=now - timedelta(minutes=5), not_after=now + timedelta(days=days)
    )
    pem = certificate_pem(identity.certificate)
    if out == "-":
        sys.stdout.write(pem)
    else:
        keyfile.write_public(Path(out), pem)
        click.echo(f"wrote {out}; pass it as --verification-certificate file://{out}")


@command.command()
@click.argument("pem", type=click.Path(path_type=Path))
def show(pem: Path) -> None:
    """What a CA certificate says, as AWS IoT will see it."""
    certificate = load_certificates(keyfile.read(pem), str(pem))[0]
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        ca = f"CA:{'TRUE' if constraints.ca else 'FALSE'}"
    except x509.ExtensionNotFound:
        ca = "absent: AWS IoT refuses it as a CA"
    rows = {
        "certificate id": certificate_id(certificate),
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial number": f"{certificate.serial_number:x}",
        "not before": certificate.not_valid_before_utc.isoformat(),
        "not after": certificate.not_valid_after_utc.isoformat(),
        "key": _key(certificate),
        "signature": certificate.signature_algorithm_oid._name,
        "basic constraints": ca,
    }
    for name, value in rows.items():
        click.echo(f"{name:18} {value}")


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return f"{type(key).__name__}: AWS IoT takes EC and RSA"
