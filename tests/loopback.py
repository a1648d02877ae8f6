"""HTTP to a node on this machine: `httpx.get(url, verify=NO_CERTIFICATES)`.

Without it each client of httpx first reads the machine's certificates, for 30 ms of CPU. What polls a node makes many.
"""

from __future__ import annotations

import ssl

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, and is asked about nobody: a node on this machine speaks plain HTTP."""
