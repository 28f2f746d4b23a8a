# SPDX-License-Identifier: MIT
"""
A path that dies without a word: freezer.py PORT FILE

Accepts on a free port of 127.0.0.1, which it prints, and passes the bytes on to PORT and back. From
the time on at which FILE was last changed, connections that are older pass nothing on, but stay open;
newer ones are fine. It prints "connection" for each, and ends when it is killed.
"""
import os
import socket
import sys
import threading
import time


def is_frozen(begun):
    try:
        return os.stat(sys.argv[2]).st_mtime > begun
    except FileNotFoundError:
        return False


def copy(source, target, begun):
    try:
        while data := source.recv(65536):
            while is_frozen(begun):
                time.sleep(0.05)
            target.sendall(data)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        print("connection", flush=True)
        for pair in ((client, server), (server, client)):
            threading.Thread(target=copy, args=(*pair, time.time()), daemon=True).start()
