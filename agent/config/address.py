"""Addresses of servers, as a task.yaml names them: no password in them, since runs copy the file."""

import re
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

HOST = r"(\[[^\]\s]*\]|[^@:/?#,\s\[\]]*)(:\d*)?"
# Of a password with a bare / or @ in it, libpq takes a part for host or database, which are shown.
POSTGRES = re.compile(rf"postgres(ql)?://([^@/?#\s]*@)?{HOST}(,{HOST})*(/[^@?#\s]*)?(\?[^#\s]*)?")


def holds_password(address: str) -> bool:
    """Whether there may be one: before any @, however it is written, or as a parameter."""
    return bool(re.search(r"//[\s\S]*:[\s\S]*@|password\s*=", unquote(address)))


def require_postgres(address: str, instead: str) -> None:
    """Raises ValueError, which never repeats the address: it holds a password, or is none of a Postgres server.

    Args:
        instead: where else the password may stand.
    """
    if holds_password(address):
        raise ValueError(f"a password must not stand in a file: {instead}")
    if not POSTGRES.fullmatch(address):
        raise ValueError("write it as postgresql://USER@HOST/DATABASE")


def is_local(address: str) -> bool:
    """Whether a server stands on this machine, so that no proxy of the environment is asked for it."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")


def environment_fault(error: Exception) -> str:
    """Why no HTTP client can be made: the end of a sentence, without the error's words, which may hold a password."""
    return (
        "as the environment says: look at HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and SSL_CERT_FILE "
        f"({type(error).__name__})"
    )


def has_a_port_or_none(address: str) -> bool:
    """Whether what stands where a port would is one."""
    try:
        return urlsplit(address).port != 0
    except ValueError:  # no number, or none that is a port
        return False
