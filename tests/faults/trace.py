"""Reads what strace wrote, and looks whether nothing was acknowledged before it was flushed (D3)."""

import re

CALL = re.compile(rb"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(rb"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
RETURNED = re.compile(rb"\) += (-?\d+|\?)")
HEX = re.compile(rb"(?:\\x[0-9a-f]{2})+")
LOG = re.compile(rb"/log/[0-9a-f]{8}\.log")

# Bytes in hexadecimal, whole; files by their names.
OPTIONS = ["-f", "-xx", "-y", "-s", "1000000"]
TRACED = "write,writev,sendto,fdatasync"


class Call:
    """One call: its name, the text of its arguments, and on which lines it began and ended."""

    def __init__(self, name, text, began, ended, returned):
        self.name, self.text, self.began, self.ended, self.returned = name, text, began, ended, returned
        path = bytes.fromhex(b"".join(HEX.findall(text.split(b">", 1)[0])).replace(b"\\x", b"").decode())
        self.log = path.rsplit(b"/", 1)[-1] if LOG.search(path) else None

    def data(self):
        return bytes.fromhex(b"".join(HEX.findall(self.text.split(b">", 1)[-1])).replace(b"\\x", b"").decode())


def calls(path):
    open_calls, found = {}, []
    with open(path, "rb") as file:
        for line_number, line in enumerate(file):
            if resumed := RESUMED.match(line):
                pid, name, rest = resumed.groups()
                if pid not in open_calls:
                    continue
                began, text = open_calls.pop(pid)
                text += rest
            elif call := CALL.match(line):
                pid, name, text = call.groups()
                began = line_number
                if b"<unfinished ...>" in text:
                    open_calls[pid] = (began, text.split(b" <unfinished")[0])
                    continue
            else:
                continue
            returned = RETURNED.findall(text)
            number = int(returned[-1]) if returned and returned[-1] != b"?" else None
            found.append(Call(name.decode(), text, began, line_number, number))
    return found


def events_in(data):
    """The payloads of the events among the records of one write: src/journal/log/segment.rs has their layout."""
    at = 0
    while at + 24 <= len(data):
        kind, length = data[at + 4], int.from_bytes(data[at + 8 : at + 12], "little")
        if kind == 1:
            yield data[at + 24 : at + 24 + length]
        at += -(-(24 + length) // 8) * 8


def check_order(path):
    """How many acknowledgements the trace has, and those that left before a flush of their event had returned 0. The flush
    that counts is the first after the event was written: a later one may lie. Duplicates of what was there before are left out."""
    written, flushes, answers, wrong = [], [], [], []
    for call in calls(path):
        if call.log and call.name == "write":
            written.append((call, b"".join(events_in(call.data()))))
        elif call.log and call.name == "fdatasync":
            flushes.append(call)
        elif not call.log and call.name in ("write", "writev", "sendto"):
            data = call.data()
            if data.startswith(b"HTTP/1.1 2") and (event := re.search(rb"forebay-event-id: evt_([0-9a-f]{32})", data)):
                answers.append((call, bytes.fromhex(event[1].decode()), b"forebay-duplicate" in data))
    for answer, event, duplicate in answers:
        write = next((call for call, data in written if event in data), None)
        if write is None and duplicate:
            continue
        if write is None:
            wrong.append(f"evt_{event.hex()} was acknowledged and never written")
            continue
        flush = next((flush for flush in flushes if flush.log == write.log and flush.began > write.ended), None)
        if flush is None or flush.ended > answer.began or flush.returned != 0:
            said = "none" if flush is None else f"one that returned {flush.returned} on line {flush.ended}"
            wrong.append(f"evt_{event.hex()}, written on line {write.began}, was acknowledged on line {answer.began}; its flush: {said}")
    failed = [flush for flush in flushes if flush.returned not in (0, None)]
    for flush in failed:
        if any(later.log == flush.log and later.began > flush.ended for later in flushes):
            wrong.append(f"{flush.log.decode()} was flushed again after a flush of it had failed")
    return len(answers), len(flushes), len(failed), wrong
