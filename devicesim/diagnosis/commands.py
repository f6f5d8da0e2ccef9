"""Fixes as commands of the AWS CLI, with the account's Region and ids filled in. Pure.

The profile is left to whoever types them, and what is not known stands in capitals. Options are those of version 2.
"""

import shlex


def aws(operation: str, region: str, **options: str | bool) -> str:
    """``aws iot <operation> ...``: an option that is true is a flag, one that is false is left out."""
    words = ["aws", "iot", operation]
    for name, value in options.items():
        if value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if isinstance(value, str):
            words.append(value)
    return shlex.join([*words, "--region", region])


def cert_arn(region: str, account_id: str, certificate_id: str) -> str:
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return f"arn:{partition}:iot:{region}:{account_id}:cert/{certificate_id}"


def register_ca(region: str, mode: str, *, template: bool) -> str:
    """Registering the CA, ACTIVE and with automatic registration; with a template for JITP."""
    return aws(
        "register-ca-certificate",
        region,
        ca_certificate="file://ca.pem",
        certificate_mode=mode,
        verification_certificate="file://verification.pem" if mode == "DEFAULT" else False,
        set_as_active=True,
        allow_auto_registration=True,
        registration_config="file://registration-config.json" if template else False,
    )


def describe_endpoint(region: str) -> str:
    return aws("describe-endpoint", region, endpoint_type="iot:Data-ATS")


def handshake(host: str, port: int, server_name: str) -> str:
    """A TLS handshake by hand."""
    address = f"[{host}]" if ":" in host else host
    words = ["openssl", "s_client", "-connect", f"{address}:{port}", "-servername", server_name]
    return f"{shlex.join(words)} </dev/null"
