"""The servers behind the gateway, each on a free port, each with a log of the requests that it read."""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{process.args[0]} does not listen")


class Server:
    """Started programs, and where they log. `seen` is what the last one in the chain read."""

    def __init__(self, name, scratch):
        self.name, self.scratch = name, scratch
        self.port = free_port()
        self.log = scratch / f"{name}.seen"
        self.log.touch()
        self.programs = []

    def start(self, port, *command, **options):
        errors = open(self.scratch / f"{self.name}.errors", "ab")
        options = {"stdout": errors, "stderr": errors, "stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen([str(word) for word in command], **options)
        self.programs.append(process)
        wait_for(port, process)

    def seen(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def parsed(self):
        """How many requests the server itself says that it read; none if `seen` is its own word."""
        return None

    def stop(self):
        for process in reversed(self.programs):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def backend(self):
        port = free_port()
        self.start(port, sys.executable, HERE / "backend.py", port, self.log)
        return port


class Node(Server):
    def __init__(self, scratch):
        super().__init__("node", scratch)
        self.start(self.port, "node", "--max-http-header-size=65536", HERE / "app.js", self.port, self.log)
        self.version = "Node " + output("node", "--version").lstrip("v")


class Gunicorn(Server):
    def __init__(self, scratch, program):
        super().__init__("gunicorn", scratch)
        options = ["--bind", f"127.0.0.1:{self.port}", "--chdir", HERE, "--threads", "8", "--worker-tmp-dir", scratch]
        options += ["--limit-request-line", "0", "--limit-request-field_size", "0"]  # they are lower than the gateway's
        environment = {"LOG": str(self.log), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        self.start(self.port, program, *options, "app_wsgi:application", env=environment)
        self.version = "gunicorn " + re.search(r"[\d.]+", output(program, "--version"))[0]


class Nginx(Server):
    def __init__(self, scratch):
        super().__init__("nginx", scratch)
        behind = self.backend()
        self.access = scratch / "nginx.access"
        config = scratch / "nginx.conf"
        config.write_text(f"""
            daemon off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.errors; worker_processes 1;
            events {{}}
            http {{
                log_format seen '$status $http_forebay_event_id';
                access_log {self.access} seen;
                {"".join(f"{kind}_temp_path {scratch}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
                large_client_header_buffers 8 64k; client_max_body_size 2m; client_body_buffer_size 2m;
                server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://127.0.0.1:{behind}; }} }}
            }}""")
        self.start(self.port, "nginx", "-c", config, "-p", scratch)
        self.version = "nginx " + re.search(r"nginx/([\d.]+)", output("nginx", "-v"))[1]

    def parsed(self):
        lines = self.access.read_text().splitlines()
        return [line.split()[-1] for line in lines if line.startswith("200 ")] + [
            f"refused: {line}" for line in lines if not line.startswith("200 ") and not line.startswith("400 -")
        ]


class Haproxy(Server):
    def __init__(self, scratch):
        super().__init__("haproxy", scratch)
        behind = self.backend()
        self.access = scratch / "haproxy.access"
        config = scratch / "haproxy.cfg"
        config.write_text(f"""
global
    log stdout format raw local0
    tune.bufsize 65536
    tune.http.maxhdr 256
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:{self.port}
    http-request capture req.hdr(Forebay-Event-Id) len 64
    log-format "%ST %[capture.req.hdr(0)]"
    option dontlognull
    default_backend app
backend app
    server app 127.0.0.1:{behind}
""")
        self.start(self.port, "haproxy", "-f", config, stdout=open(self.access, "ab"))
        self.version = "HAProxy " + re.search(r"version ([\d.]+)", output("haproxy", "-v"))[1]

    def parsed(self):
        lines = [line for line in self.access.read_text().splitlines() if re.match(r"-?\d+ ", line)]
        return [line.split()[-1] if line.startswith("200 ") else f"refused: {line}" for line in lines]


def output(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip()
