# SPDX-License-Identifier: MIT
"""
Passes connections on, for the tests of remote disks:

    relay.py tls CERTIFICATE KEY PORT       TLS in front of the server at PORT
    relay.py connect USER:PASSWORD          a proxy that knows CONNECT, to this machine only

Accepts on a free port of 127.0.0.1, which it prints; the proxy prints then what it is asked for. It
ends when it is killed.
"""
import base64
import socket
import ssl
import sys
import threading


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def join(client, port):
    with socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=copy, args=(server, client), daemon=True)
        back.start()
        copy(client, server)
        back.join()


def serve_tls(client, context, port):
    with context.wrap_socket(client, server_side=True) as tls:
        join(tls, port)


def serve_connect(client, authorization):
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
        join(client, int(lines[0].split()[1].rsplit(":", 1)[1]))


def forgiving(function, *arguments):
    """A client that does not like what it sees goes away."""
    try:
        function(*arguments)
    except OSError:
        pass


def main():
    if sys.argv[1] == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
        how = (serve_tls, context, int(sys.argv[4]))
    else:
        how = (serve_connect, base64.b64encode(sys.argv[2].encode()).decode())
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=forgiving, args=(how[0], client, *how[1:]), daemon=True).start()


main()
