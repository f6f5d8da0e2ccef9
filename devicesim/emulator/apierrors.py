"""The errors that AWS IoT answers, one constructor each.

The name is the exception's name in AWS's own service model, from which ``restjson`` takes the HTTP status and checks
the extra fields. The message is what the caller reads.
"""


class APIError(Exception):
    """A call is refused, and the caller is told why. Never a bug of the emulator, and not logged as one."""

    def __init__(self, code: str, message: str, **fields: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.fields = fields
        """Further members of the error's shape, spelt as in the model (``resourceId``)."""


def certificate_conflict(message: str) -> APIError:
    """More than one registered CA could have signed the certificate."""
    return APIError("CertificateConflictException", message)


def certificate_state(message: str) -> APIError:
    """The certificate's status does not allow the call."""
    return APIError("CertificateStateException", message)


def certificate_validation(message: str) -> APIError:
    """The certificate itself is not acceptable."""
    return APIError("CertificateValidationException", message)


def conflict(message: str) -> APIError:
    """The version given is not the shadow's."""
    return APIError("ConflictException", message)


def conflicting_resource_update(message: str) -> APIError:
    """The resource is in a state that the update contradicts."""
    return APIError("ConflictingResourceUpdateException", message)


def delete_conflict(message: str) -> APIError:
    """The resource is attached to others."""
    return APIError("DeleteConflictException", message)


def invalid_request(message: str) -> APIError:
    """The request breaks a rule that has no exception of its own."""
    return APIError("InvalidRequestException", message)


def limit_exceeded(message: str) -> APIError:
    """A limit on the number of resources is reached."""
    return APIError("LimitExceededException", message)


def malformed_policy(message: str) -> APIError:
    """The policy document is not one."""
    return APIError("MalformedPolicyException", message)


def not_configured(message: str) -> APIError:
    """What is asked for was never set."""
    return APIError("NotConfiguredException", message)


def registration_code_validation(message: str) -> APIError:
    """The verification certificate does not carry this account's registration code."""
    return APIError("RegistrationCodeValidationException", message)


def request_entity_too_large(message: str) -> APIError:
    """A shadow, or the request that would change it, is too long."""
    return APIError("RequestEntityTooLargeException", message)


def resource_already_exists(message: str, *, resource_id: str, resource_arn: str) -> APIError:
    """There is one already; AWS says which."""
    return APIError("ResourceAlreadyExistsException", message, resourceId=resource_id, resourceArn=resource_arn)


def resource_not_found(message: str) -> APIError:
    """There is no such resource in this account and Region."""
    return APIError("ResourceNotFoundException", message)


def resource_registration_failure(message: str) -> APIError:
    """A template's resources could not be made (RegisterThing, and so JITP)."""
    return APIError("ResourceRegistrationFailureException", message)


def transfer_already_completed(message: str) -> APIError:
    """The transfer of the certificate is not pending any more."""
    return APIError("TransferAlreadyCompletedException", message)


def transfer_conflict(message: str) -> APIError:
    """Something stands against the transfer of the certificate."""
    return APIError("TransferConflictException", message)


def unsupported_document_encoding(message: str) -> APIError:
    """A shadow document is not UTF-8."""
    return APIError("UnsupportedDocumentEncodingException", message)


def version_conflict(message: str) -> APIError:
    """``expectedVersion`` is not the version of the record."""
    return APIError("VersionConflictException", message)


def versions_limit_exceeded(message: str) -> APIError:
    """No further version of the policy or template can be kept."""
    return APIError("VersionsLimitExceededException", message)
