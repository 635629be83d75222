"""Writes the initial corpus of the fuzzer: the requests in the examples of XEP-0060, their forms, an archive,
records."""

import pathlib
import re
import sys

here = pathlib.Path(__file__).resolve().parent
tests = here.parent / "tests"
into = pathlib.Path(sys.argv[1])


def write(target, name, content):
    folder = into / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


examples = (tests / "xep0060" / "examples.txt").read_text().split("\n## ")[1:]
for number, example in enumerate(examples):
    stanza = example.split("\n", 1)[1].strip().encode()
    write("request", f"example-{number:03}", stanza)
    write("stream", f"example-{number:03}", bytes([number % 128]) + stanza)
    for form in re.findall(rb"<x xmlns='jabber:x:data'.*?</x>", stanza, re.S):
        write("form", f"example-{number:03}", form)
archive = (tests / "fixtures" / "store-9.ndjson").read_bytes()
write("archive", "store", archive)
lines = archive.splitlines(keepends=True)
for number in range(len(lines)):
    write("archive", f"line-{number:03}", lines[0] + lines[number] + b'{"kind":"end","lines":2}\n')
# A version, a name, and so on: postcard writes a text as its length and its bytes.
text = lambda value: bytes([len(value)]) + value.encode()  # noqa: E731
config = bytes([0, 1, 1, 0, 0, 0, 128, 128, 4, 0, 0, 1, 1, 1, 1, 1, 0, 0])
write("record", "node", b"\0" + text("n") + b"\1" + text("a@x") + b"\1" + config)
write("record", "item", b"\1" + text("i") + text("a@x") + b"\1\60\1" + text("urn:x") + text("<x/>"))
write("record", "debt", b"\2\1\1\1" + text("n") + b"\1\1\2\1" + text("i") + text("a@x") + b"\0\0\0\0\1\0")
write("record", "affiliation", b"\3" + text("a@x") + b"\1")
write("record", "subscription", b"\4\7" + text("a@x/r") + b"\1")
write("record", "told", b"\7\1\1\1" + text("a@x/r"))
write("model", "begin", bytes(range(64)))
