# SPDX-License-Identifier: MIT
"""
Writes blocks at random places, and says which of them are durable.

    writer.py write IMAGE LOG SEED BYTES    until an error, or for ever
    writer.py check FILE LOG

A block of 4096 bytes holds its place and a serial number, over and over. After some blocks the
writer calls fsync, and only when that has succeeded it appends their numbers to the log. Whatever
happens to the file afterwards, it must hold each block of the log, or a later one of that place.

The log also tells what was begun, so that a block that was never written to its place is found.
"""
import os
import random
import struct
import sys

BLOCK = 4096
SECTOR = 512


def block(place, serial):
    return struct.pack("<QQ", place, serial) * (BLOCK // 16)


def last_serial(lines):
    return max((int(line[2]) for line in lines), default=0)


def read_log(path):
    if not os.path.exists(path):
        return []
    with open(path) as log:
        # A line that was cut short says nothing.
        return [line.split() for line in log if line.endswith("\n")]


def write(image, log_path, seed, size):
    serial = last_serial(read_log(log_path))
    choice = random.Random(seed)
    image = os.open(image, os.O_RDWR)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        batch = []
        for _ in range(choice.randint(1, 16)):
            serial += 1
            batch.append((choice.randrange(size // BLOCK), serial))
        os.write(log, "".join(f"begun {p} {s}\n" for p, s in batch).encode())
        for place, number in batch:
            os.pwrite(image, block(place, number), place * BLOCK)
        os.fsync(image)
        os.write(log, "".join(f"durable {p} {s}\n" for p, s in batch).encode())


def check(path, log_path):
    begun, durable = {}, {}
    for what, place, serial in read_log(log_path):
        if what == "begun":
            begun.setdefault(int(place), set()).add(int(serial))
        else:
            durable[int(place)] = int(serial)
    with open(path, "rb") as file:
        for place, serials in begun.items():
            file.seek(place * BLOCK)
            least = durable.get(place, 0)
            allowed = {block(place, s)[:SECTOR] for s in serials if s >= least}
            if least == 0:
                allowed.add(bytes(SECTOR))
            # What was not acknowledged may be there in part, but in whole sectors.
            for _ in range(BLOCK // SECTOR):
                data = file.read(SECTOR)
                if data not in allowed:
                    found = struct.unpack_from("<QQ", data)
                    sys.exit(f"place {place}: found {found}, acknowledged was serial {least}")
    print(len(durable))


def main():
    if sys.argv[1] == "write":
        try:
            write(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        except OSError as error:
            sys.exit(f"ended by: {error}")
    else:
        check(sys.argv[2], sys.argv[3])


main()
