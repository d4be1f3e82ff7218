#!/usr/bin/env python3
"""Makes a golden journal: a gateway of the release is given a bit of everything, and what it kept is written down.

Usage: make.py FOREBAY DIRECTORY   (journal and expected.json go to DIRECTORY; with SEAL=1 in the environment
the second half of it is sealed with journal.key, which is beside this)

Everything stays within its windows and retention for a hundred years, so that a test may open it whenever it runs.
"""
import base64, hashlib, hmac, http.client, http.server, json, os, shutil, signal, subprocess, sys, tempfile, threading, time

forebay, out = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
here = os.path.dirname(os.path.abspath(__file__))
sealed = os.environ.get("SEAL")
work = tempfile.mkdtemp()
SECRET = "golden-secret-of-32-characters!!"


class App(http.server.BaseHTTPRequestHandler):
    answers = {}

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        status = App.answers.get(path, 200)
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        body = b"answer of " + path.encode()
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
threading.Thread(target=app.serve_forever, daemon=True).start()
port = app.server_port


def config(delivered, key):
    def source(name, more):
        provider = "acme-json" if name == "signed" else "acme"
        return f"  {name}: {{ path: /{name}, provider: {provider}, secret: {SECRET}, dedupe: {{ window: 36500d }}, {more} }}\n"
    def to(name, more=""):
        return (f"  {name}: {{ url: http://127.0.0.1:{port}/{name}, retry: {{ initial: 1ms, max: 1ms, max_attempts: 2, max_age: 36500d }}, "
                f"breaker: {{ failures: 1000, cooldown: 1s }}{more} }}\n")
    return (
        "ingress: { listen: 127.0.0.1:0 }\nadmin: { listen: 127.0.0.1:0 }\n"
        f"journal: {{ dir: {work}/data, max_size: 4MiB, retention: {{ delivered: {delivered}, dead: 36500d }}{key} }}\n"
        "log: { format: json, level: info }\n"
        "providers:\n  acme:\n    verify: { hmac: { hash: sha256, signature: { header: X-Sig, prefix: \"sha256=\", encoding: hex } } }\n"
        "    event: { id: \"header:X-Id\", type: \"header:X-Type\" }\n"
        "  acme-json:\n    verify: { hmac: { hash: sha256, signature: { header: X-Sig, prefix: \"sha256=\", encoding: hex } } }\n"
        "    event: { id: \"json:/id\", type: \"header:X-Type\" }\n"
        "sources:\n" + source("good", "to: [good]") + source("both", "to: [good, dead]") + source("dead", "to: [dead]")
        + source("signed", "to: [good]") + source("paused", "to: [paused]") + source("captured", "to: []") + source("proxy", "mode: proxy, to: [good]")
        + source("refused", "mode: proxy, to: [refused]")
        + "destinations:\n" + to("good") + to("dead") + to("paused") + to("refused"))


def start(delivered="36500d", key=""):
    with open(f"{work}/forebay.yaml", "w") as file:
        file.write(config(delivered, key))
    child = subprocess.Popen([forebay, "serve", "-c", f"{work}/forebay.yaml"], stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        said = json.loads(line)
        fields = said.get("fields", said)
        if fields.get("message") == "ready":
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return child, fields["ingress"], fields["admin"]
    raise SystemExit("it did not start")


def stop(child):
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0


def ask(address, method, path, body=b"", headers={}):
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), answer.read()


def post(ingress, source, number, body, expect=200):
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Sig": signature, "X-Id": f"{source}-{number}", "X-Type": f"{source}.made", "X-Of": "golden",
               "Content-Type": "application/json"}
    status, headers, _ = ask(ingress, "POST", f"/{source}?n={number}", body, headers)
    assert status == expect, (source, number, status)
    return headers["forebay-event-id"], "forebay-duplicate" in headers


def settled(admin, status, count):
    for _ in range(600):
        found = json.loads(ask(admin, "GET", f"/api/v1/events?status={status}&limit=500")[2])["items"]
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise SystemExit(f"{len(found)} are {status}, and not {count}")


if sealed:
    shutil.copy(f"{here}/journal.key", f"{work}/journal.key")
bodies = {}
App.answers = {"/dead": 500, "/refused": 422}

# History of which nothing stays but its claims, which are then in a run.
child, ingress, admin = start()
gone = [post(ingress, "captured", number, b"\0" * 60_000)[0] for number in range(4)]
stop(child)
child, ingress, admin = start("1s")
for _ in range(600):
    if os.listdir(f"{work}/data/claims") != ["runs"] and len(os.listdir(f"{work}/data/log")) == 1:
        break
    time.sleep(0.05)
else:
    raise SystemExit("no run of claims")
stop(child)

child, ingress, admin = start()
assert ask(admin, "POST", "/api/v1/destinations/paused/pause")[0] == 200
def body(source, number):
    return json.dumps({"id": f"{source}-{number}", "of": source, "number": number, "text": "grüße\u0000 " + source * 20}).encode()
def send(source, number, expect=200):
    id, duplicate = post(ingress, source, number, body(source, number), expect)
    assert not duplicate
    bodies[id] = body(source, number)
    return id
for number in range(4):
    if sealed and number == 2:  # the first half is clear
        settled(admin, "dead", 4)
        stop(child)
        child, ingress, admin = start(key=", encryption_key: { file: journal.key }")
    for source in ["good", "signed", "both", "dead", "paused", "captured", "proxy"]:
        send(source, number)
    send("refused", number, 422)
settled(admin, "dead", 8)
for number in range(2):
    assert post(ingress, "good", number, body("good", number))[1], "a duplicate"
assert post(ingress, "signed", 2, b'{"id": "signed-2", "text": "another body"}')[1], "a duplicate with another body"
same = post(ingress, "good", 9, body("good", 3))  # the same signed bytes under another id
bodies[same[0]] = body("good", 3)
rearmed = post(ingress, "dead", 0, body("dead", 0))[0]  # a duplicate of a dead one has it tried again
App.answers = {"/refused": 422}
replayed = json.loads(ask(admin, "GET", "/api/v1/events?source=dead&limit=500")[2])["items"]
replayed = [item["id"] for item in replayed if item["provider_event_id"] == "dead-1"][0]
time.sleep(0.5)
assert ask(admin, "POST", f"/api/v1/events/{replayed}/replay", b"{}", {"content-type": "application/json"})[0] == 202
for _ in range(600):
    status = json.loads(ask(admin, "GET", f"/api/v1/events/{replayed}")[2])["status"]
    if status == "delivered":
        break
    time.sleep(0.05)
assert status == "delivered", status
app.shutdown()
app.server_close()
items = []
page = json.loads(ask(admin, "GET", "/api/v1/events?limit=500")[2])
assert page["next"] is None
for item in page["items"]:
    one = json.loads(ask(admin, "GET", f"/api/v1/events/{item['id']}")[2])
    status, _, kept = ask(admin, "GET", f"/api/v1/events/{item['id']}/body")
    assert status == 200 and kept == bodies[item["id"]]
    items.append({
        "id": one["id"], "source": one["source"], "type": one["type"], "provider_event_id": one["provider_event_id"],
        "path": one["path"], "query": one["query"], "status": one["status"], "duplicates": one["duplicates"],
        "size_bytes": one["size_bytes"], "received_at": one["received_at"], "headers": one["headers"],
        "body_base64": base64.b64encode(kept).decode(),
        "deliveries": one["deliveries"],
    })
stop(child)

shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
shutil.copytree(f"{work}/data", f"{out}/journal", ignore=shutil.ignore_patterns("index", "lock"))
with open(f"{out}/expected.json", "w") as file:
    lines = ",\n".join(json.dumps(item, sort_keys=True) for item in items)
    file.write('{"gone": %s,\n"items": [\n%s\n]}\n' % (json.dumps(gone), lines))
shutil.rmtree(work)
