"""The listening test's page and its few requests, on this machine alone.

    /TOKEN/                 the page; its style and script beside it
    /TOKEN/media/NAME       a sound that is being listened to, by its random name
    /TOKEN/api/REQUEST      start, check, checked, next, answer: JSON in, JSON out

There is no other address: no file is looked up by what a request names. The token is drawn anew by every
start; a page of another site knows neither it nor, by the Host it would send, gets past the door.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from visaudio.evaluation.listening.session import Refusal, Session

HOST = "127.0.0.1"
LARGEST_REQUEST = 1 << 16
HERE = Path(__file__).parent
FILES = {
    "": ("listen.html", "text/html; charset=utf-8"),
    "listen.css": ("listen.css", "text/css; charset=utf-8"),
    "listen.js": ("listen.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ListeningServer(ThreadingHTTPServer):
    """Bound at once (OSError if the port is taken); `serve_forever` answers."""

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(18)
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ListeningServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "listening", ""
    timeout = 60

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_HEAD(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, respond) -> None:
        try:
            respond(self._place())
        except Refusal as refusal:
            self.close_connection = True  # a body may be left unread
            self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), "application/json")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _place(self) -> str:
        """What comes after the token."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in (HOST, "localhost"):
            raise Refusal(403, "not from here")
        token, slash, place = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refusal(404, "there is nothing here")
        return place

    def _get(self, place: str) -> None:
        if place in FILES:
            name, kind = FILES[place]
            self._send(200, (HERE / name).read_bytes(), kind)
        elif place.startswith("media/") and (found := self.server.session.media(place[6:])):
            self._send_media(*found)
        else:
            raise Refusal(404, "there is nothing here")

    def _post(self, place: str) -> None:
        session, asked = self.server.session, self._json()
        who = asked.get("listener")
        requests = {
            "api/start": lambda: session.start(who),
            "api/check": lambda: session.check(who),
            "api/checked": lambda: session.checked(who, asked.get("said")),
            "api/next": lambda: session.next(who),
            "api/answer": lambda: session.answer(
                who, asked.get("trial"), asked.get("given"), asked.get("plays")
            ),
        }
        if place not in requests:
            raise Refusal(404, "there is nothing here")
        self._send(200, json.dumps(requests[place]()).encode(), "application/json")

    def _json(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise Refusal(415, "expected application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_REQUEST:
            raise Refusal(413, f"expected at most {LARGEST_REQUEST} bytes of a stated length")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise Refusal(400, "expected JSON") from error
        if not isinstance(asked, dict):
            raise Refusal(400, "expected a JSON object")
        return asked

    def _send_media(self, data: bytes, kind: str) -> None:
        """Whole, or the one range that was asked for: players jump by ranges."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, data, kind, {"Accept-Ranges": "bytes"})
            return
        first = int(wanted[1])
        last = min(int(wanted[2] or len(data)), len(data) - 1)
        if first > last:
            self._send(416, b"", kind, {"Content-Range": f"bytes */{len(data)}"})
            return
        self._send(206, data[first : last + 1], kind, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: addresses hold the token."""
