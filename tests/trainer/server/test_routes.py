import dataclasses
import io
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from protos.v1 import clip_pb2
from tests.trainer.server.conftest import HOSTILE
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.evaluation.grounding import heat_map
from trainer.index import build
from trainer.index.files import SearchIndexError
from trainer.index.index import Index
from trainer.inference.encoder import embed_clips
from trainer.server import films
from trainer.server.app import create
from trainer.server.gate import Gate
from trainer.server.library import Library, check_same_clips
from trainer.server.protection import Rules


def client_of(service, **rules):
    return TestClient(create(service, Rules(**rules)), base_url="http://localhost")


@pytest.fixture
def client(service):
    with client_of(service) as client:
        yield client


def found(client, **query):
    answer = client.get("/api/search", params={"size": 48} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors_of(library):
    return library.index.clips(range(len(library.index)))


def test_a_text_finds_the_clips_in_the_order_of_their_cosines(client, library, written):
    answer = found(client, text="a red ring")
    cosines = library.index.encoder.similarity(["a red ring"], vectors_of(library))[0]
    best = np.argsort(-cosines, kind="stable")
    assert [one["number"] for one in answer["results"]] == best.tolist()
    assert [one["score"] for one in answer["results"]] == pytest.approx(
        cosines[best].tolist(), abs=1e-6
    )
    assert [one["rank"] for one in answer["results"]] == list(range(1, 31))
    assert not answer["more"] and answer["nouns"] == ["red ring"]
    first = answer["results"][0]
    clip = written.clips[first["number"]]
    assert (first["clip_id"], first["caption"]) == (clip.clip_id, clip.caption)
    assert (first["width"], first["height"], first["frames"]) == (48, 32, 4)


def test_pages_join_to_the_whole_list(client):
    whole = [one["number"] for one in found(client, text="a red ring")["results"]]
    pages = [found(client, text="a red ring", size=7, page=page) for page in range(1, 7)]
    assert [one["number"] for page in pages for one in page["results"]] == whole
    assert [page["more"] for page in pages] == [True] * 4 + [False] * 2


def test_more_like_a_clip_leaves_that_clip_out(client, library):
    answer = found(client, like=4)
    vectors = vectors_of(library)
    order = np.argsort(-(vectors @ vectors[4]), kind="stable")
    assert [one["number"] for one in answer["results"]] == [n for n in order.tolist() if n != 4]
    assert answer["nouns"] == ["red ring"]
    pages = [found(client, like=4, size=10, page=page)["results"] for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [10, 10, 9]


def test_a_text_is_subtracted(client, library):
    plus, minus = library.index.encoder.texts(["a red ring", "a blue disc"])
    cosines = vectors_of(library) @ ((plus - minus) / np.linalg.norm(plus - minus))
    answer = found(client, text="a red ring", without="a blue disc")
    best = np.argsort(-cosines, kind="stable").tolist()
    assert [one["number"] for one in answer["results"]] == best


def test_filters(client, written):
    def numbers(**query):
        return sorted(one["number"] for one in found(client, text="a ring", **query)["results"])

    assert numbers(label="falling") == list(range(1, 30, 2))
    assert numbers(dataset="test") == list(range(30))
    for name in ("label", "dataset", "video"):
        answer = client.get("/api/search", params={"text": "a", name: "none such"})
        assert answer.status_code == 422 and "none such" in answer.json()["error"]["message"]
    assert numbers(video="video-00002") == [6, 7, 8]
    assert numbers(shortest=1.0, longest=1.2) == list(range(1, 30, 3))
    scores = [one["score"] for one in found(client, text="a ring")["results"]]
    assert len(numbers(min_score=scores[9] - 1e-6)) == 10
    by_video = found(client, text="a ring", by_video=True)["results"]
    assert len(by_video) == len({clip.video_id for clip in written.clips}) == 11
    assert len({one["video_id"] for one in by_video}) == 11


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("search", None),
        ("search?text=", "text.0"),
        ("search?text=%20%20", "text.0"),
        (f"search?text={'a' * 501}", "text.0"),
        ("search?" + "&".join(["text=a"] * 9), "text"),
        ("search?text=a&min_score=nan", "min_score"),
        ("search?text=a&size=49", "size"),
        ("search?text=a&page=0", "page"),
        ("search?text=a&page=5000", None),
        ("search?text=a&label=" + "b" * 201, "label"),
        ("search?text=a&longest=-1", "longest"),
        ("search?text=a&side=2", "side"),
        ("search?text=a&colour=red", "colour"),
        ("search?like=-1", "like"),
        ("search?text=a&without=a", None),
        ("clips/x", "number"),
        (f"clips/{2**40}", "number"),
        ("clips/1/structure?noun=" + "a" * 61, "noun.0"),
        ("clips/1/structure?" + "&".join(["noun=a"] * 7), "noun"),
    ],
)
def test_a_wrong_request_is_refused_with_its_field(client, path, field):
    answer = client.get(f"/api/{path}")
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["type"] == "invalid" and error.get("field") == field and error["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/clips/30",
        "/api/clips/30/film.jpg",
        "/api/clips/30/structure",
        "/api/search?like=30",
        "/api/search?text=a&side=1",
        "/api/clips/3/video",
        "/api/none",
        "/page/none.js",
        "/page/..%2fapp.py",
        "/page/../app.py",
        "/api/clips/..%2f..%2fmanifest.json/film.jpg/x",
    ],
)
def test_what_does_not_exist_is_not_found(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found"


def test_hostile_texts_come_back_as_json_texts(client, written):
    clip = client.get("/api/clips/1").json()
    assert clip["caption"] == HOSTILE and not clip["video"]
    assert clip["video_id"] == "../../../etc/passwd"
    assert client.get("/api/clips/1/video").status_code == 404
    assert client.get("/api/about").json()["labels"] == ["<b>bold</b>", "falling", "rising"]


def test_a_film_has_the_clips_frames(client, written):
    answer = client.get("/api/clips/5/film.jpg")
    strip = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
    assert strip.shape == (32, 4 * 48, 3)
    for place, data in enumerate(written.clips[5].frames):
        frame = np.asarray(Image.open(io.BytesIO(data))).astype(int)
        assert np.abs(strip[:, 48 * place : 48 * (place + 1)] - frame).mean() < 8
    again = client.get("/api/clips/5/film.jpg", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content


def test_the_structure_of_a_clip(client, library):
    answer = client.get("/api/clips/5/structure", params={"noun": ["red ring", "sky"]}).json()
    snapshot, config = library.index.snapshot(5), library.index.run.config
    records = np.array([5])
    _, clips = embed_clips(snapshot, library.index.encoder, lambda *_: None, records, at_once=1)
    windows = clips.windows[0] / np.linalg.norm(clips.windows[0], axis=1, keepdims=True)
    assert np.allclose(answer["similarity"], windows @ windows.T, atol=4e-3)  # float16
    assert answer["window_of"] == [0, 0, 1, 1]
    # The model sees the centre: 16 of 18 pixels, into which the 32 of the height are scaled.
    assert answer["crop"] == pytest.approx(
        [(48 - 32 * 16 / 18) / 2 / 48, 1 / 18, 32 * 16 / 18 / 48, 16 / 18], abs=1e-5
    )
    assert [one["noun"] for one in answer["nouns"]] == ["red ring", "sky"]
    (prompted,) = library.index.encoder.texts(["A footage of a red ring."])
    heat = heat_map(clips.groups[0], clips.group_of[0], clips.share[0], prompted, config.video)
    assert np.allclose(answer["nouns"][0]["heat"], heat * 255, atol=1)


def test_a_video_is_served_by_range(client, videos):
    data = (videos / "video-00000.mp4").read_bytes()
    whole = client.get("/api/clips/0/video")
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "video/mp4"
    for header, part in [
        ("bytes=0-99", data[:100]),
        ("bytes=100-", data[100:]),
        ("bytes=-7", data[-7:]),
        (f"bytes=10-{len(data) + 5}", data[10:]),
    ]:
        answer = client.get("/api/clips/0/video", headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, part)
        start = data.index(part)
        assert answer.headers["content-range"] == (
            f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        )
    beyond = client.get("/api/clips/0/video", headers={"Range": f"bytes={len(data)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(data)}"


def test_a_full_queue_is_answered_with_503(service):
    full = dataclasses.replace(service, gate=Gate(service.metrics, waiting=0))
    with client_of(full) as client:
        answer = client.get("/api/search", params={"text": "a text that is new"})
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "busy"
    assert int(answer.headers["retry-after"]) >= 1


def test_a_damaged_record_is_reported_without_its_path(service, library, written, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(written.folder, folder)
    shutil.copytree(library.index.folder, tmp_path / "index")
    about = tmp_path / "index" / "index.json"
    about.write_text(about.read_text().replace(str(written.folder), str(folder)))
    shard = folder / "shard-00000-of-00003.tfrecord"
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    damaged = Library(Index.open(tmp_path / "index", library.index.run))
    with client_of(dataclasses.replace(service, libraries=(damaged,))) as client:
        answer = client.get("/api/clips/0/film.jpg")
        assert client.get("/api/clips/1/film.jpg").status_code == 200
    assert answer.status_code == 500 and answer.json()["error"]["type"] == "damaged"
    assert str(tmp_path) not in answer.text
    assert str(shard) in capsys.readouterr().err


def test_two_indices_must_have_the_same_clips(library, write_snapshot, tmp_path):
    snapshot = Snapshot.open(write_snapshot(clips=3, frames=4, height=32, width=48).folder)
    assert build.build(library.index.run, [snapshot], tmp_path / "other", lambda *_: None)
    check_same_clips(library.index, library.index)
    with pytest.raises(SearchIndexError, match="other clips"):
        check_same_clips(library.index, Index.open(tmp_path / "other"))


@pytest.mark.parametrize("encoding", ["PNG", "RAW"])
def test_films_of_other_encodings(encoding):
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8).repeat(8, 1)
    data = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        data.append(file.getvalue() if encoding == "PNG" else frame.tobytes())
    clip = clip_pb2.Clip(
        frames=data, frame_encoding=f"FRAME_ENCODING_{encoding}", height=64, width=8
    )
    strip = np.asarray(Image.open(io.BytesIO(films.film(clip))))
    assert strip.shape == (64, 16, 3)
    for broken in (data[0][:99], b"", b"x" * 99):
        clip.frames[1] = broken
        with pytest.raises(SnapshotError, match="frame 1"):
            films.film(clip)


def test_two_runs_answer_by_side(two_runs):
    with client_of(two_runs) as client:
        assert len(client.get("/api/about").json()["runs"]) == 2
        sides = [found(client, text="a red ring", side=side) for side in "01"]
    assert sides[0] == sides[1]


def test_the_description_names_every_route(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        *("/api/about", "/api/search", "/api/clips/{number}", "/api/clips/{number}/film.jpg"),
        *("/api/clips/{number}/structure", "/api/clips/{number}/video", "/healthz", "/metrics"),
    }
    parameters = schema["paths"]["/api/search"]["get"]["parameters"]
    assert {one["name"] for one in parameters} >= {"text", "without", "like", "label", "page"}
    for page in ("/", "/docs"):
        text = client.get(page).text
        assert "http" not in text.replace("http-equiv", "").replace("HTTP API", "")


def test_metrics_count_requests_by_route(client):
    client.get("/api/clips/2")
    client.get("/api/clips/3")
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert 'svilm_requests_total{route="/api/clips/{number}",status="200"} 2.0' in text
    assert 'status="404"' in text and "process_resident_memory_bytes" in text
    assert "nowhere" not in text
