"""An S3-compatible store on the wire: PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects, ListObjectsV2 and
multipart uploads (Amazon S3 API reference, 2006-03-01), path-style, in memory. Signatures (AWS Signature Version 4) are
checked, with the hash of the body. It serves from threads: its clients block.
"""

import hashlib
import hmac
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

KEY_ID, SECRET, REGION = "AKIDTRUNKLINE", "not-a-secret-of-anybody", "us-east-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<scope>[^,]+), ?SignedHeaders=(?P<signed>[^,]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
PAGE = 1000


class S3Server:
    """`objects`: by bucket/key. `away`: connections break before an answer. `answer_status`: of every request.
    `stuck`: requests wait until it is cleared."""

    def __init__(self, *buckets: str, port: int = 0) -> None:
        self.buckets = set(buckets)
        self.objects: dict[str, bytes] = {}
        self.away, self.page = False, PAGE
        self.answer_status: int | None = None
        self.asked: list[str] = []
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.running = threading.Event()
        self.running.set()
        server = self

        class Handler(_Handler):
            store = server

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: S3Server

    def _serve(self) -> None:
        store = self.store
        store.running.wait(60)
        if store.away:
            self.close_connection = True
            return
        split = urlsplit(self.path)
        body = self._body()
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        store.asked.append(f"{self.command} {unquote(split.path)}")
        if store.answer_status is not None:
            self._error(store.answer_status, "SlowDown", "Please reduce your request rate.")
        elif why := self._unsigned(split.path, split.query, body):
            self._error(403, why, "The request signature we calculated does not match the signature you provided.")
        else:
            self._act(unquote(split.path).lstrip("/"), query, self._plain(body))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _plain(self, body: bytes) -> bytes:
        """Without the chunks of `aws-chunked` (SigV4 streaming, with trailing checksums)."""
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return body
        out = b""
        while body:
            head, _, body = body.partition(b"\r\n")
            size = int(head.partition(b";")[0], 16)
            if size == 0:
                break
            out, body = out + body[:size], body[size + 2 :]
        return out

    def _unsigned(self, path: str, query: str, body: bytes) -> str:
        found = _AUTHORIZATION.match(self.headers.get("Authorization", ""))
        if found is None:
            return "AccessDenied"
        if found["id"] != KEY_ID:
            return "InvalidAccessKeyId"
        told = self.headers.get("x-amz-content-sha256", "")
        if re.fullmatch("[0-9a-f]{64}", told) and told != hashlib.sha256(body).hexdigest():
            return "XAmzContentSHA256Mismatch"
        pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(query, True))
        signed = found["signed"].split(";")
        headers = "".join(f"{name}:{' '.join((self.headers.get(name) or '').split())}\n" for name in signed)
        uri = quote(unquote(path), safe="/-_.~")
        canonical = "\n".join(
            (self.command, uri, "&".join(f"{k}={v}" for k, v in pairs), headers, found["signed"], told)
        )
        scope = found["scope"]
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256",
                self.headers.get("x-amz-date", ""),
                scope,
                hashlib.sha256(canonical.encode()).hexdigest(),
            )
        )
        key = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        mine = hmac.new(key, text.encode(), "sha256").hexdigest()
        return "" if hmac.compare_digest(mine, found["signature"]) else "SignatureDoesNotMatch"

    def _act(self, path: str, query: Mapping[str, str], body: bytes) -> None:
        store = self.store
        bucket, _, key = path.partition("/")
        if bucket not in store.buckets:
            self._error(404, "NoSuchBucket", "The specified bucket does not exist")
        elif not key:
            self._bucket(bucket, query, body)
        elif self.command == "PUT" and "partNumber" in query:
            store.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        elif self.command == "PUT":
            store.objects[path] = body
            self._answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        elif self.command == "POST" and "uploads" in query:
            upload = f"u{len(store.uploads)}"
            store.uploads[upload] = {}
            self._xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        elif self.command == "POST":
            parts = store.uploads.pop(query["uploadId"])
            store.objects[path] = b"".join(parts[number] for number in sorted(parts))
            self._xml("CompleteMultipartUploadResult", '<ETag>"x-1"</ETag>')
        elif self.command == "DELETE":
            store.objects.pop(path, None)
            self._answer(204)
        elif (data := store.objects.get(path)) is None:
            self._error(404, "NoSuchKey", "The specified key does not exist.")
        else:
            self._object(data)

    def _object(self, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Sat, 28 Nov 2026 12:00:00 GMT"}
        given = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if given is None:
            self._answer(200, data, headers)
            return
        end = min(int(given[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {given[1]}-{end}/{len(data)}"
        self._answer(206, data[int(given[1]) : end + 1], headers)

    def _bucket(self, bucket: str, query: Mapping[str, str], body: bytes) -> None:
        if self.command == "POST" and "delete" in query:
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.store.objects.pop(f"{bucket}/{key}", None)
            self._xml("DeleteResult", "")
        elif self.command == "HEAD":
            self._answer(200, headers={"x-amz-bucket-region": REGION})
        else:
            self._list(bucket, query)

    def _list(self, bucket: str, query: Mapping[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after, most = query.get("continuation-token", ""), min(int(query.get("max-keys", PAGE)), self.store.page)
        entries: dict[str, bytes | None] = {}
        for path, data in sorted(self.store.objects.items()):
            of, _, key = path.partition("/")
            if of != bucket or not key.startswith(prefix):
                continue
            folder, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            entries[prefix + folder + cut if cut else key] = None if cut else data
        left = [(name, data) for name, data in entries.items() if name > after]
        page = left[:most]
        parts = [
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if data is None
            else f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>"
            f"<LastModified>2026-11-28T12:00:00.000Z</LastModified></Contents>"
            for name, data in page
        ]
        more = len(left) > most
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        head = f"<Name>{bucket}</Name><KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        self._xml("ListBucketResult", head + token + "".join(parts))

    # --- answers ---

    def _xml(self, name: str, inside: str, status: int = 200) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{inside}</{name}>'
        self._answer(status, text.encode(), {"Content-Type": "application/xml"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._xml("Error", f"<Code>{code}</Code><Message>{message}</Message>", status)

    def _answer(self, status: int, data: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # the client went away
                self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
