"""HTTP to a node on this machine: `httpx.get(url, verify=NO_CERTIFICATES)`.

Without it each httpx client first reads the machine's certificates (30 ms of CPU), and tests that poll a node make
many.
"""

from __future__ import annotations

import ssl

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""A context without any certificates; it is never used, because a node on this machine speaks plain HTTP."""
