"""Everything of the emulator that decides, joined. Pure: :mod:`~devicesim.emulator.service` puts sockets around it, and
tests a world without any.

    core = Core(settings=Settings(), clock=clock, randbytes=secrets.token_bytes, uniform=random.uniform)
    core.plane.open(...)
"""

from collections.abc import Callable, Mapping

from devicesim.emulator.api import ControlPlane
from devicesim.emulator.clock import Clock
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.history import History
from devicesim.emulator.provisioning import validate_template
from devicesim.emulator.registry import Registry
from devicesim.emulator.settings import Settings


class Core:
    """One emulator without its sockets."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        randbytes: Callable[[int], bytes],
        uniform: Callable[[float, float], float],
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """``uniform(low, high)`` draws delays; ``new_id`` makes client ids and trace ids (left out: the registry's)."""
        self.settings = settings
        self.clock = clock
        self.registry = Registry(
            clock=clock.wall,
            randbytes=randbytes,
            template_validator=validate_template,
            settings=settings.control,
        )
        self.history = History(settings.history_size)
        self.plane = DataPlane(
            self.registry,
            settings=settings,
            record=self.history,
            clock=clock,
            uniform=uniform,
            new_id=new_id or self.registry.environment.uuid,
        )

    def control_plane(self, access_keys: Mapping[str, str] | None = None) -> ControlPlane:
        """The API, which acts on this core; ``access_keys`` maps access key ids to account ids."""
        return ControlPlane(self.registry, access_keys=access_keys, commit=lambda: self.plane.commit())
