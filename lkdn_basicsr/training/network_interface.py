"""The network interface that gloo must use: the one that reaches the first rank."""

import contextlib
import ipaddress
import socket
import struct
import sys


def local_address(host: str) -> str:
    """Return the address from which this machine reaches a host, or an empty string if it does not."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting UDP sends nothing
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return ''


def gloo_interface(own: str, addresses: list[str]) -> str | None:
    """Return the network interface that reaches the first rank, or None to leave the choice to gloo.

    Gloo takes the interface of the machine's own name, which Debian and Ubuntu resolve to 127.0.1.1. ``own`` is the
    address from which this rank reaches the first one, ``addresses`` are those of all ranks.
    """
    remote = [address for address in addresses if address and not ipaddress.ip_address(address).is_loopback]
    if not remote:
        return None  # one machine
    if own not in remote:  # the machine of the first rank, which reaches itself by loopback
        own = local_address(remote[0])
    return _interface_of(own)


def _interface_of(address: str) -> str | None:
    """Return the name of the network interface with an address; None if unknown, and outside Linux."""
    if not address or sys.platform != 'linux':
        return None
    import fcntl  # not on Windows

    with contextlib.suppress(OSError):
        if ':' in address:
            digits = ipaddress.IPv6Address(address).packed.hex()
            with open('/proc/net/if_inet6', encoding='ascii') as file:
                return next((line.split()[-1] for line in file if line.startswith(digits)), None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # an interface without an address
                    found = fcntl.ioctl(probe, 0x8915, struct.pack('256s', name.encode()[:15]))  # SIOCGIFADDR
                    if socket.inet_ntoa(found[20:24]) == address:
                        return name
    return None
