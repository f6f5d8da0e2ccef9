"""RegisterThing as CloudTrail would tell of it. Pure.

AWS has no other place where the failure of just-in-time provisioning is written down for the account's owner
(aws-iot-behaviour.md §3: "RegisterThing by principal iot-provisioning", S). The members are those of every CloudTrail
record of a management event (CloudTrail user guide, "Record contents", D); which of them a record of JITP has, and with
what values, is put together from the two that people have shown (§3, SE272476 and CM-perm, S) and otherwise inferred.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

SESSION_NAME = "iot-provisioning"
"""Of the session in which AWS IoT acts in the template's role (S)."""
SERVICE = "iot.amazonaws.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterThing:
    """One call. Compact: tens of thousands are kept, and written out only when somebody looks."""

    account_id: str
    region: str
    time: float
    """Seconds since the Unix epoch."""
    event_id: str
    request_id: str
    role_arn: str
    template_body: str
    parameters: Mapping[str, str]
    error: str | None = None
    """Name of AWS's exception; ``None`` when it succeeded."""
    message: str = ""
    resource_arns: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> Mapping[str, object]:
        """The record, as in a CloudTrail log file."""
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record: dict[str, object] = {
            "eventVersion": "1.09",
            "userIdentity": self._identity(when),
            "eventTime": when,
            "eventSource": SERVICE,
            "eventName": "RegisterThing",
            "awsRegion": self.region,
            "sourceIPAddress": SERVICE,
            "userAgent": SERVICE,
        }
        if self.error is not None:
            record |= {"errorCode": self.error, "errorMessage": self.message}
        return record | {
            "requestParameters": {"templateBody": self.template_body, "parameters": dict(self.parameters)},
            "responseElements": None if self.error else {"resourceArns": dict(self.resource_arns)},
            "requestID": self.request_id,
            "eventID": self.event_id,
            "readOnly": False,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": self.account_id,
            "eventCategory": "Management",
        }

    def _identity(self, when: str) -> Mapping[str, object]:
        arn_partition = self.role_arn.partition(":")[2].partition(":")[0] or "aws"
        role_name = self.role_arn.rpartition("/")[2]
        role_id = "AROA" + base64.b32encode(sha256(self.role_arn.encode()).digest()).decode()[:17]
        return {
            "type": "AssumedRole",
            "principalId": f"{role_id}:{SESSION_NAME}",
            "arn": f"arn:{arn_partition}:sts::{self.account_id}:assumed-role/{role_name}/{SESSION_NAME}",
            "accountId": self.account_id,
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role",
                    "principalId": role_id,
                    "arn": self.role_arn,
                    "accountId": self.account_id,
                    "userName": role_name,
                },
                "attributes": {"creationDate": when, "mfaAuthenticated": "false"},
            },
            "invokedBy": SERVICE,
        }
