"""The control plane: one request in, one response out, for every account and Region. Pure.

Whose call it is and which service it means stand in the Signature Version 4 scope, so one port serves ``iot``,
``iot-data``, ``sts``, ``cloudtrail`` and ``logs``, as ``AWS_ENDPOINT_URL`` expects.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from urllib.parse import unquote

import botocore.session
from botocore.model import OperationModel, ServiceModel

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.awsjson import AWSJSON, TARGET
from devicesim.emulator.awsquery import AWSQuery
from devicesim.emulator.credentials import Caller, Credentials
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse
from devicesim.emulator.operations import table
from devicesim.emulator.operations.call import Call, Handler
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.restjson import RestJSON
from devicesim.emulator.state.destinations import token_owner

DEFAULT_ACCOUNT = "000000000000"
"""The account of access keys that are in no table and are not twelve digits; the same as LocalStack's."""

_CONTROL_SERVICES = frozenset({"iot", "execute-api"})
"""Names that calls of the control plane are signed for; SDKs from before 2023 use the latter (aws CLI 2.9, M)."""
_DATA_SERVICES = frozenset({"iotdata", "iotdevicegateway"})
"""Signing names of ``iot-data``: of today's SDKs and of older ones (developer guide "device shadow REST API", D)."""
_DATA_SCOPE = re.compile(r"(?:/|%2F)(?:iotdata|iotdevicegateway)(?:/|%2F)aws4_request", re.IGNORECASE)

_CONFIRM = "/confirmdestination/"


def _nothing() -> None:
    pass


class ControlPlane:
    """The API of ``iot``, ``iot-data``, ``sts``, and of the services that tell what happened."""

    def __init__(
        self,
        registry: Registry,
        *,
        access_keys: Mapping[str, str] | None = None,
        default_account: str = DEFAULT_ACCOUNT,
        commit: Callable[[], None] = _nothing,
        data: Mapping[str, Handler] | None = None,
        told: Mapping[str, Mapping[str, Handler]] | None = None,
        gate: Callable[[Partition, str, str], None] | None = None,
        calls: Counter[tuple[str, str, str]] | None = None,
    ) -> None:
        """``access_keys`` maps access key ids to account ids; see :class:`devicesim.emulator.credentials.Credentials`.
        ``commit`` is called before an answer is given. ``data`` has the operations of ``iot-data``, ``told`` those of
        services that tell what happened, by their signing names. ``gate`` is asked with account, service and operation
        before each call, and raises what is against it. ``calls`` counts them by service, operation and error code; of
        what was no call of an operation these are empty.
        """
        self._registry = registry
        self._credentials = Credentials(
            registry.sessions,
            access_keys=access_keys or {},
            default_account=default_account,
            settings=registry.environment.settings,
        )
        self._commit = commit
        self._gate = gate
        self.iot = RestJSON(_model("iot"))
        self.iot_data = RestJSON(_model("iot-data"))
        self.sts = AWSQuery(_model("sts"))
        self._data = dict(data or {})
        self._told = {service: (AWSJSON(_model(service)), handlers) for service, handlers in (told or {}).items()}
        self._calls: Counter[tuple[str, str, str]] = Counter() if calls is None else calls
        self._under_way = ("", "")

    def request_id(self) -> str:
        return self._registry.environment.uuid()

    def handle(self, request: HTTPRequest, request_id: str) -> HTTPResponse:
        """Answer a request. Anything raised is a bug of the emulator: answer it with :meth:`failure`."""
        self._under_way = ("", "")
        try:
            response = self._answer(request, request_id)
        except APIError as error:
            self._calls[*self._under_way, error.code] += 1
            return self.refuse(request, error, request_id)
        self._commit()
        self._calls[*self._under_way, "OK"] += 1
        return response

    def _answer(self, request: HTTPRequest, request_id: str) -> HTTPResponse:
        _check_same_site(request)
        caller = _browser(request) or self._credentials.identify(request, now=self._registry.environment.now())
        if caller.service == "sts":
            return self._call_sts(caller, request, request_id)
        if caller.service in _DATA_SERVICES:
            return self._call_data(caller, request)
        if caller.service in self._told:
            return self._call_told(caller, request)
        if caller.service not in _CONTROL_SERVICES:
            raise _not_emulated(f"the service {caller.service}")
        return self._call_iot(caller, request)

    def refuse(self, request: HTTPRequest, error: APIError, request_id: str) -> HTTPResponse:
        """An error in the protocol that the request speaks."""
        if _speaks_query(request):
            return self.sts.serialise_error(error, request_id)
        if _speaks_data(request):
            return self.iot_data.serialise_error(error)
        for protocol, _ in self._told.values() if TARGET in request.headers else ():
            if protocol.speaks(request):
                return protocol.serialise_error(error)
        return self.iot.serialise_error(error)

    def failure(self, request: HTTPRequest, request_id: str) -> HTTPResponse:
        """The answer to a request in which the emulator failed."""
        message = f"devicesim failed on this request; its log has the reason under request id {request_id}"
        error = APIError("InternalFailureException", message)
        self._calls[*self._under_way, error.code] += 1
        return self.refuse(request, error, request_id)

    def _call_iot(self, caller: Caller, request: HTTPRequest) -> HTTPResponse:
        operation = self._routed("iot", self.iot.route(request.method, request.path))
        handler = _handler(table.IOT, operation)
        self._ask(caller, "iot", operation)
        call = self._call(caller, operation, self.iot.parse(operation, request))
        return self.iot.serialise(operation, handler(call))

    def _call_data(self, caller: Caller, request: HTTPRequest) -> HTTPResponse:
        operation = self._routed("iot-data", self.iot_data.route(request.method, request.path))
        handler = _handler(self._data, operation)
        self._ask(caller, "iot-data", operation)
        call = self._call(caller, operation, self.iot_data.parse(operation, request))
        return self.iot_data.serialise(operation, handler(call))

    def _call_told(self, caller: Caller, request: HTTPRequest) -> HTTPResponse:
        protocol, handlers = self._told[caller.service]
        operation = self._routed(caller.service, protocol.route(request))
        handler = _handler(handlers, operation)
        self._ask(caller, caller.service, operation)
        call = self._call(caller, operation, protocol.parse(operation, request))
        return protocol.serialise(operation, handler(call))

    def _call_sts(self, caller: Caller, request: HTTPRequest, request_id: str) -> HTTPResponse:
        operation = self._routed("sts", self.sts.route(request))
        handler = _handler(table.STS, operation)
        call = self._call(caller, operation, self.sts.parse(operation, request))
        return self.sts.serialise(operation, handler(call), request_id)

    def _routed(self, service: str, operation: OperationModel) -> OperationModel:
        self._under_way = (service, operation.name)
        return operation

    def _ask(self, caller: Caller, service: str, operation: OperationModel) -> None:
        if self._gate is not None:
            self._gate(self._registry.partition(caller.account_id, caller.region), service, operation.name)

    def _call(self, caller: Caller, operation: OperationModel, parameters: Mapping[str, object]) -> Call:
        return Call(
            operation=operation.name,
            registry=self._registry,
            partition=self._registry.partition(caller.account_id, caller.region),
            caller=caller,
            parameters=parameters,
        )


@cache
def _model(service: str) -> ServiceModel:
    """Read once for all emulators of this process: it takes a tenth of a second."""
    model: ServiceModel = botocore.session.get_session().get_service_model(service)
    return model


def _handler(handlers: Mapping[str, Handler], operation: OperationModel) -> Handler:
    handler = handlers.get(operation.name)
    if handler is None:
        raise _not_emulated(f"the operation {operation.name}")
    return handler


def _check_same_site(request: HTTPRequest) -> None:
    """Refuse what a web page of another site sends: a presigned request needs no header that a browser asks us about
    first, any key will do, and the port is on loopback, where every page's scripts can send to."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != request.headers.get("host", "").lower():
        raise APIError("AccessDeniedException", f"The request comes from a web page of {origin}")


def _browser(request: HTTPRequest) -> Caller | None:
    """Whoever browses to the ``enableUrl`` of a rule's destination has no credentials but the token in the URL."""
    signed = "authorization" in request.headers or "X-Amz-Credential" in request.query
    if signed or request.method != "GET" or not request.path.startswith(_CONFIRM):
        return None
    owner = token_owner(unquote(request.path.removeprefix(_CONFIRM)))
    if owner is None:
        return None
    return Caller(access_key_id="", account_id=owner[0], region=owner[1], service="iot")


def _not_emulated(what: str) -> APIError:
    """501, which no SDK retries."""
    return APIError("NotImplementedException", f"devicesim does not emulate {what}")


def _speaks_query(request: HTTPRequest) -> bool:
    """Query services have one path; what curl sends to a path of REST-JSON is called a form, too."""
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return request.path in ("", "/") and (form or "Action=" in request.query)


def _speaks_data(request: HTTPRequest) -> bool:
    return _DATA_SCOPE.search(request.headers.get("authorization") or request.query) is not None
