"""TCP ports of the embedded service: find a free one, or say plainly that one is taken."""

import socket

from mutransfer.errors import ConflictError


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now. The caller must bind it soon."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free(host: str, port: int, *, option: str = "--port") -> int:
    """`port`, or a free one when it is 0. Raises ConflictError that names `option` when something listens there."""
    if port == 0:
        return free_port(host)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this a port that a finished server left in TIME_WAIT would look taken; uvicorn sets it as well.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConflictError(
                f"port {port} on {host} cannot be used ({error.strerror}): "
                f"choose another with {option}, or {option} 0 for any free one"
            ) from None
    return port
