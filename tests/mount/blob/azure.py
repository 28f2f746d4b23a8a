# SPDX-License-Identifier: MIT
"""
What the tests need of Azure Blob storage, by its REST interface:

    azure.py ENDPOINT ACCOUNT KEY container NAME [public]
    azure.py ENDPOINT ACCOUNT KEY block CONTAINER/BLOB FILE     a block blob
    azure.py ENDPOINT ACCOUNT KEY page CONTAINER/BLOB FILE      a page blob; zeros are left out
    azure.py ENDPOINT ACCOUNT KEY sas CONTAINER/BLOB SECONDS [PERMISSIONS]
                                                                prints a shared access signature

Requests are signed as the service documents it ("Authorize with Shared Key").
"""
import base64
import datetime
import hashlib
import hmac
import http.client
import sys
import urllib.parse

VERSION = "2020-12-06"
MIB = 1 << 20


def signature(key, text):
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class Store:
    def __init__(self, endpoint, account, key):
        self.url = urllib.parse.urlsplit(endpoint)
        self.account, self.key = account, key

    def authorization(self, method, path, query, headers, length):
        ours = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items())
                       if name.startswith("x-ms-"))
        resource = f"/{self.account}{path}" + "".join(
            f"\n{name}:{value}" for name, value in sorted(query.items()))
        text = "\n".join([method, "", "", str(length or ""), "", headers.get("Content-Type", ""),
                          "", "", "", "", "", "", ours + resource])
        return f"SharedKey {self.account}:{signature(self.key, text)}"

    def request(self, method, target, query, headers, body=b""):
        # With an IP address as host, the account is the first part of the path.
        path = f"{self.url.path.rstrip('/')}/{target}"
        now = datetime.datetime.now(datetime.timezone.utc)
        headers = {"x-ms-version": VERSION, "x-ms-date": now.strftime("%a, %d %b %Y %H:%M:%S GMT"),
                   **headers}
        headers["Authorization"] = self.authorization(method, path, query, headers, len(body))
        headers["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
        connection.request(method, path + ("?" + urllib.parse.urlencode(query) if query else ""),
                           body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")

    def sas(self, target, seconds, permissions="r"):
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        fields = {"sp": permissions, "se": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "sv": VERSION, "sr": "b"}
        text = "\n".join([fields["sp"], "", fields["se"], f"/blob/{self.account}/{target}", "", "",
                          "", fields["sv"], fields["sr"], "", "", "", "", "", "", ""])
        return urllib.parse.urlencode({**fields, "sig": signature(self.key, text)})


def put_block(store, target, path):
    with open(path, "rb") as file:
        store.request("PUT", target, {}, {"x-ms-blob-type": "BlockBlob",
                                          "Content-Type": "application/octet-stream"}, file.read())


def put_page(store, target, path):
    with open(path, "rb") as file:
        data = file.read()
    store.request("PUT", target, {}, {"x-ms-blob-type": "PageBlob",
                                      "Content-Type": "application/octet-stream",
                                      "x-ms-blob-content-length": str(len(data))})
    for at in range(0, len(data), 4 * MIB):
        part = data[at:at + 4 * MIB]
        if any(part):
            store.request("PUT", target, {"comp": "page"},
                          {"x-ms-page-write": "update",
                           "x-ms-range": f"bytes={at}-{at + len(part) - 1}"}, part)


def main():
    store, (command, target, *rest) = Store(*sys.argv[1:4]), sys.argv[4:]
    if command == "container":
        store.request("PUT", target, {"restype": "container"},
                      {"x-ms-blob-public-access": "blob"} if rest == ["public"] else {})
    elif command == "block":
        put_block(store, target, *rest)
    elif command == "page":
        put_page(store, target, *rest)
    elif command == "sas":
        print(store.sas(target, int(rest[0]), *rest[1:]))
    else:
        sys.exit(__doc__)


main()
