"""The fifteen causes of aws-iot-behaviour.md §9, by its numbers. Pure data."""

from devicesim.diagnosis.findings import Cause

FIRST_DROP = Cause(
    number=1,
    id="first-drop",
    title="the drop of a new certificate's first connection was taken for final",
)
CA = Cause(number=2, id="ca", title="the CA does not register here: absent, INACTIVE, auto-registration DISABLE")
SNI = Cause(number=3, id="sni", title="the server name (SNI) is missing or another account's")
ISSUER = Cause(
    number=4, id="issuer", title="the issuer is not found: chain not sent, other key, several CAs of one subject"
)
TEMPLATE = Cause(number=5, id="template", title="the provisioning template fails for this certificate")
ROLE = Cause(number=6, id="role", title="the provisioning role cannot be assumed, or may too little")
POLICY = Cause(number=7, id="policy", title="no attached policy lets the device connect")
THROTTLED = Cause(number=8, id="throttled", title="more connections or registrations than the quotas allow")
ROOT = Cause(number=9, id="root", title="the device does not trust the server's root certificate")
CA_REFUSED = Cause(number=10, id="ca-refused", title="the registration of the CA was refused")
CLIENT_ID = Cause(number=11, id="client-id", title="another connection has the same client id")
ALPN = Cause(number=12, id="alpn", title="port 443 without the ALPN protocol x-amzn-mqtt-ca")
CERTIFICATE = Cause(
    number=13, id="certificate", title="the certificate is not ACTIVE or not valid now, or a clock is wrong"
)
ENDPOINT = Cause(number=14, id="endpoint", title="the endpoint's name is a legacy or hand-made one")
PORT = Cause(number=15, id="port", title="wrong port, or a TLS handshake that fails for neither name nor trust")

CATALOGUE = (
    FIRST_DROP,
    CA,
    SNI,
    ISSUER,
    TEMPLATE,
    ROLE,
    POLICY,
    THROTTLED,
    ROOT,
    CA_REFUSED,
    CLIENT_ID,
    ALPN,
    CERTIFICATE,
    ENDPOINT,
    PORT,
)
