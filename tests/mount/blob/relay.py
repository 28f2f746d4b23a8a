# SPDX-License-Identifier: MIT
"""
Passes connections on, for the tests of remote disks:

    relay.py tls CERTIFICATE KEY PORT       TLS in front of the server at PORT
    relay.py connect USER:PASSWORD [PORT]   a proxy that knows CONNECT, to this machine only: to PORT,
                                            or else to the port that it is asked for
    relay.py freeze PORT FILE               a path to PORT that dies without a word: from the time on
                                            at which FILE was last changed, connections that are older
                                            pass nothing on, but stay open; newer ones are fine

Accepts on a free port of 127.0.0.1, which it prints; then the proxy prints what it is asked for, and
the path "connection" for each. It ends when it is killed.
"""
import base64
import os
import socket
import ssl
import sys
import threading
import time


def copy(source, target, hold=lambda: None):
    try:
        while data := source.recv(65536):
            hold()
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def join(client, port, hold=lambda: None):
    with socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=copy, args=(server, client, hold), daemon=True)
        back.start()
        copy(client, server, hold)
        back.join()


def serve_tls(client, context, port):
    with context.wrap_socket(client, server_side=True) as tls:
        join(tls, port)


def serve_connect(client, authorization, port):
    with client:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = client.recv(1)
            if not byte:
                return
            head += byte
        lines = head.decode().split("\r\n")
        print(lines[0], flush=True)
        if f"proxy-authorization: basic {authorization}".lower() not in map(str.lower, lines):
            client.sendall(b"HTTP/1.1 407 Who are you?\r\nProxy-Authenticate: Basic realm=tests\r\n"
                           b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            return
        client.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
        join(client, port or int(lines[0].split()[1].rsplit(":", 1)[1]))


def serve_freezing(client, port, path):
    begun = time.time()

    def hold():
        while os.path.exists(path) and os.stat(path).st_mtime > begun:
            time.sleep(0.05)

    print("connection", flush=True)
    with client:
        join(client, port, hold)


def forgiving(function, *arguments):
    """A client that does not like what it sees goes away."""
    try:
        function(*arguments)
    except OSError:
        pass


def main():
    mode, *arguments = sys.argv[1:]
    if mode == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*arguments[:2])
        how = (serve_tls, context, int(arguments[2]))
    elif mode == "connect":
        how = (serve_connect, base64.b64encode(arguments[0].encode()).decode(),
               int(arguments[1]) if arguments[1:] else None)
    else:
        how = (serve_freezing, int(arguments[0]), arguments[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=forgiving, args=(how[0], client, *how[1:]), daemon=True).start()


main()
