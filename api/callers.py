"""Addresses of callers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from coordinator.streams.setting_checks import Network


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address, or None if the text is not an address. An IPv4 address mapped into IPv6 counts as the IPv4
    address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def within(text: str, networks: Sequence[Network]) -> bool:
    """Whether the host lies in one of the networks. A host that is no IP address lies in none."""
    address = address_of(text)
    return address is not None and any(address in network for network in networks)


def address_group(host: str) -> str:
    """The group whose requests are counted together: an IPv4 address, or the 64 bits of IPv6 that one customer has."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return host
