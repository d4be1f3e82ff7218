"""A disk that fails, is full, cuts writes short, or does not answer, call by call: what strace injects. Needs strace."""

import pathlib
import resource
import signal
import time

import trace
from gateway import Ended, Failed, Gateway, wait_until
from world import World, flaky


def strace(output, inject, *more, traced=None):
    call = inject.split(":")[0] if inject else ""
    options = ["-e", f"inject={inject}"] if inject else []
    return ["strace", "-D", "-qqq", "-o", str(output), *(trace.OPTIONS if traced else ["-f"]), *more, "-e", f"trace={traced or call}", *options]


def order(binary, home, runs):
    """Every acknowledgement of `runs` leaves after a flush of its event has returned 0; shown from a trace."""
    world = World(most=512)
    gateway, output = Gateway(binary, home, world.app_url), pathlib.Path(home, "trace")
    gateway.start(strace(output, "", traced=trace.TRACED))
    world.load(runs, gateway, seconds=300)
    world.rest()
    world.settle(gateway)
    gateway.stop()
    answers, flushes, _, wrong = trace.check_order(output)
    if wrong or answers < runs:
        raise Failed(f"{answers} acknowledgements, {len(wrong)} out of order: {wrong[:5]}")
    print(f"{answers} acknowledgements, each after the flush of its event had returned 0 ({flushes} flushes); {world.summary()}")


def at_each_flush(binary, home, runs):
    """EIO from the Nth fdatasync, N from 1 to `runs`, and from the Nth fsync."""
    world = World(behave=flaky, most=512)
    gateway, output = Gateway(binary, home, world.app_url), pathlib.Path(home, "trace")
    began, seen, answers, refused_start = time.monotonic(), 0, 0, 0
    for call, count in (("fdatasync", runs), ("fsync", max(runs // 10, 2))):
        for number in range(1, count + 1):
            try:
                gateway.start(strace(output, f"{call}:error=EIO:when={number}", traced=f"{trace.TRACED},fsync"))
            except Ended as ended:
                if ended.code != 1:
                    raise
                refused_start += 1  # it says why, and nothing has come to harm
                continue
            world.send_to(gateway.ingress)
            if call == "fdatasync":
                wait_until(lambda: "has failed" in gateway.log(), 60, f"flush {number} failed, and it did not notice")
                world.rest()
                has_failed(gateway, world)
                seen += 1
            else:
                world.load(20, gateway) if "has failed" not in gateway.log() else None
                world.rest()
            gateway.kill()
            found, _, _, wrong = trace.check_order(output)
            answers += found
            if wrong:
                raise Failed(f"{call} {number}: {len(wrong)} out of order: {wrong[:5]}")
    gateway.start()
    world.still_known(gateway)
    # A failed flush takes back what was not flushed, as a power cut does: numbers of attempts, too.
    world.settle(gateway, keeps_numbers=False)
    gateway.kill()
    print(f"EIO from {call} and fdatasync number 1 to {runs}: {seen} seen by the journal, {refused_start} starts refused, {answers} acknowledgements, none without its flush; {world.repeated} attempts with a number that had come before; "
          f"{world.summary()}; {time.monotonic() - began:.0f} s")
    if seen < runs - 3:
        raise Failed(f"reach: {seen} of {runs}")


def has_failed(gateway, world):
    """A failed journal: 503 to senders, unready with its reason, alive."""
    ready, live = gateway.get("/readyz"), gateway.get("/healthz", seconds=1)
    if ready[0] != 503 or "failed" not in ready[1]:
        raise Failed(f"/readyz is {ready} although the journal has failed")
    if live[0] != 200:
        raise Failed(f"/healthz is {live}")
    world.next += 1
    if world.one(f"key-{world.next}", gateway.ingress) != 503:
        raise Failed("a failed journal takes an event")


def segments(gateway, ahead=40):
    """`-P` for the log's segments, those to come included."""
    there = [int(path.stem, 16) for path in (gateway.data / "log").glob("*.log")]
    last = max(there, default=0)
    return [word for number in [*there, *range(last + 1, last + ahead)] for word in ("-P", str(gateway.data / "log" / f"{number:08x}.log"))]


def at_each_write(binary, home, runs):
    """The Nth write to the log fails, is full for a while, is interrupted, or is cut short by a limit of the file's size."""
    world = World(behave=flaky, most=16 << 10)
    gateway = Gateway(binary, home, world.app_url, max_size="1GiB")  # segments of 16 MiB
    began = time.monotonic()
    met = {"EIO": 0, "ENOSPC": 0, "EINTR": 0, "cut short": 0}
    for number in range(1, runs + 1):
        for error, when in (("EIO", number), ("ENOSPC", f"{number}..{number + 3}"), ("EINTR", "1+2")):
            refused = world.counts[503]
            try:
                gateway.start(strace("/dev/null", f"write:error={error}:when={when}", *segments(gateway)))
                if error == "EIO":
                    world.send_to(gateway.ingress)
                    wait_until(lambda: "has failed" in gateway.log(), 30, f"write {number} failed, and it did not notice")
                    world.rest()
                    has_failed(gateway, world)
                else:
                    if error == "ENOSPC":
                        world.send_to(gateway.ingress)
                        wait_until(lambda: world.counts[503] > refused or "is full" in gateway.log(), 30, "it was never full")
                    world.load(30, gateway)  # it goes on by itself
                    world.rest()
                    if "has failed" in gateway.log():
                        raise Failed(f"{error} ended the journal: {gateway.log()[-500:]}")
                met[error] += 1
            except Ended as ended:
                if ended.code != 1 or error == "EINTR":
                    raise
                met[error] += 1  # the header of its first segment
            gateway.kill()

        index = max((path.stat().st_size for path in (gateway.data / "index").iterdir()), default=0)

        def short(limit=max(100_003, index + 300_003) + 977 * number):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        gateway.start(before_exec=short)
        world.send_to(gateway.ingress)
        wait_until(lambda: "has failed" in gateway.log(), 60, "no write was cut short")
        world.rest()
        has_failed(gateway, world)
        met["cut short"] += 1
        gateway.kill()
    gateway.start()
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()
    said = ", ".join(f"{count} {what}" for what, count in met.items())
    print(f"writes that fail: {said}; {world.summary()}; {time.monotonic() - began:.0f} s")
    if min(met.values()) < runs:
        raise Failed(f"reach: {met}")


def at_each_read(binary, home, runs):
    """EIO from the Nth read of a segment, three times: while opening, and while delivering what waits. Then the same for the newest
    segment alone, which opening writes anew: what could not be read for a moment has to be there afterwards."""
    world = World(behave=lambda number, attempt: 503 if number % 3 == 0 else 200, most=2048)
    gateway = Gateway(binary, home, world.app_url)
    began, opened, refused, damaged = time.monotonic(), 0, 0, 0
    gateway.start()
    world.load(300, gateway)
    world.rest()
    gateway.kill()
    for number, newest in [(number, False) for number in range(1, runs + 1)] + [(number, True) for number in range(1, runs // 3 + 1)]:
        of = ["-P", str(max((gateway.data / "log").glob("*.log")))] if newest else segments(gateway)
        try:
            gateway.start(strace("/dev/null", f"pread64:error=EIO:when={number}..{number + 2}", *of))
            opened += 1
            world.load(20, gateway)
            world.rest()
        except Ended as ended:
            if ended.code != 1 or "error 5" not in ended.log:
                raise
            refused += 1
        gateway.kill()
        damaged += "damaged: the records in this stretch are lost" in gateway.log()
    world.behave = flaky
    gateway.start()
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()
    print(f"EIO from read number 1 to {runs} of the log, and to {runs // 3} of its newest segment: {refused} openings refused with their reason, {opened} went on, {damaged} times something was given up; {world.summary()}; {time.monotonic() - began:.0f} s")


def slow(binary, home, runs):
    """Flushes that take 2 s for `runs` seconds (P20), and one that takes 60 s (P21)."""
    world = World(senders=32, most=1024)
    gateway = Gateway(binary, home, world.app_url)
    gateway.start(strace("/dev/null", "fdatasync:delay_enter=2000000"))
    before, most = resident(gateway), 0
    world.latencies = []
    world.send_to(gateway.ingress)
    until = time.monotonic() + runs
    while time.monotonic() < until:
        most = max(most, resident(gateway) - before)
        time.sleep(0.1)
    world.rest()
    longest, taken, refused = max(world.latencies), world.counts[200], world.counts[503]
    gateway.kill()
    if longest > 9 or most > 64 << 20 or taken < 2:
        raise Failed(f"flushes of 2 s: {taken} taken, {refused} refused, the longest answer took {longest:.1f} s, {most >> 20} MiB more memory")
    print(f"flushes of 2 s, 32 senders, {runs} s: {taken} taken, {refused} refused, the longest answer took {longest:.1f} s, {most >> 20} MiB more memory")

    world.latencies = []
    gateway.start(strace("/dev/null", "fdatasync:delay_enter=60000000:when=4+"))
    world.send_to(gateway.ingress)
    began = time.monotonic()
    wait_until(lambda: world.counts[503] > refused or gateway.get("/readyz", 1)[0] == 503, 30, "it takes no notice")
    wait_until(lambda: gateway.get("/readyz", 1)[0] == 503, 30, "it stays ready")
    unready = time.monotonic() - began
    slowest = 0
    for _ in range(20):
        asked = time.monotonic()
        if gateway.get("/healthz", 1)[0] != 200:
            raise Failed("/healthz does not answer within a second")
        slowest = max(slowest, time.monotonic() - asked)
    reason = gateway.get("/readyz", 1)[1]
    wait_until(lambda: world.counts[503] > refused + 32, 20, "senders are not refused")
    world.rest()
    gateway.kill()
    gateway.start()
    world.still_known(gateway)
    world.settle(gateway)
    gateway.kill()
    print(f"a flush that hangs: unready {unready:.1f} s after the load began ({reason.strip()}), /healthz within {slowest * 1000:.0f} ms; {world.summary()}")
    if unready > 10:
        raise Failed(f"unready only after {unready:.1f} s")


def resident(gateway):
    for line in pathlib.Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0
