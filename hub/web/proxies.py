"""Who is at the other end, where a proxy stands between: addresses that may tell, and what.

`X-Forwarded-For` and `X-Forwarded-Proto` are believed only where the TCP connection comes from
an address in `HUBBUB_TRUSTED_PROXIES`; anybody else could write anything into them. Each proxy
adds at the right whom it heard, so the client is the rightmost that is no trusted proxy: what
stands left of it was said by the client itself.
"""

import logging
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from attrs import evolve

from hub.settings import SettingError
from hub.web.messages import Peer, Request

log = logging.getLogger(__name__)

_Address: TypeAlias = IPv4Address | IPv6Address
_Network: TypeAlias = IPv4Network | IPv6Network

# A chain of proxies is two or three long; further left the header is not looked at.
_HOPS: Final = 16


class Proxies:
    """The proxies that may say for whom they ask.

    Args:
        trusted: addresses and networks (CIDR), separated by commas; empty: none.

    Raises:
        SettingError: one of them is neither.

    """

    def __init__(self, trusted: str = "") -> None:
        self._networks: Final = [_network(one.strip()) for one in trusted.split(",") if one.strip()]
        self._told = bool(self._networks)

    def trusted(self, address: str) -> bool:
        """Whether what comes from this address (of a TCP peer) may say for whom it asks."""
        known = parse(address)
        return known is not None and self._trusts(known)

    def seen(self, request: Request) -> Request:
        """Return the request with the client and scheme that its proxies tell of."""
        peer = request.peer
        if peer.client is None:
            return request
        forwarded = request.header(b"x-forwarded-for")
        if not self._networks or not self.trusted(peer.client[0]):
            if forwarded is not None:
                self._tell(peer.client[0])
            return request
        client, hops = self._client(peer.client[0], forwarded)
        scheme = _scheme(request.header(b"x-forwarded-proto"), hops) or peer.scheme
        behind = peer.client[0]
        return evolve(
            request, peer=Peer((client, 0), server=peer.server, scheme=scheme, proxy=behind)
        )

    def _trusts(self, address: _Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._networks
        )

    def _client(self, nearest: str, forwarded: bytes | None) -> tuple[str, int]:
        """Return the client's address, and how many proxies told of it."""
        client, hops = nearest, 0
        for told in reversed((forwarded or b"").split(b",")[-_HOPS:]):
            address = parse(told.decode("latin-1"))
            if address is None:  # "unknown", or nonsense: what is known is who said it
                break
            client, hops = str(address), hops + 1
            if not self._trusts(address):
                break
        return client, hops

    def _tell(self, address: str) -> None:
        """Say once that there seems to be a proxy of which the settings don't know."""
        known = parse(address)
        if not self._told and known is not None and (known.is_loopback or known.is_private):
            self._told = True
            log.warning(
                "A proxy at %s seems to stand before the hub. Its clients' addresses are not "
                "known, nor limited, until HUBBUB_TRUSTED_PROXIES names it.",
                address,
            )


def parse(text: str) -> _Address | None:
    """Return an address, also one with a port, in brackets, or IPv4 within IPv6; else None."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> _Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise SettingError(
            f"HUBBUB_TRUSTED_PROXIES: “{text}” is no address or network such as 10.0.0.0/8."
        ) from None


def _scheme(told: bytes | None, hops: int) -> str | None:
    """Return what the proxy nearest to the client said, where each of them added its own."""
    said = [one.strip().lower() for one in (told or b"").split(b",")]
    scheme = said[-min(max(hops, 1), len(said))]
    return scheme.decode() if scheme in (b"http", b"https") else None
