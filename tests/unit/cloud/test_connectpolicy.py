"""Why a policy does not let a device connect, in words."""

import json

import pytest

from devicesim.cloud.connectpolicy import why_denied


def policy(resource: str | list[str], *, effect: str = "Allow", action: str | list[str] = "iot:Connect") -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ({}, "no policy is attached to the certificate"),
        (
            {"p": policy("arn:x:client/other")},
            "policy 'p' allows iot:Connect on arn:x:client/other, not as client 'me'",
        ),
        ({"p": policy("*", effect="Deny")}, "policy 'p' denies iot:Connect on *"),
        ({"p": policy("*", action="iot:Publish")}, "policy 'p' says nothing of iot:Connect"),
        ({"p": ""}, "policy 'p' could not be read"),
        ({"p": "[]"}, "policy 'p' says nothing of iot:Connect"),
        (
            {"p": policy(["a", "b", "c", "d"], action=["iot:Publish", "iot:*"])},
            "policy 'p' allows iot:Connect on a, b, c and 1 more, not as client 'me'",
        ),
        (
            {"p": policy("arn:x:client/${iot:Connection.Thing.ThingName}")},
            (
                "policy 'p' takes the client id to be the name of a thing of the certificate; 'me' is not"
                " (things: 'robot')"
            ),
        ),
    ],
)
def test_each_policy_is_told_with_what_it_says_of_connecting(documents: dict[str, str], says: str) -> None:
    assert why_denied(documents, "me", ["robot"]) == says


def test_every_policy_is_told() -> None:
    told = why_denied({"p": policy("a"), "q": policy("b", effect="Deny")}, "me", [])

    assert told == "policy 'p' allows iot:Connect on a, not as client 'me'; policy 'q' denies iot:Connect on b"
