"""Objects on a real server, and errors of fake ones."""

import errno
import http.server
import json
import threading
from typing import Any

import pytest

from pipelines.storage import bucket, storage, stores

SECRET = "a-secret-of-s3"
BIG = 6 << 20  # bytes; larger than one part of an upload


@pytest.mark.filterwarnings("ignore:Sending a large body directly")  # as gcsfs retries
def test_objects_have_the_written_content(any_lab, tmp_path):
    # The content includes the separator of gcsfs's multipart uploads.
    data = b"\n--==0==--\r\n" + bytes(range(256)) * 3
    with storage.NewFile(f"{any_lab}/objects/small") as file:
        file.write(data[:100])
        file.write(data[100:])
    big = bytes(range(256)) * (BIG // 256)
    (tmp_path / "big").write_bytes(big)
    bucket.upload(str(tmp_path / "big"), f"{any_lab}/objects/big")
    bucket.write(f"{any_lab}/objects/deeper/one", b"1")

    folder = f"{any_lab}/objects"
    assert storage.names(folder) == ["big", "small"]
    assert storage.expand(folder) == ([f"{folder}/big", f"{folder}/small"], [])
    assert not storage.is_empty(folder) and storage.is_empty(f"{any_lab}/nothing")
    assert storage.read(f"{folder}/small") == data
    assert storage.size(f"{folder}/big") == BIG
    assert storage.sha256(f"{folder}/big") == storage.sha256(str(tmp_path / "big"))
    ranges = [(0, 3), (300, 517), (BIG - 2, BIG)]
    assert storage.read_ranges(f"{folder}/big", ranges) == [big[a:b] for a, b in ranges]
    with storage.open_to_read(f"{folder}/small") as file:
        assert file.read(2) == data[:2] and file.tell() == 2
        assert file.readline() == data[2 : data.index(b"\n", 2) + 1]
    assert storage.fetch(f"{folder}/big", str(tmp_path / "no"), BIG - 1) == BIG
    assert not (tmp_path / "no").exists()
    assert storage.fetch(f"{folder}/big", str(tmp_path / "copy"), BIG) == BIG
    assert (tmp_path / "copy").read_bytes() == big


def test_a_failed_write_leaves_no_object(any_lab):
    with pytest.raises(RuntimeError), storage.NewFile(f"{any_lab}/failed/one") as file:
        file.write(b"1")
        raise RuntimeError
    assert storage.is_empty(f"{any_lab}/failed")


def test_a_new_file_overwrites_no_other(any_lab):
    path = f"{any_lab}/new/one"
    storage.write_new(path, b"1")
    storage.write_new(path, b"1")  # A repeated request, as after a lost answer.
    with pytest.raises(FileExistsError) as raised:
        storage.write_new(path, b"2")
    assert raised.value.filename == path
    assert storage.read(path) == b"1"


def test_a_generation_is_replaced_and_deleted_once(any_lab):
    path = f"{any_lab}/generations/one"
    first = bucket.write(path, b"1", stores.NEW)
    second = bucket.write(path, b"2", first)
    assert bucket.stat(path) == (1, second)
    with pytest.raises(FileExistsError):
        bucket.write(path, b"3", first)
    if any_lab.startswith("s3://"):  # Google's emulator deletes any generation.
        with pytest.raises(OSError, match="pre-condition"):
            bucket.delete(path, first)
    assert storage.read(path) == b"2"
    bucket.delete(path, second)
    assert not storage.exists(path)
    with pytest.raises(FileExistsError):  # as when a lease was deleted
        bucket.write(path, b"3", second)


def test_long_folders_are_listed_in_pages(any_lab, monkeypatch):
    monkeypatch.setattr(bucket, "_PAGE", 2)
    for name in ("b", "a/x", "c d&é", "a/y", "e"):
        bucket.write(f"{any_lab}/pages/{name}", name.encode())
    assert storage.names(f"{any_lab}/pages") == ["b", "c d&é", "e"]
    listed = dict(storage.listing(f"{any_lab}/pages"))
    assert listed == {"a/x": 3, "a/y": 3, "b": 1, "c d&é": 6, "e": 1}
    assert dict(storage.listing(f"{any_lab}/pages", "a/")) == {"a/x": 3, "a/y": 3}
    assert not storage.is_empty(f"{any_lab}/pages")


def test_objects_are_copied_only_within_a_store(any_lab, tmp_path):
    path = f"{any_lab}/copies/old"
    bucket.write(path, b"1")
    assert storage.duplicate(path, f"{any_lab}/copies/new")
    assert storage.read(f"{any_lab}/copies/new") == b"1"
    other = {"gs://": "s3://", "s3://": "gs://"}[any_lab[:5]]
    for elsewhere in (str(tmp_path / "new"), f"{other}lab/new"):
        assert not storage.duplicate(path, elsewhere)


@pytest.mark.parametrize("call", [storage.read, storage.size, storage.sha256])
def test_a_missing_object_is_named(any_lab, call):
    with pytest.raises(FileNotFoundError, match="no such object or bucket") as raised:
        call(f"{any_lab}/nothing")
    assert raised.value.filename == f"{any_lab}/nothing"
    assert not storage.exists(f"{any_lab}/nothing")


@pytest.mark.parametrize(
    ("status", "said", "number", "told"),
    [
        (403, "lab-7 does not have storage.objects.get access", errno.EACCES, "lab-7 does not"),
        (401, "Anonymous caller does not have access", errno.EACCES, "gcloud auth"),
        (400, "an invalid argument", errno.EIO, "an invalid argument"),
        (413, "too much", errno.EIO, "too much"),
    ],
)
def test_a_refusal_by_the_server_is_reported(httpd, monkeypatch, status, said, number, told):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", httpd(status, said))
    with pytest.raises(OSError, match=told) as raised:
        storage.size("gs://lab/one")
    assert (raised.value.errno, raised.value.filename) == (number, "gs://lab/one")


def test_an_unreachable_server_is_reported(monkeypatch):
    import gcsfs

    # The default is to retry for half a minute.
    monkeypatch.setattr(gcsfs.GCSFileSystem, "_request", gcsfs.GCSFileSystem._request.__wrapped__)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match="cannot be reached") as raised:
        storage.size("gs://lab/one")
    assert raised.value.filename == "gs://lab/one"


@pytest.fixture
def s3(monkeypatch):
    """s3(address): S3 at that address, with a secret that no message may have."""
    import s3fs

    def at(address: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    def forget():
        stores.store.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()

    forget()
    yield at
    forget()


@pytest.mark.parametrize(
    ("status", "code", "number", "told"),
    [
        (403, "AccessDenied", errno.EACCES, "access denied"),
        (400, "InvalidArgument", errno.EIO, "the store answered"),
    ],
)
def test_a_refusal_by_s3_is_reported(httpd, s3, status, code, number, told):
    s3(httpd(status, f"<Error><Code>{code}</Code><Message>as {code} says</Message></Error>"))
    for call in (storage.read, lambda path: bucket.write(path, b"1", stores.NEW)):
        with pytest.raises(OSError, match=f"{told}.*as {code} says") as raised:
            call("s3://lab/one")
        assert (raised.value.errno, raised.value.filename) == (number, "s3://lab/one")
        assert SECRET not in str(raised.value)


def test_an_unreachable_s3_server_is_reported(s3):
    s3("http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match="cannot be reached") as raised:
        storage.size("s3://lab/one")
    assert raised.value.filename == "s3://lab/one"


def test_missing_credentials_of_s3_are_reported(s3, monkeypatch):
    s3("http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PermissionError, match="AWS_PROFILE"):
        storage.size("s3://lab/one")


@pytest.fixture
def httpd():
    """Return httpd(status, said), the address of a server with this answer to every request."""
    servers = []

    def serve(status: int, said: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # answers "Expect: 100-continue", which S3's clients send

            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = said.encode()
                if not said.startswith("<"):
                    body = json.dumps({"error": {"code": status, "message": said}}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_GET  # noqa: N815

            def log_message(self, format, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_fault_of_svilm_is_not_the_stores_answer(any_lab, monkeypatch):
    nothing: Any = None
    monkeypatch.setattr(bucket, "_split", lambda path: bucket.same_store(path, nothing))
    with pytest.raises(AttributeError, match="startswith"):
        bucket.stat(f"{any_lab}/a")
