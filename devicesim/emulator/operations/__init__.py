"""The handlers of the control plane's operations, one module a family; ``table`` has them all by name.

A handler is synchronous and atomic: it reads its parameters (checked against the service model), calls the registry and
answers members of the operation's output by name. The rules of AWS stand in ``emulator.state``, not here.
"""
