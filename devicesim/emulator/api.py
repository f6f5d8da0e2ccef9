"""The control plane: one request in, one response out, for every account and Region. Pure.

Whose call it is and which service it means stand in the Signature Version 4 scope, so one port serves ``iot`` and
``sts``, as ``AWS_ENDPOINT_URL`` expects.
"""

from collections.abc import Callable, Mapping

import botocore.session
from botocore.model import OperationModel

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.awsquery import AWSQuery
from devicesim.emulator.credentials import Caller, identify
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse
from devicesim.emulator.operations import table
from devicesim.emulator.operations.call import Call, Handler
from devicesim.emulator.registry import Registry
from devicesim.emulator.restjson import RestJSON

DEFAULT_ACCOUNT = "000000000000"
"""The account of access keys that are in no table and are not twelve digits; the same as LocalStack's."""


def _nothing() -> None:
    pass


class ControlPlane:
    """The API of ``iot`` and ``sts``."""

    def __init__(
        self,
        registry: Registry,
        *,
        access_keys: Mapping[str, str] | None = None,
        default_account: str = DEFAULT_ACCOUNT,
        commit: Callable[[], None] = _nothing,
    ) -> None:
        """``access_keys`` maps access key ids to account ids; see :func:`devicesim.emulator.credentials.identify`.
        ``commit`` is called before an answer is given."""
        session = botocore.session.get_session()
        self._registry = registry
        self._access_keys = dict(access_keys or {})
        self._default_account = default_account
        self._commit = commit
        self.iot = RestJSON(session.get_service_model("iot"))
        self.sts = AWSQuery(session.get_service_model("sts"))

    def request_id(self) -> str:
        return self._registry.environment.uuid()

    def handle(self, request: HTTPRequest, request_id: str) -> HTTPResponse:
        """Answer a request. Anything raised is a bug of the emulator: answer it with :meth:`failure`."""
        try:
            response = self._answer(request, request_id)
        except APIError as error:
            return self.refuse(request, error, request_id)
        self._commit()
        return response

    def _answer(self, request: HTTPRequest, request_id: str) -> HTTPResponse:
        caller = identify(request, access_keys=self._access_keys, default_account=self._default_account)
        if caller.service == "sts":
            return self._call_sts(caller, request, request_id)
        if caller.service != "iot":
            raise _not_emulated(f"the service {caller.service}")
        return self._call_iot(caller, request)

    def refuse(self, request: HTTPRequest, error: APIError, request_id: str) -> HTTPResponse:
        """An error in the protocol that the request speaks."""
        if _speaks_query(request):
            return self.sts.serialise_error(error, request_id)
        return self.iot.serialise_error(error)

    def failure(self, request: HTTPRequest, request_id: str) -> HTTPResponse:
        """The answer to a request in which the emulator failed."""
        message = f"devicesim failed on this request; its log has the reason under request id {request_id}"
        return self.refuse(request, APIError("InternalFailureException", message), request_id)

    def _call_iot(self, caller: Caller, request: HTTPRequest) -> HTTPResponse:
        operation = self.iot.route(request.method, request.path)
        handler = _handler(table.IOT, operation)
        call = self._call(caller, operation, self.iot.parse(operation, request))
        return self.iot.serialise(operation, handler(call))

    def _call_sts(self, caller: Caller, request: HTTPRequest, request_id: str) -> HTTPResponse:
        operation = self.sts.route(request)
        handler = _handler(table.STS, operation)
        call = self._call(caller, operation, self.sts.parse(operation, request))
        return self.sts.serialise(operation, handler(call), request_id)

    def _call(self, caller: Caller, operation: OperationModel, parameters: Mapping[str, object]) -> Call:
        return Call(
            operation=operation.name,
            registry=self._registry,
            partition=self._registry.partition(caller.account_id, caller.region),
            caller=caller,
            parameters=parameters,
        )


def _handler(handlers: Mapping[str, Handler], operation: OperationModel) -> Handler:
    handler = handlers.get(operation.name)
    if handler is None:
        raise _not_emulated(f"the operation {operation.name}")
    return handler


def _not_emulated(what: str) -> APIError:
    """501, which no SDK retries."""
    return APIError("NotImplementedException", f"devicesim does not emulate {what}")


def _speaks_query(request: HTTPRequest) -> bool:
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return form or "Action=" in request.query
