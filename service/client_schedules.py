"""Schedules, nights and channels through the typed client: `client.schedules`, `client.channels`."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from service.schedules.schemas import (
    ChannelList,
    ChannelRead,
    DeliveryPage,
    DeliveryRead,
    NightPage,
    NightRead,
    SchedulePage,
    ScheduleRead,
    TrendRead,
)
from service.studies.schemas import API

if TYPE_CHECKING:
    import httpx

M = TypeVar("M", bound=BaseModel)
#: Sends one request: method, path, and httpx's `json` and `params`. Raises the kernel's errors.
Send = Callable[..., "httpx.Response"]


class _Calls:
    def __init__(self, send: Send) -> None:
        self._send = send

    def _ask(self, model: type[M], method: str, path: str, **options: Any) -> M:
        return model.model_validate_json(self._send(method, path, **options).content)


class Schedules(_Calls):
    """The schedules of a service. `which` is a schedule's id, or its name where that is unique."""

    def create(self, document: Mapping[str, Any]) -> ScheduleRead:
        """Make a schedule: name, cron, time_zone, study, concurrency, baseline, sensitivity, paused."""
        return self._ask(ScheduleRead, "POST", f"{API}/schedules", json=document)

    def list(self, *, project: str | None = None, limit: int = 50, cursor: str | None = None) -> SchedulePage:
        """One page of schedules, newest first."""
        params = {"project": project, "limit": limit, "cursor": cursor}
        return self._ask(SchedulePage, "GET", f"{API}/schedules", params=params)

    def all(self, *, project: str | None = None) -> Iterator[ScheduleRead]:
        """Every schedule, page by page."""
        cursor: str | None = None
        while True:
            page = self.list(project=project, limit=200, cursor=cursor)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def get(self, which: str) -> ScheduleRead:
        """One schedule."""
        return self._ask(ScheduleRead, "GET", _path(which))

    def change(self, which: str, changes: Mapping[str, Any]) -> ScheduleRead:
        """Change the fields that are given."""
        return self._ask(ScheduleRead, "PATCH", _path(which), json=changes)

    def delete(self, which: str) -> None:
        """Delete a schedule with its history; the studies stay."""
        self._send("DELETE", _path(which))

    def pause(self, which: str) -> ScheduleRead:
        """No more nights until it is resumed."""
        return self._ask(ScheduleRead, "POST", f"{_path(which)}/pause")

    def resume(self, which: str) -> ScheduleRead:
        """Go on with the next slot."""
        return self._ask(ScheduleRead, "POST", f"{_path(which)}/resume")

    def run(self, which: str) -> NightRead:
        """Run a night now. Not repeated when the connection breaks: a second night would be another one."""
        return self._ask(NightRead, "POST", f"{_path(which)}/run", once=True)

    def pin(self, which: str, study_id: str) -> ScheduleRead:
        """Compare with this completed study until it is unpinned."""
        return self._ask(ScheduleRead, "PUT", f"{_path(which)}/baseline", json={"study": study_id})

    def unpin(self, which: str) -> ScheduleRead:
        """Let the baseline go."""
        return self._ask(ScheduleRead, "DELETE", f"{_path(which)}/baseline")

    def nights(
        self, which: str, *, limit: int = 50, cursor: str | None = None, judgements: bool = False
    ) -> NightPage:  # fmt: skip
        """One page of a schedule's nights, newest first."""
        params = {"limit": limit, "cursor": cursor, "judgements": "true" if judgements else None}
        return self._ask(NightPage, "GET", f"{_path(which)}/nights", params=params)

    def night(self, which: str, night_id: int) -> NightRead:
        """One night with its judgement."""
        return self._ask(NightRead, "GET", f"{_path(which)}/nights/{night_id}")

    def trend(self, which: str, *, limit: int = 90) -> TrendRead:
        """Every figure over the last judged nights, oldest first."""
        return self._ask(TrendRead, "GET", f"{_path(which)}/trend", params={"limit": limit})


class Channels(_Calls):
    """Where notifications go, and what became of them. `which` is a channel's id, or its name where that is unique."""

    def create(self, document: Mapping[str, Any]) -> ChannelRead:
        """Make a channel: name, kind, target, project, schedule, events, secret. The answer alone has the secret."""
        return self._ask(ChannelRead, "POST", f"{API}/channels", json=document)

    def list(self, *, project: str | None = None) -> ChannelList:
        """All channels."""
        return self._ask(ChannelList, "GET", f"{API}/channels", params={"project": project})

    def delete(self, which: str) -> None:
        """Delete a channel with its delivery log."""
        self._send("DELETE", f"{API}/channels/{_quoted(which)}")

    def test(self, which: str) -> DeliveryRead:
        """Send a test message."""
        return self._ask(DeliveryRead, "POST", f"{API}/channels/{_quoted(which)}/test", once=True)

    def deliveries(
        self, *, channel: str | None = None, state: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> DeliveryPage:
        """The delivery log, newest first."""
        params = {"channel": channel, "state": state, "limit": limit, "cursor": cursor}
        return self._ask(DeliveryPage, "GET", f"{API}/deliveries", params=params)

    def send_again(self, delivery_id: int) -> DeliveryRead:
        """Put a delivery back into the queue."""
        return self._ask(DeliveryRead, "POST", f"{API}/deliveries/{delivery_id}/retry")


def _path(which: str) -> str:
    return f"{API}/schedules/{_quoted(which)}"


def _quoted(which: str) -> str:
    return quote(which, safe="")
