"""The gateway: the built binary with one source that takes anything and one that wants signatures."""

import hashlib
import http.client
import json
import re
import socket
import subprocess
import time

from streams import SECRET

PATIENCE_S = 30


class Gateway:
    def __init__(self, binary, scratch, application_port):
        config = scratch / "forebay.yaml"
        config.write_text(f"""
ingress: {{ listen: 127.0.0.1:0 }}
admin: {{ listen: 127.0.0.1:0 }}
journal: {{ dir: {scratch}/data, max_size: 256MiB }}
log: {{ format: json }}
sources:
  hooks: {{ path: /hooks, verify: none, dedupe: off, to: [app] }}
  signed: {{ path: /signed, provider: github, secret: "{SECRET}", dedupe: off, to: [app] }}
destinations:
  app: {{ url: "http://127.0.0.1:{application_port}/in", retry: {{ initial: 100ms, max: 500ms, max_attempts: 5 }} }}
""")
        self.log = open(scratch / "forebay.log", "wb+")
        command = [binary, "serve", "-c", str(config)]
        self.process = subprocess.Popen(command, stderr=self.log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            text = (scratch / "forebay.log").read_text()
            line = next((line for line in text.splitlines(keepends=True) if '"ready"' in line and line.endswith("\n")), None)
            if line:
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the gateway did not start:\n{text}")
            time.sleep(0.02)
        facts = json.loads(line)
        facts = {**facts, **facts.get("fields", {})}
        address = lambda name: (facts[name].rsplit(":", 1)[0], int(facts[name].rsplit(":", 1)[1]))
        self.ingress, self.admin = address("ingress"), address("admin")

    def get(self, path):
        connection = http.client.HTTPConnection(*self.admin, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def send(self, stream):
        """Sends `stream`, says that no more will come, and gives the statuses of all answers."""
        with socket.create_connection(self.ingress, PATIENCE_S) as connection:
            answers = b""
            try:
                connection.sendall(stream)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has heard enough
            try:
                while piece := connection.recv(65536):
                    answers += piece
            except ConnectionError:
                pass
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers)]

    def events(self):
        """The id, status and body's hash of every event that is kept."""
        kept, cursor = [], ""
        connection = http.client.HTTPConnection(*self.admin, timeout=PATIENCE_S)
        while True:
            connection.request("GET", f"/api/v1/events?limit=500{cursor}")
            page = json.loads(connection.getresponse().read())
            for item in page["items"]:
                connection.request("GET", f"/api/v1/events/{item['id']}/body")
                body = connection.getresponse().read()
                kept.append((item["id"], item["status"], hashlib.sha256(body).hexdigest()))
            if not page["next"]:
                connection.close()
                return kept
            cursor = f"&cursor={page['next']}"

    def settle(self, expected):
        """Waits until so many events are kept and none of them is pending; says so if that does not happen."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            metrics = self.get("/metrics").decode()
            number = lambda name: sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))
            stored, pending = number("forebay_events_stored_total{"), number("forebay_pending_deliveries{")
            if stored >= expected and pending == 0:
                return []
            if time.monotonic() > deadline:
                return [f"{stored:.0f} of {expected} are kept, {pending:.0f} of them are not settled"]
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
