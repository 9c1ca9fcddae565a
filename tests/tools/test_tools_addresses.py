"""Which addresses may be asked, and which never are."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools_world import Names

from toolkit.errors import CallDenied, ToolFailed
from toolkit.tools import AddressGuard, system_resolver

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "0.0.0.0",
    "::",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
    "198.18.0.1",
    "nonsense",
    "",
]
OUTSIDE = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def guard(
    *networks: str, resolver=None, url: str = "https://api.example", hosts=()
) -> AddressGuard:
    parsed = tuple(map(ipaddress.ip_network, networks))
    return AddressGuard("crm", url, tuple(hosts), parsed, resolver or Names())


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_refused(address: str) -> None:
    """Loopback, private, link-local, metadata and what stands for them in IPv6."""
    assert guard().fault(address) is not None


@pytest.mark.parametrize("address", OUTSIDE)
def test_a_public_address_is_allowed(address: str) -> None:
    """Everybody's internet is open."""
    assert guard().fault(address) is None


def test_a_private_network_opens_only_itself() -> None:
    """`allow_private` is no switch that turns the guard off."""
    held = guard("10.1.0.0/16")
    assert held.fault("10.1.2.3") is None
    assert held.fault("::ffff:10.1.2.3") is None
    assert held.fault("10.2.0.1") is not None
    assert held.fault("127.0.0.1") is not None
    assert held.fault("169.254.169.254") is not None


@pytest.mark.parametrize("metadata", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"])
def test_the_place_of_credentials_stays_closed(metadata: str) -> None:
    """Whatever network is opened around it."""
    assert guard("fc00::/7", "100.64.0.0/10", "10.0.0.0/8").fault(metadata) is not None


def test_loopback_opens_only_when_it_is_written() -> None:
    """A network that holds loopback by the way does not open it."""
    assert guard("127.0.0.1/32").fault("127.0.0.1") is None
    assert guard("127.0.0.1/32").fault("127.0.0.2") is not None
    assert guard("::1/128").fault("::1") is None
    assert guard("10.0.0.0/8").fault("127.0.0.1") is not None


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "127.1", "0x7f.1", "localhost"])
def test_other_spellings_of_loopback_are_loopback(host: str) -> None:
    """The system's own resolver reads decimal, octal and short forms; what it finds is checked."""
    held = guard(url=f"http://{host}:8080", resolver=system_resolver)
    with pytest.raises((CallDenied, ToolFailed)) as refused:
        asyncio.run(held.addresses(host, 8080))
    if isinstance(refused.value, CallDenied):
        assert "the gateway's own machine" in str(refused.value)


def test_the_decimal_form_is_refused_as_loopback() -> None:
    """At least the plainest trick is resolved on every machine that runs the tests."""
    held = guard(url="http://2130706433", resolver=system_resolver)
    with pytest.raises(CallDenied, match=r"127\.0\.0\.1"):
        asyncio.run(held.addresses("2130706433", 80))


def test_one_bad_address_spoils_the_name() -> None:
    """A name with a public and a private address is a trick, not a choice."""
    held = guard(resolver=Names().add("api.example", ["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(CallDenied, match="private address"):
        asyncio.run(held.addresses("api.example", 443))


def test_hosts_that_are_not_listed_are_not_even_resolved() -> None:
    """A name server learns nothing."""
    names = Names().add("evil.example", ["8.8.8.8"])
    held = guard(resolver=names, hosts=["files.example", "odd.example:8443"])
    for host, port in [("evil.example", 443), ("api.example", 22), ("odd.example", 443)]:
        with pytest.raises(CallDenied, match="not one of its hosts"):
            asyncio.run(held.addresses(host, port))
    assert names.asked == []
    for host, port in [("API.example.", 443), ("files.example", 80), ("odd.example", 8443)]:
        held.check_host(host, port)


def test_a_name_without_an_address_is_told() -> None:
    """A failing resolver is an error of the call, not of the gateway."""
    with pytest.raises(ToolFailed, match="cannot be resolved"):
        asyncio.run(guard().addresses("api.example", 443))
    with pytest.raises(ToolFailed, match="no address"):
        asyncio.run(guard(resolver=Names().add("api.example", [])).addresses("api.example", 443))


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_wrapping_an_inner_address_in_ipv6_never_opens_it(address: ipaddress.IPv4Address) -> None:
    """Mapped, compatible, 6to4 and NAT64 forms are as closed as the address itself."""
    number = int(address)
    wrapped = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
        ipaddress.IPv6Address((0x0064_FF9B << 96) | number),
    ]
    assert all(guard().fault(str(one)) is not None for one in wrapped)


@given(st.ip_addresses())
def test_what_is_allowed_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """No address passes that the registries of IANA do not call global."""
    if guard().fault(str(address)) is None:
        mapped = getattr(address, "ipv4_mapped", None) or address
        nat64 = address.version == 6 and str(address).startswith("64:ff9b:")
        assert mapped.is_global or nat64
