"""What kind of address a host is."""

from __future__ import annotations

import ipaddress
import socket


def split(target: str) -> tuple[str, int]:
    """Return host, without brackets, and port of ``host:port``."""
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether a name or address leads to this machine and nowhere else."""
    found = _addresses(host)
    return bool(found) and all(address.is_loopback for address in found)


def is_near(target: str) -> bool:
    """Tell whether ``host:port`` is this machine or one with a private address."""
    found = _addresses(split(target)[0])
    return bool(found) and all(address.is_private for address in found)


def _addresses(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return what a name stands for, or an address; nothing where nobody here knows the name."""
    try:
        infos = socket.getaddrinfo(host.strip("[]"), None)
    except OSError:  # only a proxy may know it
        return set()
    addresses = {ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos}
    return {getattr(address, "ipv4_mapped", None) or address for address in addresses}
