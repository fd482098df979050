#!/usr/bin/env bash
# htmx.org 4.0.1, with its own extension hx-sse: both scripts stand in the head with `defer`, htmx first.
# Expected: deferred scripts run in order before DOMContentLoaded, on which htmx starts, as 2.x did; the stream opens
#   whichever script arrives first.
# Seen: htmx starts by a timer of zero as soon as its own script has run. An extension that arrives 300 ms later is
#   registered and unused: the page asks for no stream, and nothing is said. htmx.org 2.0.8 with htmx-ext-sse 2.2.4 opens it.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet 'playwright==1.65.2'
for package in htmx.org@4.0.1 htmx.org@2.0.8 htmx-ext-sse@2.2.4; do
    mkdir -p "$package" && tar xzf "$(npm pack --silent "$package")" -C "$package"
done
cat >streams.py <<'PY'
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import sync_playwright

NEW = ("htmx.org@4.0.1/package/dist/htmx.js", "htmx.org@4.0.1/package/dist/ext/hx-sse.js", '<p hx-sse:connect="/stream">')
OLD = (
    "htmx.org@2.0.8/package/dist/htmx.js", "htmx-ext-sse@2.2.4/package/sse.js",
    '<p hx-ext="sse" sse-connect="/stream">',
)


def opened(htmx: str, extension: str, element: str, late: float) -> bool:
    """Whether the page asks for the stream, its extension arriving so many seconds late."""
    asked = threading.Event()
    page = f'<head><script defer src="/{htmx}"></script><script defer src="/{extension}"></script></head>{element}'

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/stream":
                asked.set()
            if self.path == f"/{extension}":
                time.sleep(late)
            path = Path(self.path[1:])
            body = path.read_bytes() if path.is_file() else page.encode() if self.path == "/" else b""
            kind = "text/javascript" if path.suffix == ".js" else "text/html" if self.path == "/" else "text/event-stream"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        found = asked.wait(10)
        browser.close()
    server.shutdown()
    return found


print("4.0.1:", opened(*NEW, 0), opened(*NEW, 0.3), "2.0.8:", opened(*OLD, 0), opened(*OLD, 0.3))
PY
said=$(venv/bin/python streams.py)
echo "stream opened with the extension at once, and 300 ms late: $said"
[[ $said == *" False 2.0.8: True True" ]]
