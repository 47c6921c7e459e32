import pytest
from fastapi.testclient import TestClient

from trainer.server.app import create
from trainer.server.protection import HEADERS, Rules, known_host

TOKEN = "a-token-of-this-test-0123456789"


def client_of(service, **rules):
    return TestClient(
        create(service, Rules(**rules)), base_url="http://localhost", follow_redirects=False
    )


@pytest.mark.parametrize("path", ["/", "/docs", "/api/about", "/nowhere", "/page/page.css"])
def test_every_answer_has_the_headers(service, path):
    answer = client_of(service).get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("gpu7:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example@localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_the_host_must_be_this_server(service, host, status):
    client = client_of(service, hosts=frozenset({"gpu7"}))
    assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_a_damaged_host_is_unknown():
    assert not known_host("[::1", set())
    assert not known_host("[evil]:80", set())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)
def test_other_sites_pages_may_only_link_here(service, headers, status):
    assert client_of(service).get("/api/about", headers=headers).status_code == status


def test_a_token_is_required(service):
    client = client_of(service, token=TOKEN)
    for path in ("/api/about", "/metrics", "/docs", "/openapi.json", "/page/main.js", "/nowhere"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == 200
    for wrong in (TOKEN[:-1], TOKEN + "x", "", "é" * 20):
        headers = [(b"Authorization", f"Bearer {wrong}".encode())]
        assert client.get("/api/about", headers=headers).status_code == 401
    given = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/about", headers=given).status_code == 200


def test_signing_in_opens_a_session_and_keeps_the_address(service):
    client = client_of(service, token=TOKEN)
    page = client.get("/?text=ring")
    assert page.status_code == 401 and 'type="password"' in page.text and TOKEN not in page.text
    wrong = client.post("/?text=ring", data={"token": "no"})
    assert wrong.status_code == 401 and 'role="alert"' in wrong.text and not client.cookies
    right = client.post("/?text=ring", data={"token": TOKEN})
    assert (right.status_code, right.headers["location"]) == (303, "/?text=ring")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and TOKEN not in cookie
    assert client.get("/api/about").status_code == 200
    other = client_of(service, token=TOKEN)
    other.cookies.update(client.cookies)
    assert other.get("/api/about").status_code == 401


def test_a_long_sign_in_is_refused(service):
    client = client_of(service, token=TOKEN)
    answer = client.post("/", content=b"token=" + b"a" * 100_000)
    assert answer.status_code == 413 and answer.json()["error"]["type"] == "too_large"
    assert client.post("/", content=b"token=\xff&a&b&c&d&e").status_code == 401


def test_a_client_that_sends_too_much_is_slowed_down(service):
    client = client_of(service, rate=0.5, burst=3.0)
    assert [client.get("/healthz").status_code for _ in range(5)] == [200] * 3 + [429] * 2
    answer = client.get("/healthz")
    assert answer.json()["error"]["type"] == "too_many"
    assert int(answer.headers["retry-after"]) >= 1


def test_guesses_of_the_token_are_slowed_down(service):
    client = client_of(service, token=TOKEN, rate=1.0, burst=120.0)
    codes = [client.post("/", data={"token": str(guess)}).status_code for guess in range(5)]
    assert codes == [401, 401, 401, 429, 429]


def test_other_methods_are_refused(service):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = client_of(service).request(method, "/api/about")
        assert answer.status_code == 405 and answer.json()["error"]["type"] == "invalid"
