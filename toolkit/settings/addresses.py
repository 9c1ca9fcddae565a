"""Which addresses of the network may be asked: the guard against requests into the house.

A name is resolved once, by the same resolver as any other program's, so that ``2130706433``,
``0177.0.0.1`` and ``127.1`` are what they are for everybody.  Every address of the answer is
checked, and the connection goes to one of the addresses that were checked: a name server that
answers differently the second time is not asked a second time.

What is not for everybody is listed by IANA:
https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from toolkit.errors import CallDenied, ToolFailed

__all__ = ["AddressGuard", "Network", "Resolver", "network_fault", "system_resolver"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses as text, in the order in which they are to be tried."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_PRIVATE = (
    *_LOOPBACK,
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("100.64.0.0/10"),
    ipaddress.ip_network("172.16.0.0/12"),
    ipaddress.ip_network("192.168.0.0/16"),
    ipaddress.ip_network("fc00::/7"),
)
# Where clouds tell a machine its own credentials.  Some are inside of private networks, and one
# (Azure's) is a public address, so no rule about networks finds them all.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ),
    )
)
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


async def system_resolver(host: str, port: int) -> list[str]:
    """Ask the system's resolver.

    Raises:
        OSError: It has no answer.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def network_fault(text: str) -> str | None:
    """Return why a network cannot be opened with ``allow_private``, ``None`` if it can."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return f"{text!a} is not a network such as 10.1.0.0/16"
    if not any(_within(network, private) for private in _PRIVATE):
        return f"{text!a} is not part of a private network"
    return None


@dataclass(frozen=True)
class AddressGuard:
    """The hosts that one service may ask, and the addresses that they may have.

    Attributes:
        service: The service's name, for messages.
        url: Where the service is; its host and port are allowed.
        hosts: Further ``host`` or ``host:port``.
        allow_private: Private networks that are allowed.
        resolver: Finds addresses.
        file: Where the service is described, for messages.
    """

    service: str
    url: str
    hosts: tuple[str, ...] = ()
    allow_private: tuple[Network, ...] = ()
    resolver: Resolver = system_resolver
    file: str = "registry/tools.yaml"
    _allowed: frozenset[tuple[str, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        allowed = {(_plain(parts.hostname or ""), parts.port or _DEFAULT_PORTS[parts.scheme])}
        for entry in self.hosts:
            host, _, port = entry.partition(":")
            ports = (int(port),) if port else tuple(_DEFAULT_PORTS.values())
            allowed |= {(_plain(host), number) for number in ports}
        object.__setattr__(self, "_allowed", frozenset(allowed))

    @property
    def default_port(self) -> int:
        """The port of the service's scheme."""
        return _DEFAULT_PORTS[urlsplit(self.url).scheme]

    def check_host(self, host: str, port: int) -> None:
        """Make sure that a host is on the list.

        Raises:
            CallDenied: It is not.
        """
        if (_plain(host), port) not in self._allowed:
            raise CallDenied(
                f"{self.service} may not ask {host}:{port}, which is not one of its hosts",
                next_step=f"add it to hosts of {self.service} in {self.file}, if it is right",
                details={"policies": ["hosts"]},
            )

    async def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a host once and return its addresses, all of them checked.

        Raises:
            CallDenied: The host is not on the list, or *any* of its addresses is not allowed.
            ToolFailed: The name is not known.
        """
        self.check_host(host, port)
        try:
            found = await self.resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise ToolFailed(f"{self.service}: the name {host} cannot be resolved") from error
        if not found:
            raise ToolFailed(f"{self.service}: the name {host} has no address")
        for address in found:
            if (reason := self.fault(address)) is not None:
                raise CallDenied(
                    f"{self.service} may not ask {host}: it is at {address}, {reason}",
                    next_step=(
                        f"if that is right, write its network into allow_private of {self.service} "
                        f"in {self.file}"
                    ),
                    details={"policies": ["addresses"]},
                )
        return found

    def fault(self, text: str) -> str | None:
        """Return why an address may not be asked, ``None`` if it may."""
        try:
            address = _innermost(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return "which is not an address"
        if address in _METADATA:
            return "where a cloud keeps its machines' credentials"
        if address.is_loopback:
            # Only a network that *is* loopback opens it.
            networks = [n for n in self.allow_private if any(_within(n, own) for own in _LOOPBACK)]
            return None if _in_any(address, networks) else "the gateway's own machine"
        if _in_any(address, self.allow_private):
            return None
        if address.is_link_local or getattr(address, "is_site_local", False):
            return "a link-local address"
        if address.is_multicast or address.is_reserved or address.is_unspecified:
            return "which is no machine's address"
        if not address.is_global:
            return "a private address"
        return None


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def _innermost(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    number = int(address)
    if any(address in network for network in _NAT64) or (1 < number < 2**32):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)  # NAT64, or the old ::a.b.c.d
    return address


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _in_any(address: Address, networks: tuple[Network, ...] | list[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
