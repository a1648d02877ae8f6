"""What a setting may be: bounds of numbers, and the forms of addresses, names and lists. Pure.

Each check raises OperatorError that names the variable and what to write instead. No message holds a URL: a key may be
in it.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from coordinator.streams.log.errors import OperatorError

Network = IPv4Network | IPv6Network
FAR_FUTURE_MS = 253_402_300_799_000
"""9999-12-31T23:59:59Z, the last that ISO with four digits can say."""
SECONDS_LIKE = range(100_000_000, 100_000_000_000)
"""As ms the years 1970 to 1973, before any record of the node; as seconds 1973 to 5138."""
PORT_MAX = 65_535
SIGNING_PREFIX, SIGNING_BYTES = "whsec_", range(24, 65)

CRUNCH_ID_CHARS_MAX = 100
"""A topic's name may have 249: ours add a stream's."""
_CRUNCH_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HOST_HEADER = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_SUBJECT = re.compile(r"""[^\s;|,"'`\[\]{}()\\]{1,100}""")
_PRIVATE = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


def check_crunch_id(variable: str, text: str) -> None:
    """Lower-case words joined by dashes: topics' names begin with it."""
    if not _CRUNCH_ID.fullmatch(text) or len(text) > CRUNCH_ID_CHARS_MAX:
        raise OperatorError(
            f"{variable} {text[:80]!r} must be lower-case words joined by '-', e.g. btc-up, "
            f"at most {CRUNCH_ID_CHARS_MAX} letters"
        )


def check_moment(variable: str, ms: int) -> None:
    """Epoch ms, not seconds: as ms they would be in January 1970."""
    if ms in SECONDS_LIKE:
        raise OperatorError(f"{variable}={ms} is a time of 1970 to 1973; it is in milliseconds: {ms}000?")


def check_host(variable: str, host: str) -> None:
    """An IP address or a name as DNS has it."""
    bare = host.removeprefix("[").removesuffix("]").split("%", maxsplit=1)[0]
    try:
        ip_address(bare)
    except ValueError:
        try:
            labels = host.encode("idna").decode().removesuffix(".").split(".")
        except UnicodeError:
            labels = [""]
        if len(host) > 253 or not all(map(_HOST_LABEL.fullmatch, labels)):  # noqa: PLR2004
            raise OperatorError(
                f"{variable}={host[:80]!r} is not a host: write a name or an address, no port, no http://"
            ) from None


def check_hosts(variable: str, text: str) -> None:
    """Hosts joined by commas; `*` is any host. An empty text is refused."""
    for host in filter(None, (part.strip() for part in text.split(","))):
        if host != "*":
            check_host(variable, host)


def is_own_host(host: str, names: Collection[str]) -> bool:
    """May a request name this Host? Addresses, names without a dot and localhost are ours, and so are `names`.

    Any other may be the name of a page that somebody pointed at this machine (DNS rebinding), whose scripts would then
    read our answers. None at all (HTTP/1.0) is no browser's.
    """
    if host == "" or "*" in names:
        return True
    match = _HOST_HEADER.fullmatch(host)
    if match is None:
        return False
    bare = match["name"].lower().removesuffix(".")
    if bare.startswith("[") or "." not in bare or _is_address(bare):
        return True
    return bare in names or bare.endswith((".localhost", ".docker.internal"))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_text(variable: str, text: str) -> None:
    """No line break and no other control character: a secret that was read with the end of its line is invalid.
    Never shown.
    """
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise OperatorError(f"{variable} holds a line break or another control character: write it without")


def check_secret(variable: str, text: str) -> None:
    """What goes into a header: ASCII without blanks. It is never part of the message."""
    if text and not _PRINTABLE.fullmatch(text):
        raise OperatorError(
            f"{variable} holds spaces or characters that are not ASCII: write only the secret"
        )


def check_signing_secret(variable: str, text: str) -> None:
    """A secret of Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes. It is never part of the message."""
    try:
        size = len(base64.b64decode(text.removeprefix(SIGNING_PREFIX), validate=True))
    except ValueError:
        size = 0
    if not text.startswith(SIGNING_PREFIX) or size not in SIGNING_BYTES:
        raise OperatorError(
            f"{variable} must be {SIGNING_PREFIX} and the base64 of {SIGNING_BYTES.start} to {SIGNING_BYTES.stop - 1} "
            f"random bytes: {SIGNING_PREFIX}$(openssl rand -base64 32)"
        )


def check_name(variable: str, text: str) -> None:
    """A name of this package or of another one: letters, digits and `_.-`."""
    if not _NAME.fullmatch(text):
        raise OperatorError(
            f"{variable}={text[:80]!r} is not a name: write letters, digits, '_', '-' and '.', at most 100"
        )


def check_choice(variable: str, text: str, choices: Collection[str]) -> None:
    """One of `choices`."""
    if text not in choices:
        raise OperatorError(f"{variable}={text[:80]!r} is unknown: choose one of {', '.join(choices)}")


def check_class(variable: str, text: str) -> None:
    """The dotted name of a class."""
    if not _DOTTED.fullmatch(text) or "." not in text:
        raise OperatorError(f"{variable}={text[:200]!r} is not a class: write package.module.Class")


def check_contracts(variable: str, text: str) -> None:
    """`module:attribute`, or some of them joined by commas."""
    for part in text.split(","):
        module, colon, attribute = part.strip().partition(":")
        if not colon or not _DOTTED.fullmatch(module) or not _DOTTED.fullmatch(attribute):
            raise OperatorError(
                f"{variable}={text[:200]!r} must be module:attribute, e.g. runtime_definitions.contracts:CONTRACT, "
                "several joined by commas"
            )


def host_port(variable: str, text: str, port: int) -> tuple[str, int]:
    """(host, port) of `HOST`, `HOST:PORT` or `[IPV6]:PORT`; `port` where none is named."""
    host, number = text, ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        number = rest.removeprefix(":")
        if not closed or rest[:1] not in ("", ":"):
            raise OperatorError(f"{variable}={text[:200]!r}: write [ADDRESS] or [ADDRESS]:PORT")
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
    check_host(variable, host)
    if (number or text.endswith(":")) and not (
        number.isascii() and number.isdecimal() and 0 < int(number) <= PORT_MAX
    ):
        raise OperatorError(
            f"{variable}={text[:200]!r}: write HOST or HOST:PORT, a port from 1 to {PORT_MAX}"
        )
    return host, int(number or port)


def http_host(variable: str, url: str) -> tuple[str, int]:
    """Host and port of an http or https URL. The message says what is wrong with it, and nothing of the URL."""
    return url_host(variable, url, ("http", "https"))


def check_store(variable: str, url: str) -> None:
    """A folder or an object store: SCHEME://WHERE. The message says nothing of the URL: there may be a key in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if not _PRINTABLE.fullmatch(url) or "://" not in url or not _SCHEME.fullmatch(parts.scheme):
        raise OperatorError(
            f"{variable} is not a URL: give file:///FOLDER, or SCHEME://PLACE in fsspec's form"
        )
    if parts.scheme in ("file", "local") and (parts.netloc or len(parts.path) < len("/x")):
        raise OperatorError(f"{variable} names no folder: give the whole path, file:///FOLDER")


def url_host(variable: str, url: str, schemes: tuple[str, ...] = ()) -> tuple[str, int]:
    """Host and port of a URL with one of `schemes`, of any without them. A message says nothing of the URL: there may
    be a key in it.
    """
    wanted = (
        f"{'an' if schemes[0].startswith('h') else 'a'} {' or '.join(schemes)} URL" if schemes else "a URL"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not _PRINTABLE.fullmatch(url):
            raise ValueError("it holds spaces or characters that are not ASCII")
        if schemes and parts.scheme not in schemes:
            raise ValueError(f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if "://" not in url or not _SCHEME.fullmatch(parts.scheme):
            raise ValueError("it does not begin with SCHEME://HOST, e.g. https://example.org")
        if not host or port == 0:
            raise ValueError("it has no host, or port 0")
        check_host(variable, host)
    except (ValueError, OperatorError) as error:
        why = "its host is none" if isinstance(error, OperatorError) else str(error)
        if "port" in why.lower() and "host" not in why:
            why = f"its port is not between 1 and {PORT_MAX}"
        raise OperatorError(f"{variable} must be {wanted}: {why}") from None
    return host, port or (443 if parts.scheme in ("https", "wss") else 80)


def check_bootstrap(variable: str, text: str) -> None:
    """`HOST:PORT`, or some of them joined by commas."""
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if (
            "://" in part
            or not host
            or not port.isascii()
            or not port.isdecimal()
            or not 0 < int(port) <= PORT_MAX
        ):
            raise OperatorError(f"{variable}={text[:200]!r}: write HOST:PORT, several joined by commas")
        check_host(variable, host)


def check_subjects(variable: str, subjects: tuple[str, ...]) -> None:
    """Names without blanks and without what separates or encloses names elsewhere; each once, however it is spelt."""
    if not subjects:
        raise OperatorError(f"{variable} is empty; name at least one, e.g. {variable}=BTCUSDT")
    spelt: dict[str, int] = {}
    for number, subject in enumerate(subjects):
        if not _SUBJECT.fullmatch(subject) or not subject.isprintable():
            raise OperatorError(
                f"{variable}: {subject[:80]!r} is not a subject; join several by commas: BTCUSDT,ETHUSDT"
            )
        first = spelt.setdefault(_without_spelling(subject), number)
        if first != number:
            raise OperatorError(
                f"{variable} names a subject twice: {subjects[first]} and {subject} are the same symbol; keep one "
                "of them"
            )


def _without_spelling(subject: str) -> str:
    """BTCUSDT, btcusdt and BTC-USDT are one."""
    folded = unicodedata.normalize("NFKC", subject).casefold()
    return "".join(filter(str.isalnum, folded)) or folded


def networks_of(variable: str, text: str) -> list[Network]:
    """Networks of a comma-separated list, e.g. `127.0.0.0/8,::1`. Raises OperatorError naming the invalid part."""
    networks = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        try:
            networks.append(ip_network(part))
        except ValueError as error:
            raise OperatorError(f"{variable}: {error}; write e.g. 127.0.0.0/8,::1") from error
    return networks


def is_private(network: Network) -> bool:
    """Nobody of the internet calls from there: a private network, or one address that somebody named."""
    if network.prefixlen == network.max_prefixlen:
        return True
    return any(
        network.subnet_of(private)  # type: ignore[arg-type]
        for private in _PRIVATE
        if private.version == network.version
    )
