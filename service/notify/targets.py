"""Where notifications may go: addresses are looked at when a channel is made, and again whenever one is used.

A webhook is a request that this machine makes for whoever may submit. Private, loopback and link-local addresses are
barred unless the operator allows them: they lead to what only this machine may reach.
"""

from collections.abc import Sequence
from email.utils import parseaddr
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
import socket
from urllib.parse import SplitResult, urlsplit

from mutransfer.errors import SpecError
from service.db.states_schedules import ChannelKind
from service.settings import Settings

MAX_RECIPIENTS = 20
#: Prefixes whose last 32 bits are an IPv4 address that the network leads to: NAT64, SIIT, and the old compatible form.
_CARRIERS = (IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0:0/96"), IPv6Network("::/96"))
#: Private, though `ipaddress` calls some of them global: a site's own NAT64, and the old site-local addresses.
_SITES_OWN = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))


def check_target(kind: ChannelKind, target: str, settings: Settings) -> None:
    """Raises SpecError naming `target` unless it is an address of its kind that may be used."""
    if kind is ChannelKind.EMAIL:
        recipients(target)
        if not settings.smtp_url:
            raise SpecError.at("kind", "no mail server is configured: set MUTRANSFER_SMTP_URL, or use a webhook")
        return
    parts = split_url(target)
    if not settings.notify_private and (address := _literal(parts.hostname or "")) and not is_public(address):
        raise SpecError.at("target", f"{address} is not a public address: see MUTRANSFER_NOTIFY_PRIVATE")


def split_url(target: str) -> SplitResult:
    """An http(s) URL in parts, whose host can be asked for. Raises SpecError."""
    try:
        parts = urlsplit(target)
        host = parts.hostname or ""
        valid = parts.scheme in ("http", "https") and bool(host.encode("idna")) and parts.port != 0
    except ValueError:  # UnicodeError too: a label of the host that is empty, or longer than 63 characters
        valid = False
    if not valid or any(character.isspace() or not character.isprintable() for character in target):
        raise SpecError.at("target", "give a URL such as https://hooks.example.org/mutransfer")
    if not host.isascii():  # which encoding of it is meant differs between standards, and so may the host
        raise SpecError.at("target", f"write the host {host!r} as DNS has it, in ASCII (xn--…)")
    if parts.username or parts.password:
        raise SpecError.at("target", "a URL with a password is refused: webhooks are signed with the channel's secret")
    return parts


def recipients(target: str) -> Sequence[str]:
    """The e-mail addresses of a target. Raises SpecError."""
    found = [address.strip() for address in target.split(",")]
    for address in found:
        _, parsed = parseaddr(address)
        local, at, domain = parsed.rpartition("@")
        if parsed != address or not (local and at and domain) or any(c.isspace() for c in address):
            raise SpecError.at("target", f"{address!r} is no e-mail address: give addresses with commas between them")
    if len(found) > MAX_RECIPIENTS:
        raise SpecError.at("target", f"{len(found)} addresses: at most {MAX_RECIPIENTS}, or use a mailing list")
    return found


def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """The address to connect to. The name is looked up once, so that it cannot lead elsewhere after the check.

    Raises PermissionError for a private address, OSError when the name is unknown.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    allowed = [address for address in addresses if allow_private or is_public(address)]
    if not allowed:
        names = ", ".join(str(address) for address in addresses)
        raise PermissionError(f"{host} leads to {names}, which is not public: see MUTRANSFER_NOTIFY_PRIVATE")
    return str(allowed[0])


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the open Internet. One that carries an IPv4 address is judged by that."""
    if isinstance(address, IPv6Address):
        if any(address in network for network in _SITES_OWN):
            return False
        address = _carried(address) or address
    return address.is_global and not address.is_multicast


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that connections to an IPv6 address end at: mapped, translated or tunnelled."""
    if any(address in network for network in _CARRIERS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
