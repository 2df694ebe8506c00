"""The real application on a free port, in a thread of this process."""

from collections.abc import Iterator
from contextlib import contextmanager
import socket
import threading
import time

import uvicorn

from service.app import create_app
from service.settings import Settings


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve `settings`' database until the block ends; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="e2e-server", daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started, "the service did not start"
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        app.state.context.stopping.set()
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the service did not stop"
