"""An app for probes: it answers one status of its list for each request, then the last for ever."""

from __future__ import annotations

from tests.slots.scene import PYTHON, Export

APP = """\
import os, socket, sys, time
answers = sys.argv[1].split(",")
where = sys.argv[2] if len(sys.argv) > 2 else os.environ["HOST"]
family = socket.AF_INET6 if ":" in where else socket.AF_INET
name = "INTERNAL_PORT" if len(sys.argv) > 3 else "PORT"
server = socket.socket(family)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((where, int(os.environ[name])))
server.listen(64)
asked, held = 0, []
while True:
    connection, _ = server.accept()
    answer = answers[min(asked, len(answers) - 1)]
    asked += 1
    if answer == "hang":
        held.append(connection)
        continue
    request = connection.recv(65536)
    while request.startswith(b"POST") and request.partition(b"\\r\\n\\r\\n")[2] == b"":
        # A body may come in a segment of its own.
        request += connection.recv(65536)
    with open("requests", "ab") as log:
        log.write(request + b"%.6f\\n" % time.monotonic())
    if answer == "exit":
        sys.exit(3)
    if answer == "close":
        connection.close()
        continue
    body = b"\\x1b[31mbroken\\n" if answer.startswith("5") else b"all is well"
    head = "HTTP/1.1 %s X\\r\\nContent-Length: %d\\r\\nLocation: /elsewhere\\r\\n\\r\\n"
    connection.sendall((head % (answer, len(body))).encode() + body)
    connection.close()
"""


def app() -> Export:
    return Export({"app.py": APP})


def command(answers: str = "200", *arguments: str) -> str:
    return " ".join([f"exec {PYTHON} -S -E app.py {answers}", *arguments])
