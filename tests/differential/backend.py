"""An application that notes each request as it reads it: by one length, and nothing else. What proxies talk to."""

import asyncio
import hashlib
import json
import sys


async def serve(reader, writer, note):
    try:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as cut:
                if cut.partial:
                    note({"odd": cut.partial.decode("latin-1")})
                return
            lines = head.decode("latin-1").split("\r\n")[:-2]
            fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
            named = lambda name: [value for field, value in fields if field.lower() == name]
            lengths = named("content-length")
            if len(lengths) > 1 or named("transfer-encoding") or "\n" in "".join(lines):
                note({"odd": head.decode("latin-1")})
                return
            body = await reader.readexactly(int(lengths[0]) if lengths else 0)
            ids = named("forebay-event-id")
            note({"id": ids[0] if len(ids) == 1 else ids, "sha256": hashlib.sha256(body).hexdigest()})
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main(port, log_path):
    with open(log_path, "a", buffering=1, encoding="utf-8") as log:
        note = lambda entry: log.write(json.dumps(entry) + "\n")
        server = await asyncio.start_server(lambda r, w: serve(r, w, note), "127.0.0.1", port, limit=1 << 20)
        async with server:
            await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
