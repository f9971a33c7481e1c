"""Which hosts secrets may be sent to.

wattledger.toml names addresses and the variables that hold tokens; whoever can change it could have any secret of a service
sent anywhere. The environment of the service, which only its operator writes, can say where secrets may go.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from flows.errors import SettingsError

SECRET_HOSTS = "WATTLEDGER_SECRET_HOSTS"
"""Environment variable: hosts, separated by commas, that secrets may go to besides the providers' own."""


def check_secret_host(url: str, where: str, own_url: str = "") -> None:
    """Refuse to send a secret to a host that the operator did not list.

    Args:
        url: Where it would go.
        where: The setting, for the message.
        own_url: The provider's own address, which needs no listing.

    Raises:
        SettingsError: there is a list, and the host is not on it.
    """
    listed = os.environ.get(SECRET_HOSTS)
    if listed is None:
        return
    host = _find_host(url)
    if own_url and url.lower().startswith("https:") and host == _find_host(own_url):
        return
    if host not in {name.strip().lower() for name in listed.split(",")} - {""}:
        raise SettingsError(
            f"no secret may be sent to {host or url!r}, which {SECRET_HOSTS} does not list",
            where=where,
            remedy=f"If the address is right, add the host to {SECRET_HOSTS} of this process",
        )


def _find_host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
