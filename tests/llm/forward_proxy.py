"""A company's forward proxy on loopback: it knows one host, and reads TLS, too, with a certificate of its own CA."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HOST = "models.example"  # reserved: no DNS knows it


@dataclass
class ForwardProxy:
    """Its address, and what it was asked for: whole addresses, and hosts by CONNECT."""

    url: str = ""
    asked: list[str] = field(default_factory=list)


def own_ca(folder: Path) -> tuple[Path, Path]:
    """Key and certificate of the host, which stands for the CA, too."""
    key, certificate = folder / "key.pem", folder / "ca.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-keyout", key, "-out", certificate, "-subj", f"/CN={HOST}",
            "-addext", f"subjectAltName=DNS:{HOST}",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@contextmanager
def forward_proxy(server: str, ca: tuple[Path, Path] | None = None) -> Iterator[ForwardProxy]:
    """The proxy, until the block ends.

    Args:
        server: address of the server that stands for the one host.
        ca: see `own_ca`; None: it does not take CONNECT.
    """
    proxy, target = ForwardProxy(), urlsplit(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            proxy.asked.append(f"CONNECT {self.path}")
            assert ca is not None
            self.send_response(200)
            self.end_headers()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(ca[1], ca[0])
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            self.close_connection = False

        def do_POST(self) -> None:
            proxy.asked.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            there = HTTPConnection(target.hostname or "", target.port or 0)
            there.request(self.command, urlsplit(self.path).path, body, dict(self.headers))
            reply = there.getresponse()
            payload = reply.read()
            there.close()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        proxy.url = f"http://127.0.0.1:{listening.server_address[1]}"
        try:
            yield proxy
        finally:
            listening.shutdown()
