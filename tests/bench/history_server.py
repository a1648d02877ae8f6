"""A local history server for the bench: Binance's klines of any minute, 1,000 a page. Prints its port."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from coordinator.streams.clock import wall_ms

MINUTE_MS = 60_000


class Klines(BaseHTTPRequestHandler):
    """Every minute has its candle."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        answer: object = {"serverTime": wall_ms()}
        if "startTime" in query:
            first, last = -(-int(query["startTime"]) // MINUTE_MS) * MINUTE_MS, int(query["endTime"])
            opens = range(first, last + 1, MINUTE_MS)[: int(query["limit"])]
            answer = [[at, "1.5", "2", "1", "1.5", "3", at + 59_999, "0", 3, "0", "0", "0"] for at in opens]
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Nothing: the bench prints its own."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Klines)
print(server.server_address[1], flush=True)
server.serve_forever()
