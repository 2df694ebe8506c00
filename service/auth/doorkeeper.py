"""Who is at the door: whether callers need a token at all, and who the one is that a token or a cookie belongs to.

The service is open, every caller an administrator, only on one person's machine: embedded, on a loopback address, not
under Slurm, without MUTRANSFER_TOKEN or MUTRANSFER_AUTH=required, and while its database has never held an API token.
Everywhere else a caller needs one: an API token, MUTRANSFER_TOKEN, or the token that `up` keeps in its home.
"""

from collections import OrderedDict
from collections.abc import Callable
from hmac import compare_digest
import os
from threading import Lock
import time

from service.db import logins, tokens
from service.db.actors import SERVICE, Actor, acting
from service.db.session import Sessions, reading, transact
from service.runtime import TOKEN_FILE
from service.settings import LOOPBACK_HOSTS, Settings

LOCAL = Actor(id="local", name="anyone on this machine")
HOME = Actor(id="home", name="the token of this service's home or environment")
REMEMBERED_SECONDS = 1.0  # for so long another process's revocation may go unnoticed
REMEMBERED = 1024


class Remembered:
    """Answers of the database kept for a moment, so that a busy caller costs one look-up a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._answers: OrderedDict[str, tuple[float, Actor | None]] = OrderedDict()

    def get(self, key: str, look: Callable[[], Actor | None]) -> Actor | None:
        """What `look` said of `key` a moment ago, or says now."""
        with self._lock:
            known = self._answers.get(key)
        if known is not None and self._clock() - known[0] < REMEMBERED_SECONDS:
            return known[1]
        answer = look()
        with self._lock:
            self._answers[key] = self._clock(), answer
            self._answers.move_to_end(key)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def forget(self) -> None:
        """Look again from now on."""
        with self._lock:
            self._answers.clear()


class Doorkeeper:
    """Recognises callers. Its methods wait for the database: call them off the event loop."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._sessions = sessions
        self._home = _home_digests(settings)
        self._may_be_open = is_personal(settings)
        self._looked_at = float("-inf")
        self._remembered = Remembered()

    @property
    def has_home_token(self) -> bool:
        """Whether someone can administer the service without any token of the database."""
        return bool(self._home)

    def is_open(self) -> bool:
        """Whether a caller needs no token. Once it does, it always will: tokens are never deleted."""
        if self._may_be_open and time.monotonic() - self._looked_at >= REMEMBERED_SECONDS:
            with reading(self._sessions) as session:
                self._may_be_open = not tokens.any_exist(session)
            self._looked_at = time.monotonic()
        return self._may_be_open

    def by_secret(self, secret: str) -> Actor | None:
        """Who presents this token, None for an unknown or ended one."""
        return self._by_digest(tokens.digest_of(secret))

    def by_cookie(self, cookie: str) -> Actor | None:
        """Who logged in with this cookie, None when the session or its token has ended."""
        return self._remembered.get(f"cookie {tokens.digest_of(cookie)}", lambda: self._look_at_cookie(cookie))

    def begin(self, secret: str, actor: Actor) -> str:
        """Log `actor` in, who presented `secret`; returns the cookie."""
        credential = tokens.digest_of(secret)
        with acting(actor):
            return transact(self._sessions, lambda session: logins.begin(session, credential))

    def end(self, cookie: str) -> None:
        """Log the owner of a cookie out."""
        transact(self._sessions, lambda session: logins.end(session, cookie))
        self.changed()

    def changed(self) -> None:
        """Tokens were made or revoked here: look again."""
        self._remembered.forget()
        self._looked_at = float("-inf")

    def _look_at_cookie(self, cookie: str) -> Actor | None:
        with acting(SERVICE), reading(self._sessions) as session:
            credential = logins.credential(session, cookie)
        return None if credential is None else self._by_digest(credential)

    def _by_digest(self, digest: str) -> Actor | None:
        if any(compare_digest(digest, known) for known in self._home):
            return HOME
        return self._remembered.get(f"token {digest}", lambda: self._look_at_token(digest))

    def _look_at_token(self, digest: str) -> Actor | None:
        with acting(SERVICE), reading(self._sessions) as session:
            found = tokens.bearer(session, digest)
        if found is not None:
            transact(self._sessions, lambda session: tokens.note_use(session, found.id))
        return found


def is_personal(settings: Settings) -> bool:
    """Whether the service may run without tokens: one person's machine, which nobody else can reach."""
    return (
        settings.auth == "auto"
        and settings.token is None
        and settings.embedded
        and settings.host in LOOPBACK_HOSTS
        and "SLURM_JOB_ID" not in os.environ
    )


def _home_digests(settings: Settings) -> tuple[str, ...]:
    found = [settings.token.get_secret_value()] if settings.token else []
    file = settings.home / TOKEN_FILE
    if file.is_file():
        found.append(file.read_text().strip())
    return tuple(tokens.digest_of(secret) for secret in found if secret)
