"""The typed client of the REST API, which the command line stands on.

Problem documents come back as the kernel's errors: SpecError (422 and unreadable bodies), NotFoundError, ConflictError,
AccessError, and TransientError when the service is away or busy. Reading requests are repeated through short outages,
and so are submissions, extensions and retries: each carries an idempotency key.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from itertools import islice
import json
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit
import uuid

import httpx
from pydantic import BaseModel

from mutransfer.errors import (
    AccessError,
    ConflictError,
    MutransferError,
    NotFoundError,
    Problem,
    SpecError,
    TransientError,
)
from mutransfer.recipe import Recipe
from mutransfer.result import StudyResult
from service.auth.schemas import (
    AuditEntry,
    AuditPage,
    Page,
    ProjectPage,
    ProjectRead,
    TokenCreate,
    TokenMade,
    TokenPage,
    TokenRead,
    Whoami,
)
from service.client_events import parse_events
from service.client_files import FileClient
from service.client_schedules import Channels, Schedules
from service.studies.schemas import API, CurvesRead, EventRead, Health, PlanRead, StudyPage, StudyRead, VerdictRead
from service.trials.schemas import TrialDetail, TrialLogRead, TrialPage, TrialRead

if TYPE_CHECKING:
    from service.frames import Frames

TIMEOUT_SECONDS = 30.0
RETRY_DELAYS_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
STREAM_SILENCE_SECONDS = 60.0  # the service sends a comment every 15 s
PROGRESS = "progress"
_BUSY = (
    HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT,
)  # fmt: skip
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

M = TypeVar("M", bound=BaseModel)
Item = TypeVar("Item")


class Client(FileClient):
    """One service at `url`. Use as a context manager, or call `close`."""

    def __init__(self, url: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            # A proxy in the environment cannot reach this machine's loopback interface.
            trust_env=urlsplit(url).hostname not in _LOOPBACK,
        )
        self.schedules = Schedules(self._send)
        self.channels = Channels(self._send)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def health(self) -> Health:
        """Raises TransientError while the service does not answer."""
        return self._get("/healthz", Health)

    def submit(
        self, document: Mapping[str, Any] | str, *, idempotency_key: str | None = None, fresh: bool = False,
        priority: int = 0,
    ) -> StudyRead:  # fmt: skip
        """Submit a study: a mapping, or YAML text. Repeated through outages without making a second study."""
        headers = _key(idempotency_key)
        return self._post("/studies", StudyRead, document, headers=headers, params=_submitting(fresh, priority))

    def plan(self, document: Mapping[str, Any] | str, *, fresh: bool = False) -> PlanRead:
        """What a study would take, and how many of its trials are known already."""
        return self._post("/plan", PlanRead, document, params=_submitting(fresh, 0))

    def list(
        self,
        *,
        state: str | None = None,
        project: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        **more: str | None,
    ) -> StudyPage:
        """One page of studies, newest first; `more`: name, verdict, sort … as `GET /studies` has them."""
        params = {"state": state, "project": project, "limit": limit, "cursor": cursor, **more}
        return self._get(f"{API}/studies", StudyPage, params)

    def get(self, study_id: str) -> StudyRead:
        """One study."""
        return self._get(_study(study_id), StudyRead)

    def cancel(self, study_id: str) -> StudyRead:
        """Ask a study to stop. Safe to repeat."""
        return self._act(study_id, "cancel")

    def pause(self, study_id: str) -> StudyRead:
        """Ask a study to checkpoint its trials and rest. Safe to repeat."""
        return self._act(study_id, "pause")

    def resume(self, study_id: str) -> StudyRead:
        """Let a paused study go on. Safe to repeat."""
        return self._act(study_id, "resume")

    def retry(self, study_id: str) -> StudyRead:
        """Queue a failed or cancelled study again, with the results it has. Repeated through outages, done once."""
        return self._act(study_id, "retry")

    def retry_trial(self, study_id: str, key: str) -> StudyRead:
        """Try a trial again that the study has given up. Repeated through outages, done once."""
        return self._act(study_id, f"trials/{key}/retry")

    def set_priority(self, study_id: str, priority: int) -> StudyRead:
        """Studies of higher priority are driven first."""
        body = {"priority": priority}
        return _parse(self._repeat(lambda: self._http.patch(_study(study_id), json=body)), StudyRead)

    def extend(self, study_id: str, changes: Mapping[str, Any] | str) -> StudyRead:
        """Ask more of a study that has ended: `changes` is a merge patch, such as `{"widths": {"targets": [256]}}`.

        Repeated through outages, done once.
        """
        return self._post(f"/studies/{study_id}/extend", StudyRead, changes, headers=_key())

    def clone(
        self, study_id: str, changes: Mapping[str, Any] | str | None = None, *, idempotency_key: str | None = None,
        fresh: bool = False, priority: int = 0,
    ) -> StudyRead:  # fmt: skip
        """Submit a study like this one, with any changes (a merge patch)."""
        headers = _key(idempotency_key)
        params = _submitting(fresh, priority)
        return self._post(f"/studies/{study_id}/clone", StudyRead, changes or {}, headers=headers, params=params)

    def _act(self, study_id: str, action: str) -> StudyRead:
        headers = _key()
        return _parse(self._repeat(lambda: self._http.post(f"{_study(study_id)}/{action}", headers=headers)), StudyRead)

    def result(self, study_id: str) -> StudyResult:
        """The result document, partial while the study runs."""
        return self._get(f"{_study(study_id)}/result", StudyResult)

    def curves(self, study_id: str) -> CurvesRead:
        """Loss against learning rate."""
        return self._get(f"{_study(study_id)}/curves", CurvesRead)

    def verdict(self, study_id: str) -> VerdictRead:
        """The verdict of each arm."""
        return self._get(f"{_study(study_id)}/verdict", VerdictRead)

    def trials(self, study_id: str) -> Iterator[TrialRead]:
        """All trials of a study, page by page."""
        cursor: str | None = None
        while True:
            page = self._get(f"{_study(study_id)}/trials", TrialPage, {"limit": 1000, "cursor": cursor})
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def trial(self, study_id: str, key: str) -> TrialDetail:
        """One trial with its training curve."""
        return self._get(f"{_study(study_id)}/trials/{key}", TrialDetail)

    def trial_log(self, key: str) -> TrialLogRead:
        """What happened to a trial, by its key or how that begins (eight characters at least)."""
        return self._get(f"{API}/trials/{key}/log", TrialLogRead)

    def recipe(self, study_id: str, *, width: int, depth: int | None = None, arm: str | None = None) -> Recipe:
        """What to set at a width."""
        return self._get(f"{_study(study_id)}/recipe", Recipe, {"width": width, "depth": depth, "arm": arm})

    def frames(self, study_id: str) -> "Frames":
        """The study's results as pandas frames."""
        from service.frames import Frames

        return Frames(self, study_id)

    def watch(self, study_id: str, *, after: int = 0) -> Iterator[EventRead]:
        """A study's events beyond `after`, and `progress` between them, until it is over.

        Reconnects by itself; raises TransientError when the service stays away, NotFoundError for an unknown study.
        """
        failures = 0
        while True:
            try:
                for event in self._stream(study_id, after):
                    failures = 0
                    after = event.id or after
                    yield event
                    if event.kind == "finished" and self.get(study_id).state.is_final:
                        return  # an earlier end was told of a study that was opened again since
            except (TransientError, httpx.TransportError) as error:
                if failures >= len(RETRY_DELAYS_SECONDS):
                    raise TransientError(f"{self.url} does not answer: {error}") from error
                time.sleep(RETRY_DELAYS_SECONDS[failures])
                failures += 1
            else:
                if self.get(study_id).state.is_final:
                    return

    def wait(self, study_id: str) -> StudyRead:
        """Wait until a study is over; returns it as it ended."""
        for _event in self.watch(study_id):
            pass
        return self.get(study_id)

    def whoami(self) -> Whoami:
        """Who this client is to the service."""
        return self._get(f"{API}/whoami", Whoami)

    def create_token(self, wanted: TokenCreate) -> TokenMade:
        """Make a token; its secret is in the answer and nowhere else. Never repeated: that would make a second one."""
        try:
            response = self._http.post(f"{API}/tokens", json=wanted.model_dump(mode="json"))
        except httpx.TransportError as error:
            raise TransientError(f"{self.url} does not answer: {error}") from error
        return _parse(_checked(response), TokenMade)

    def tokens(self) -> Iterator[TokenRead]:
        """All tokens, newest first."""
        return self._items(f"{API}/tokens", TokenPage)

    def revoke_token(self, token_id: str) -> TokenRead:
        """End a token. Safe to repeat."""
        return _parse(self._repeat(lambda: self._http.delete(f"{API}/tokens/{token_id}")), TokenRead)

    def projects(self) -> Iterator[ProjectRead]:
        """All projects, by name."""
        return self._items(f"{API}/projects", ProjectPage)

    def set_project(self, name: str, limits: Mapping[str, float | int | None]) -> ProjectRead:
        """Make a project or change the limits that are given; None removes one. Safe to repeat."""
        path = f"{API}/projects/{name}"
        return _parse(self._repeat(lambda: self._http.put(path, json=dict(limits))), ProjectRead)

    def audit_log(self, wanted: Mapping[str, str | None], *, limit: int) -> Iterator[AuditEntry]:
        """The newest `limit` entries of the audit log; `wanted`: project, actor, action, target."""
        return islice(self._items(f"{API}/audit-log", AuditPage, wanted), limit)

    def _items(self, path: str, page: type[Page[Item]], params: Mapping[str, Any] | None = None) -> Iterator[Item]:
        cursor: str | None = None
        while True:
            found = self._get(path, page, {**(params or {}), "limit": 200, "cursor": cursor})
            yield from found.items
            cursor = found.next_cursor
            if cursor is None:
                return

    def _stream(self, study_id: str, after: int) -> Iterator[EventRead]:
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=STREAM_SILENCE_SECONDS)
        params = {"after": after}
        with self._http.stream("GET", f"{_study(study_id)}/events", params=params, timeout=timeout) as response:
            if response.status_code != HTTPStatus.NO_CONTENT:
                if response.status_code != HTTPStatus.OK:
                    response.read()
                    _raise_problem(response)
                yield from parse_events(response.iter_lines())

    def _send(
        self, method: str, path: str, *, once: bool = False, json: object = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:  # fmt: skip
        """One request, repeated through short outages unless `once`."""
        ask = partial(self._http.request, method, path, json=json, params=_given(params or {}))
        return _checked(self._reach(ask)) if once else self._repeat(ask)

    def _reach(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            return send()
        except httpx.TransportError as error:
            raise TransientError(f"{self.url} does not answer: {error}") from error

    def _get(self, path: str, model: type[M], params: Mapping[str, Any] | None = None) -> M:
        return _parse(self._repeat(lambda: self._http.get(path, params=_given(params or {}))), model)

    def _file(self, path: str, params: Mapping[str, Any]) -> bytes:
        return self._repeat(lambda: self._http.get(path, params=_given(params))).content

    def _post(
        self,
        path: str,
        model: type[M],
        document: Mapping[str, Any] | str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> M:
        if isinstance(document, str):
            content, content_type = document, "application/yaml"
        else:
            content, content_type = json.dumps(document), "application/json"
        sent = {**(headers or {}), "Content-Type": content_type}
        return _parse(
            self._repeat(lambda: self._http.post(f"{API}{path}", content=content, headers=sent, params=params)), model
        )

    def _repeat(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        for delay in (*RETRY_DELAYS_SECONDS, None):
            try:
                response = send()
                if response.status_code not in _BUSY or delay is None:
                    return _checked(response)
            except httpx.TransportError as error:
                if delay is None:
                    raise TransientError(f"{self.url} does not answer: {error}") from error
            time.sleep(delay)
        raise AssertionError("the last round returns or raises")


def _study(study_id: str) -> str:
    return f"{API}/studies/{study_id}"


def _key(given: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": given or str(uuid.uuid4())}


def _submitting(fresh: bool, priority: int) -> dict[str, str]:
    return ({"fresh": "true"} if fresh else {}) | ({"priority": str(priority)} if priority else {})


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _parse(response: httpx.Response, model: type[M]) -> M:
    return model.model_validate_json(response.content)


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        _raise_problem(response)
    return response


def _raise_problem(response: httpx.Response) -> NoReturn:
    """The kernel's error for a problem document."""
    status = response.status_code
    try:
        document = response.json()
    except ValueError:
        document = {}
    detail = document.get("detail") or f"{status} {response.reason_phrase}"
    problems = [Problem(field=fault["field"], message=fault["message"]) for fault in document.get("errors", [])]
    errors: dict[int, type[MutransferError]] = {
        HTTPStatus.UNAUTHORIZED: AccessError,
        HTTPStatus.FORBIDDEN: AccessError,
        HTTPStatus.NOT_FOUND: NotFoundError,
        HTTPStatus.CONFLICT: ConflictError,
    }
    if status in errors:
        raise errors[status](detail)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _BUSY:
        raise SpecError(problems or [Problem(field="", message=detail)])
    raise TransientError(detail)
