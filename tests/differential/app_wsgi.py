"""An application for gunicorn: notes each request as gunicorn reads it."""

import hashlib
import json
import os

LOG = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def application(environ, start_response):
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(65536):
        digest.update(piece)
    entry = {"id": environ.get("HTTP_FOREBAY_EVENT_ID"), "sha256": digest.hexdigest()}
    os.write(LOG, (json.dumps(entry) + "\n").encode())
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
