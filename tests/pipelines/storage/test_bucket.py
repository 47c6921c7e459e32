"""Objects on a real server, and errors of fake ones."""

import errno
import http.server
import json
import threading

import pytest

from pipelines.storage import bucket, storage

BIG = 6 << 20  # bytes; larger than one part of an upload


@pytest.mark.filterwarnings("ignore:Sending a large body directly")  # as gcsfs retries
def test_objects_have_the_written_content(lab, tmp_path):
    # The content includes the separator of gcsfs's multipart uploads.
    data = b"\n--==0==--\r\n" + bytes(range(256)) * 3
    with storage.NewFile(f"{lab}/objects/small") as file:
        file.write(data[:100])
        file.write(data[100:])
    big = bytes(range(256)) * (BIG // 256)
    (tmp_path / "big").write_bytes(big)
    bucket.upload(str(tmp_path / "big"), f"{lab}/objects/big")
    bucket.write(f"{lab}/objects/deeper/one", b"1")

    folder = f"{lab}/objects"
    assert storage.names(folder) == ["big", "small"]
    assert storage.expand(folder) == ([f"{folder}/big", f"{folder}/small"], [])
    assert not storage.is_empty(folder) and storage.is_empty(f"{lab}/nothing")
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


def test_a_failed_write_leaves_no_object(lab):
    with pytest.raises(RuntimeError), storage.NewFile(f"{lab}/failed/one") as file:
        file.write(b"1")
        raise RuntimeError
    assert storage.is_empty(f"{lab}/failed")


def test_a_new_file_overwrites_no_other(lab):
    path = f"{lab}/new/one"
    storage.write_new(path, b"1")
    storage.write_new(path, b"1")  # A repeated request, as after a lost answer.
    with pytest.raises(FileExistsError) as raised:
        storage.write_new(path, b"2")
    assert raised.value.filename == path
    assert storage.read(path) == b"1"


@pytest.mark.parametrize("call", [storage.read, storage.size, storage.sha256, storage.remove])
def test_a_missing_object_is_named(lab, call):
    with pytest.raises(FileNotFoundError, match="no such object or bucket") as raised:
        call(f"{lab}/nothing")
    assert raised.value.filename == f"{lab}/nothing"
    assert not storage.exists(f"{lab}/nothing")


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
def httpd():
    """Return httpd(status, said), the address of a server with this answer to every request."""
    servers = []

    def serve(status: int, said: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps({"error": {"code": status, "message": said}}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
