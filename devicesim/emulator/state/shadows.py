"""Device shadows, classic and named. What documents are is :mod:`devicesim.emulator.shadows`'s.

A shadow belongs to a thing's name, not to the thing: deleting the thing leaves it (developer guide, D), and AWS's own
SDK tests make shadows of names that no thing has (aws-iot-device-sdk-python-v2, test_shadow.py, S).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from devicesim.emulator import shadows
from devicesim.emulator.apierrors import conflict, resource_not_found
from devicesim.emulator.shadows import Content, Limits, Update
from devicesim.emulator.state.environment import Environment
from devicesim.emulator.state.partition import Partition
from devicesim.emulator.state.records import DeletedShadow, Shadow


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowUpdate:
    """An update that was done."""

    request: Update
    previous: Content | None
    """``None`` when the update made the shadow."""
    current: Content
    now: float


class Shadows:
    """See the module."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        settings = environment.settings
        self._limits = Limits(
            max_bytes=settings.shadow_max_bytes,
            max_depth=settings.shadow_max_depth,
            keeps_empty_objects=settings.shadow_keeps_empty_objects,
        )

    def get(self, partition: Partition, thing_name: str, name: str | None = None) -> Content:
        """``ResourceNotFoundException`` when there is none; ``name`` is ``None`` for the classic shadow."""
        self._check_thing(partition, thing_name)
        record = partition.shadows.get(shadow_key(thing_name, name))
        if record is None:
            raise resource_not_found(f"No shadow exists with name: '{name or thing_name}'")
        return content_of(record)

    def update(self, partition: Partition, thing_name: str, name: str | None, payload: bytes) -> ShadowUpdate:
        """Make or change it as the request state document ``payload`` says."""
        request = shadows.read_update(payload, self._limits)
        self._check_thing(partition, thing_name)
        now = self._environment.now()
        key = shadow_key(thing_name, name)
        record = partition.shadows.get(key)
        version = self._last_version(partition, key, now) if record is None else record.version
        if request.version is not None and request.version != version:
            raise conflict("Version conflict")
        previous = None if record is None else content_of(record)
        current = shadows.apply(previous, request, version=version + 1, now=now, limits=self._limits)
        partition.put_shadow(
            Shadow(
                thing_name=thing_name,
                name=name,
                version=current.version,
                state=shadows.dump(current.state).decode("utf-8"),
                metadata=shadows.dump(current.metadata).decode("utf-8"),
            )
        )
        partition.deleted_shadows.pop(key, None)
        return ShadowUpdate(request=request, previous=previous, current=current, now=now)

    def delete(self, partition: Partition, thing_name: str, name: str | None = None) -> int:
        """Answers the version that went. It is remembered for a while, so that a new shadow counts on from it."""
        content = self.get(partition, thing_name, name)
        now = self._environment.now()
        key = shadow_key(thing_name, name)
        partition.remove_shadow(partition.shadows[key])
        version = content.version + (1 if self._environment.settings.shadow_delete_is_a_version else 0)
        self._forget_deleted(partition, now)
        partition.deleted_shadows[key] = DeletedShadow(version=version, deleted=now)
        return content.version

    def named(self, partition: Partition, thing_name: str) -> Sequence[str]:
        """Names of the thing's shadows in order, the classic one not among them; empty for an unknown thing (D)."""
        return sorted(partition.named_shadows.get(thing_name, ()))

    def _check_thing(self, partition: Partition, thing_name: str) -> None:
        if self._environment.settings.shadow_needs_thing and thing_name not in partition.things:
            raise resource_not_found("Thing not found")

    def _last_version(self, partition: Partition, key: str, now: float) -> int:
        deleted = partition.deleted_shadows.get(key)
        if deleted is None or now - deleted.deleted > self._environment.settings.shadow_version_retention:
            return 0
        return deleted.version

    def _forget_deleted(self, partition: Partition, now: float) -> None:
        """Drop what is past its time; they stand in the order in which they were deleted."""
        limit = now - self._environment.settings.shadow_version_retention
        deleted = partition.deleted_shadows
        while deleted:
            oldest = next(iter(deleted))
            if deleted[oldest].deleted >= limit:
                return
            del deleted[oldest]


def shadow_key(thing_name: str, name: str | None) -> str:
    """Neither name can have a slash."""
    return thing_name if name is None else f"{thing_name}/{name}"


def content_of(record: Shadow) -> Content:
    return Content(state=json.loads(record.state), metadata=json.loads(record.metadata), version=record.version)
