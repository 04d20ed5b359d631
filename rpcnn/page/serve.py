"""Serves the page on this machine, with a drop zone for pictures and a model behind it."""

import json
import pathlib
import secrets
import socketserver
import sys
import threading
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .items import Item
from .write import PageWriter, asset

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".jpg": "image/jpeg"}
RULES = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
"""Content security policy: the page fetches nothing from elsewhere, whatever a picture's name says."""
WAITING = 60.0  # seconds for the next bytes of a picture, so that a stalled upload does not keep the others waiting


class PageServer(ThreadingHTTPServer):
    """A server on 127.0.0.1 for one page.

    Every path begins with a random token, which only who sees `url` knows, and the header Host must name the server, so
    that no other page in the browser and no other user reaches it. Pictures are parsed one at a time; others wait.

    Args:
        writer: of the page, in a folder that may be written.
        parse: makes an item of a picture file and its name. Raises ValueError for what is no picture; the message is
            shown.
        max_bytes: of an uploaded picture.
        port: 0 takes a free one.

    Raises:
        OSError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, writer: PageWriter, parse: Callable[[pathlib.Path, str], Item], max_bytes: int, port: int = 0):
        super().__init__(("127.0.0.1", port), PageHandler)
        self.writer, self.parse, self.max_bytes = writer, parse, max_bytes
        self.token, self.turn = secrets.token_urlsafe(18), threading.Lock()

    def server_bind(self) -> None:
        """Binds the port without asking the network for the name of 127.0.0.1, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a browser that went away; reports everything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class PageHandler(BaseHTTPRequestHandler):
    """Answers for a :class:`PageServer`."""

    server: PageServer
    timeout = WAITING

    def do_GET(self) -> None:
        """The page, its data, and the pictures so far."""
        name = self.asked()
        writer = self.server.writer
        if name == "":
            page = asset("index.html").replace("</body>", '<script src="demo.js"></script>\n</body>')
            self.answer(HTTPStatus.OK, page.encode(), ".html")
        elif name in ("style.css", "page.js", "demo.js"):
            self.answer(HTTPStatus.OK, asset(name).encode(), pathlib.PurePath(name).suffix)
        elif name == "data.js":
            limit = f"const RPCNN_LIMIT = {self.server.max_bytes};\n"
            self.answer(HTTPStatus.OK, (writer.data() + limit).encode(), ".js")
        elif name in {f"{folder}/{number:05d}{kind}" for folder, kind in (("items", ".js"), ("thumbnails", ".jpg"))
                      for number in range(len(writer.index))}:  # fmt: skip
            self.answer(HTTPStatus.OK, (writer.folder / name).read_bytes(), pathlib.PurePath(name).suffix)
        elif name is not None:
            self.refuse(HTTPStatus.NOT_FOUND, "there is no such file")

    def do_POST(self) -> None:
        """A picture, as the body of `parse?name=NAME`: its entry, or why it could not be parsed."""
        if (name := self.asked()) is None:
            return
        if name != "parse":
            return self.refuse(HTTPStatus.NOT_FOUND, "there is no such action")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 18):
            return self.refuse(HTTPStatus.LENGTH_REQUIRED, "the length of the picture is missing")
        if int(length) > self.server.max_bytes:
            most = f"{self.server.max_bytes / 1e6:g}"
            return self.refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"has {int(length) / 1e6:.1f} MB, more than --max-megabytes {most}"
            )
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        title = query.get("name", ["picture"])[0][:200]
        with self.server.turn:
            try:
                entry = self.parsed(int(length), title)
            except ValueError as error:
                return self.refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            except (OSError, MemoryError, RuntimeError) as error:  # the disk, the memory, the device
                return self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        return self.answer(HTTPStatus.OK, json.dumps(entry).encode(), ".json")

    def parsed(self, length: int, title: str) -> dict:
        """Reads the picture and parses it; returns its entry of the page."""
        path = self.server.writer.folder / "upload"
        data = self.rfile.read(length)
        if len(data) < length:
            raise ValueError(f"the upload ended after {len(data)} of {length} bytes")
        path.write_bytes(data)
        try:
            return self.server.writer.add(self.server.parse(path, title))
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"image: {path} ").replace(str(path), title)) from None
        finally:
            path.unlink(missing_ok=True)

    def asked(self) -> str | None:
        """What comes behind the token in the path; None, after an answer, without the token or for another host."""
        hosts = {f"{host}:{self.server.server_port}" for host in ("127.0.0.1", "localhost")}
        path = urllib.parse.urlsplit(self.path).path
        begin, _, name = path.removeprefix("/").partition("/")
        if self.headers.get("Host") in hosts and secrets.compare_digest(begin.encode(), self.server.token.encode()):
            return name
        self.refuse(HTTPStatus.FORBIDDEN, "the address must be the one that rpcnn demo printed")
        return None

    def refuse(self, status: HTTPStatus, why: str) -> None:
        """Answers with an error."""
        self.answer(status, json.dumps({"error": why}).encode(), ".json")

    def answer(self, status: HTTPStatus, body: bytes, suffix: str) -> None:
        """Sends an answer of which no browser keeps a copy."""
        self.close_connection = True
        self.send_response(status)
        headers = {
            "Content-Type": f"{KINDS.get(suffix, 'application/json')}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": RULES,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Prints nothing: the page shows what happens."""
