"""Where a gateway can be reached: a private unix socket, a loopback port, a team's address."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ConfigurationError, GatewayUnavailable, UsageError
from toolkit.gateway.exchange import Via

__all__ = ["Listener", "TeamAddress", "open_listeners", "port_file"]

_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class TeamAddress:
    """Where a gateway listens for kernels of other machines.

    Attributes:
        host, port: What to bind; port 0 lets the system choose.
        certificate, key: PEM files; the certificate with its chain.
        insecure: Whether a non-loopback address without TLS is accepted.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False

    @classmethod
    def parse(
        cls,
        listen: str,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        insecure: bool = False,
    ) -> TeamAddress:
        """Read ``HOST:PORT`` (``[::]:8443`` for IPv6) and check that it is safe to serve.

        Raises:
            UsageError: It is not an address, or would send tokens in clear text over a network.
            ConfigurationError: Certificate and key cannot be used.
        """
        host, _, port = listen.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(
                f"{listen!a} is not HOST:PORT",
                where="--listen",
                next_step="for example --listen 127.0.0.1:8443, or --listen [::]:8443",
            )
        address = cls(host, int(port), certificate, key, insecure)
        address._check()
        return address

    def _check(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--tls-cert and --tls-key belong together", where="--listen")
        if self.certificate is not None and self.key is not None:
            check_certificate(self.certificate, self.key)
        elif not self.insecure and not _loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines, and without TLS every token and "
                "prompt could be read on the way",
                where="--listen",
                next_step="add --tls-cert and --tls-key, or --insecure behind a TLS proxy",
            )

    @property
    def scheme(self) -> str:
        """``https`` with a certificate, else ``http``."""
        return "http" if self.certificate is None else "https"


@dataclass(frozen=True, slots=True)
class Listener:
    """One bound socket.

    Attributes:
        socket: Listening, not blocking.
        via: What the requests of this listener are.
        team: TLS files, for a team's address.
    """

    socket: socket.socket
    via: Via
    team: TeamAddress | None = None

    @property
    def port(self) -> int | None:
        """The TCP port; ``None`` for the unix socket."""
        return None if self.via is Via.UNIX else int(self.socket.getsockname()[1])


@contextlib.contextmanager
def open_listeners(path: Path, team: TeamAddress | None) -> Iterator[tuple[Listener, ...]]:
    """Bind the unix socket, the loopback port and, where given, the team's address.

    The loopback port is the one of the last time, if it is free: SDK clients of living kernels
    hold the address.

    Raises:
        GatewayUnavailable: An address cannot be bound.
    """
    with contextlib.ExitStack() as opened:

        def bound(one: Listener) -> Listener:
            opened.callback(one.socket.close)
            return one

        found = [bound(Listener(_unix(path), Via.UNIX))]
        opened.callback(path.unlink, missing_ok=True)
        found.append(bound(Listener(_loopback_port(port_file(path)), Via.LOOPBACK)))
        if team is not None:
            found.append(bound(Listener(_tcp(team.host, team.port), Via.TEAM, team)))
        yield tuple(found)


def port_file(path: Path) -> Path:
    """Return the file beside a gateway's socket that holds its loopback port."""
    return path.with_suffix(".port")


def check_certificate(certificate: Path, key: Path) -> None:
    """Check that a certificate and its key can be used.

    Raises:
        ConfigurationError: They cannot.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"the certificate {certificate} and the key {key} cannot be used: {reason}",
            where="--tls-cert, --tls-key",
            next_step="give PEM files that belong together; the key without a pass phrase",
        ) from error


def _no_password() -> str:
    raise ValueError("the key has a pass phrase")


def _unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # left by a killed gateway; the lock says that none is alive
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise GatewayUnavailable(
            f"the socket cannot be made: {error.strerror}", where=str(path)
        ) from error
    finally:
        os.umask(old)
    return _listening(listener)


def _loopback_port(kept: Path) -> socket.socket:
    try:
        port = int(kept.read_text("utf-8"))
    except (OSError, ValueError):
        port = 0
    try:
        listener = _tcp("127.0.0.1", port if 1024 <= port <= 65535 else 0)
    except GatewayUnavailable:
        listener = _tcp("127.0.0.1", 0)
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
    temporary.write_text(str(listener.getsockname()[1]), "utf-8")
    temporary.chmod(0o600)
    temporary.replace(kept)
    return listener


def _tcp(host: str, port: int) -> socket.socket:
    try:
        return _listening(
            socket.create_server((host, port), family=_family(host), backlog=_BACKLOG)
        )
    except OSError as error:
        raise GatewayUnavailable(
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            where=f"{host}:{port}",
            next_step="choose a free port of this machine",
        ) from error


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(_BACKLOG)
    listener.setblocking(False)  # noqa: FBT003 - the socket module's own shape
    return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
