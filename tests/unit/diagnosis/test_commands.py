"""Commands of fixes: words that a shell takes as they are meant."""

import shlex

import pytest

from devicesim.diagnosis import commands


def test_options_are_flags_values_or_left_out() -> None:
    command = commands.aws("delete-certificate", "eu-central-1", certificate_id="ab12", force_delete=True, other=False)

    assert command == "aws iot delete-certificate --certificate-id ab12 --force-delete --region eu-central-1"


def test_values_of_others_are_quoted() -> None:
    command = commands.aws("create-thing-group", "eu-central-1", thing_group_name="a'; rm -rf $HOME")

    assert shlex.split(command)[4] == "a'; rm -rf $HOME"


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_arn_has_the_partition_of_its_region(region: str, partition: str) -> None:
    assert commands.cert_arn(region, "111122223333", "ab") == f"arn:{partition}:iot:{region}:111122223333:cert/ab"


def test_handshake_takes_an_ipv6_address() -> None:
    assert (
        commands.handshake("::1", 8883, "name") == "openssl s_client -connect '[::1]:8883' -servername name </dev/null"
    )
