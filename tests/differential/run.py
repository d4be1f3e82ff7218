"""Whatever is sent to the gateway, the server behind it sees the requests that the gateway kept, and no other."""

import argparse
import collections
import concurrent.futures
import pathlib
import sys
import tempfile
import time

import servers
import streams
from gateway import Gateway

SENDERS = 16
GOOD = b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ngood"


def check(server, gateway, everything):
    with concurrent.futures.ThreadPoolExecutor(SENDERS) as senders:
        answers = list(senders.map(gateway.send, everything))
    statuses = collections.Counter(status for of_one in answers for status in of_one)
    if gateway.send(GOOD) != [200]:
        return ["the next good request was not answered with 200"], ""
    promised = statuses[200] + 1
    problems = gateway.settle(promised)
    kept, seen = gateway.events(), server.seen()

    odd = [entry for entry in seen if "odd" in entry or not isinstance(entry["id"], str)]
    problems += [f"read as something odd: {entry}" for entry in odd[:5]]
    seen = [(entry["id"], entry["sha256"]) for entry in seen if entry not in odd]
    if len(kept) != promised:
        problems.append(f"{promised} were answered with 200, {len(kept)} are kept")
    problems += [f"{event} is {status}, not delivered" for event, status, _ in kept if status != "delivered"][:5]
    committed = {(event, digest) for event, _, digest in kept}
    problems += [f"kept, but never seen with that body: {entry}" for entry in committed - set(seen)][:5]
    problems += [f"seen, but never kept with that body: {entry}" for entry in set(seen) - committed][:5]
    if len(seen) != len(kept):
        problems.append(f"{len(kept)} events are kept, {len(seen)} requests were seen")
    if (parsed := server.parsed()) is not None and sorted(parsed) != sorted(event for event, _ in seen):
        extra = collections.Counter(parsed) - collections.Counter(event for event, _ in seen)
        problems.append(f"{server.name} itself read {len(parsed)} requests: {list(extra)[:5]}")

    refused = sum(count for status, count in statuses.items() if status >= 400)
    # Otherwise the streams did not reach what is to be tried.
    if promised < len(everything) // 10 or statuses[400] < len(everything) // 4 or statuses[401] == 0:
        problems.append(f"too few were taken or refused: {dict(statuses)}")
    if statuses[500]:
        problems.append(f"{statuses[500]} were answered with 500")
    said = f"{len(everything) + 1} streams, {len(kept)} events kept, {len(seen)} requests seen, {refused} refused"
    return problems, said


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--mutations", type=int, required=True)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--binary", required=True)
    options.add_argument("--gunicorn", required=True)
    options.add_argument("--corpus", required=True)
    options = options.parse_args()

    everything = streams.all_streams(options.corpus, options.mutations, options.seed)
    kinds = [servers.Nginx, servers.Haproxy, servers.Node, lambda scratch: servers.Gunicorn(scratch, options.gunicorn)]
    failed = False
    for kind in kinds:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            begun, running = time.monotonic(), []
            try:
                server = kind(scratch)
                running.append(server)
                gateway = Gateway(options.binary, scratch, server.port)
                running.append(gateway)
                problems, said = check(server, gateway, everything)
            finally:
                for program in reversed(running):
                    program.stop()
            print(f"{server.version}: {said}: {'DIFFERENT' if problems else 'equal'} ({time.monotonic() - begun:.0f} s)", flush=True)
            for problem in problems:
                print(f"    {problem}")
            failed |= bool(problems)
    return failed


if __name__ == "__main__":
    sys.exit(main())
