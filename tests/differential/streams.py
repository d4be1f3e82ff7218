"""Byte streams: the hostile ones of the corpus, signed ones, and mutations of both, the same for the same seed."""

import hashlib
import hmac
import json
import random

SECRET = "It's a Secret to Everybody"
MUTATED_MAX = 64 << 10

# What mutations put in: what has told parsers apart before.
FRAGMENTS = [
    b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b" ", b"\t", b"\0", b"\x0b", b"\xa0", b":", b",", b";", b"#", b"\\", b"+", b"-",
    b"0", b"1", b"f", b"0\r\n\r\n", b"Content-Length: 2\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Host: b\r\n", b"Connection: close\r\n", b"Connection: keep-alive, X-Many\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"TE: trailers\r\n", b"Forebay_Event-Id: evt_0\r\n", b"Content_Length: 3\r\n",
    b"X-Many: 1\r\n", b"HTTP/1.0", b"HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]


def part(value):
    text, times = value if isinstance(value, list) else (value, 1)
    return text.encode("latin-1") * times


def corpus(path):
    with open(path, encoding="ascii") as lines:
        return [b"".join(part(value) for value in json.loads(line)["send"]) for line in lines]


def signed(number):
    """A genuine request to `/signed`, by length or in chunks; every fourth is forged."""
    body = b'{"number":%d,"text":"\r\n\r\n0\r\n\r\n"}' % number
    mac = hmac.new(SECRET.encode(), body if number % 4 else b"other", hashlib.sha256).hexdigest()
    head = (
        "POST /signed?n=%d HTTP/1.1\r\nHost: hooks.test\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: d%d\r\n"
        "X-Hub-Signature-256: sha256=%s\r\n" % (number, number, mac)
    ).encode()
    if number % 2:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def plain(number):
    """A good request to `/hooks`: methods, targets, binary bodies and several at once."""
    body = bytes(range(256))[: number % 257]
    target = ["/hooks", "/hooks?a=b&a=%00", "http://a/hooks", "/hooks?{}|"][number % 4]
    one = b"POST %s HTTP/1.1\r\nHost: a\r\nX-Number: %d\r\n" % (target.encode(), number)
    by_length = one + b"Content-Length: %d\r\n\r\n" % len(body) + body
    by_chunks = one + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%X\r\n%s\r\n" % (len(body), body) if body else b"")
    by_chunks += b"0\r\nX-Trailer: y\r\n\r\n"
    return [by_length, by_chunks, by_length + by_chunks, by_chunks + by_length][number // 4 % 4]


def mutate(stream, others, rng):
    stream = bytearray(stream)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(stream) + 1)
        end = min(len(stream), at + rng.choice([0, 0, 1, 1, 2, 8]))
        kind = rng.randrange(6)
        if kind <= 2:
            stream[at:end] = rng.choice(FRAGMENTS)
        elif kind == 3:
            stream[at:end] = bytes([rng.randrange(256)])
        elif kind == 4:
            del stream[at:end]
        else:
            other = rng.choice(others)
            stream[at:end] = other[rng.randrange(len(other)) :][:2000]
        if not stream:
            stream = bytearray(b"\r\n")
    return bytes(stream)


def all_streams(corpus_path, mutations, seed):
    hostile = corpus(corpus_path)
    good = [plain(number) for number in range(64)] + [signed(number) for number in range(32)]
    rng = random.Random(seed)
    short = [stream for stream in hostile + good if len(stream) <= MUTATED_MAX]
    # Good ones oftener: what is only a little wrong is what gets through.
    parents = [rng.choice(good) if rng.random() < 0.6 else rng.choice(short) for _ in range(mutations)]
    return hostile + good + [mutate(parent, short, rng) for parent in parents]
