# SPDX-License-Identifier: MIT
"""
TLS in front of a server: tls_front.py CERTIFICATE KEY PORT

Accepts on a free port of 127.0.0.1, which it prints, and passes the bytes on to PORT and back. It
ends when it is killed.
"""
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


def serve(client, context, port):
    try:
        with context.wrap_socket(client, server_side=True) as tls, \
                socket.create_connection(("127.0.0.1", port)) as server:
            back = threading.Thread(target=copy, args=(server, tls), daemon=True)
            back.start()
            copy(tls, server)
            back.join()
    except OSError:
        pass    # a client that does not like the certificate


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, context, int(sys.argv[3])), daemon=True).start()


main()
