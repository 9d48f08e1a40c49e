"""Who may ask for what, over HTTP; nothing in a reply tells a patient or a place on the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from viewer.conftest import CANARY, LESION, SIZE, TOKEN, Planted

pytest.importorskip("starlette", reason="the extra `viewer` is not installed")
pytest.importorskip("httpx2", reason="the server's test client needs httpx2")

from starlette.testclient import TestClient

from wsi_mil.errors import ConfigError
from wsi_mil.viewer import address_of, make_app
from wsi_mil.viewer.cases import key_of
from wsi_mil.viewer.handles import Handles

BASE = "http://127.0.0.1:8765"
L1 = key_of("L1")


@pytest.fixture
def client(planted: Planted) -> Iterator[TestClient]:
    """A visitor who came with the token."""
    with TestClient(make_app(planted.cohort(), token=TOKEN), base_url=BASE) as visitor:
        visitor.get("/", params={"token": TOKEN})
        yield visitor


@pytest.fixture
def stranger(planted: Planted) -> Iterator[TestClient]:
    with TestClient(make_app(planted.cohort(), token=TOKEN), base_url=BASE) as visitor:
        yield visitor


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    first = stranger.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/api/cases", f"/api/slide/{L1}", f"/tile/{L1}/0/0_0.jpg", "/static/viewer.css", "/no/such"]
)
def test_without_the_token_there_is_nothing(stranger: TestClient, path: str) -> None:
    assert stranger.get(path).status_code == 401
    assert stranger.get(path, params={"token": TOKEN[:-1]}).status_code == 401
    assert stranger.get(path, headers={"cookie": "wsi_mil_0=wrong"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_another_host_is_refused_before_the_token_is_looked_at(client: TestClient, host: str) -> None:
    assert client.get("/api/cases", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8765", "[::1]:8765"])
def test_loopback_is_served_under_all_its_names(client: TestClient, host: str) -> None:
    assert client.get("/api/cases", headers={"host": host}).status_code == 200


def test_a_short_token_and_no_token_are_refused(planted: Planted) -> None:
    for token in ("", "short"):
        with pytest.raises(ConfigError, match="16 or more"):
            TestClient(make_app(planted.cohort(), token=token)).get("/")


def test_every_reply_forbids_what_lies_elsewhere(client: TestClient) -> None:
    for path in ("/", "/api/cases", "/no/such", f"/tile/{L1}/0/0_0.jpg"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2fcases.py",
        "/static/%2e%2e/cases.py",
        "/static/..%252f..%252fetc/passwd",
        "/static//etc/passwd",
        "/tile/..%2f..%2fetc%2fpasswd/0/0_0.jpg",
        "/api/slide/..%2f..%2fetc%2fpasswd",
        "/api/slide/L1",
        f"/api/map/{L1}/..%2f..%2fabmil",
        f"/api/map/{L1}/nope",
        f"/api/map/{L1}/abmil/2",
        f"/tile/{L1}/99/0_0.jpg",
        f"/tile/{L1}/0/1000000000_0.jpg",
        f"/tile/{L1}/0/-1_0.jpg",
        f"/api/slide/{L1}/crop/0_0_0_0_64.jpg",
        f"/api/slide/{L1}/crop/0_0_10_10_100000.jpg",
        f"/api/slide/{L1}/crop/0_0_1000000000_10_64.jpg",
        f"/api/slide/{L1}/crop/a_b.jpg",
        "/thumbnail",
        "/label",
    ],
)
def test_what_is_not_in_a_table_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_no_reply_names_a_patient_or_a_place_on_the_disk(client: TestClient, planted: Planted) -> None:
    notes = [one["predictions"]["abmil"]["note"] for one in client.get("/api/cases").json()["cases"]]
    assert notes == ["", "too few tiles (see cohort.csv)"]
    paths = ["/", "/api/cases", f"/api/slide/{L1}", f"/api/map/{L1}/abmil", f"/tile/{L1}/3/0_0.jpg", "/api/colours"]
    for path in paths:
        body = client.get(path).content
        assert CANARY.encode() not in body
        assert str(planted.root).encode() not in body
    (planted.root / "slides" / "L1.tiff").write_text("no slide")
    broken = client.get(f"/api/slide/{L1}")
    assert broken.status_code == 409
    assert "L1.tiff" in broken.json()["error"]
    assert str(planted.root) not in broken.text
    (planted.root / "slides" / "L1.tiff").unlink()
    gone = client.get(f"/api/slide/{L1}")
    assert gone.status_code == 409
    assert str(planted.root) not in gone.text
    assert "--slides" in gone.json()["error"]


def test_a_slide_is_told_with_its_levels_and_polygons(client: TestClient) -> None:
    told = client.get(f"/api/slide/{L1}").json()
    assert (told["size"], told["mpp"]) == (list(SIZE), [0.5, 0.5])
    assert [one["name"] for one in told["truth"]] == ["Lesion"]
    xs, ys = zip(*told["truth"][0]["rings"][0], strict=True)
    assert (min(xs), min(ys), max(xs), max(ys)) == LESION
    assert told["tissue"]
    assert told["regions"] == []


def test_numbers_of_a_map_arrive_as_they_are(client: TestClient) -> None:
    told = client.get(f"/api/map/{L1}/abmil").json()
    places = np.frombuffer(client.get(f"/api/map/{L1}/abmil/places").content, "<i4").reshape(-1, 2)
    scores = np.frombuffer(client.get(f"/api/map/{L1}/abmil/0").content, "<f4")
    assert told["tiles"] == len(places) == len(scores)
    highest = places[np.argsort(-scores)[:4]]
    assert set(map(tuple, highest.tolist())) == {(x, y) for x in (768, 896) for y in (512, 640)}


def put(client: TestClient, what: str, told: object, **headers: str) -> int:
    sent = {"origin": BASE, "content-type": "application/json"} | headers
    return int(client.put(f"/api/slide/{L1}/{what}", content=json.dumps(told), headers=sent).status_code)


def test_changes_come_from_the_page_alone(client: TestClient) -> None:
    region = [{"name": "Lesion", "rings": [[[0, 0], [10, 0], [10, 10]]]}]
    assert put(client, "regions", region, origin="http://evil.example") == 403
    assert put(client, "regions", region, origin="http://127.0.0.1:9999") == 403, "another port is another page"
    assert put(client, "regions", region, **{"content-type": "text/plain"}) == 403
    assert put(client, "regions", region) == 200
    assert client.post(f"/api/slide/{L1}/regions").status_code in (403, 405)


@pytest.mark.parametrize(
    "told",
    [
        {"name": "x"},
        [{"name": "", "rings": [[[0, 0], [9, 0], [9, 9]]]}],
        [{"name": "x", "rings": [[[0, 0], [9, 0]]]}],
        [{"name": "x", "rings": [[[0, 0], ["a", 0], [9, 9]]]}],
        [{"name": "x", "rings": [[[0, 0], [1e999, 0], [9, 9]]]}],
        [{"name": "x", "rings": [[[-9, -9], [-5, -9], [-5, -5]]]}],
        [{"name": "x\ny", "rings": [[[0, 0], [9, 0], [9, 9]]]}],
    ],
)
def test_what_is_no_region_is_refused(client: TestClient, planted: Planted, told: object) -> None:
    assert put(client, "regions", told) == 400
    assert not (planted.work / "annotations").exists()


def test_a_body_that_is_too_large_or_no_json_is_refused(client: TestClient) -> None:
    headers = {"origin": BASE, "content-type": "application/json"}
    url = f"/api/slide/{L1}/regions"
    assert client.put(url, content=b"[" * 100_000, headers=headers).status_code == 400
    assert client.put(url, content=b" " * (17 << 20), headers=headers).status_code == 413


def test_many_at_once_get_the_same_and_few_files_stay_open(planted: Planted) -> None:
    cohort, handles = planted.cohort(), Handles(most_open=1)
    cases = list(cohort.cases.values())

    def ask(number: int) -> bytes:
        return handles.tile(cases[number % 2], 2, number // 2 % 2, 0)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(200)))
    assert len(set(found)) <= 4
    assert found[:4] * 50 == found
    assert len(handles._opened) == 1
    del found
    slides = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert sum(str(planted.root) in path for path in slides) <= 1


def _is_link(descriptor: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{descriptor}")


def test_a_slide_that_was_replaced_is_opened_again(client: TestClient, planted: Planted) -> None:
    url = f"/tile/{L1}/3/3_2.jpg"
    before = client.get(url).content
    slides = planted.root / "slides"
    shutil.copy(slides / "B1.tiff", slides / "new.tiff")
    os.utime(slides / "new.tiff", ns=(1, 1))
    os.replace(slides / "new.tiff", slides / "L1.tiff")
    assert client.get(url).content != before


def test_a_damaged_tile_is_grey_and_the_others_are_served(client: TestClient, planted: Planted) -> None:
    path = planted.root / "slides" / "L1.tiff"
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        number = 5 * 8 + 7  # at the edge, so that it is decoded here
        offset, count = page.dataoffsets[number], page.databytecounts[number]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\0" * count
    path.write_bytes(bytes(data))
    assert client.get(f"/tile/{L1}/3/7_5.jpg").status_code == 200
    assert client.get(f"/tile/{L1}/3/6_5.jpg").status_code == 200


def test_a_tunnel_is_told_for_loopback_alone() -> None:
    near = address_of("127.0.0.1", port=8765, token=TOKEN)
    assert near.url == f"http://127.0.0.1:8765/?token={TOKEN}"
    assert near.tunnel.startswith("ssh -L 8765:127.0.0.1:8765 ")
    assert address_of("0.0.0.0", port=1, token=TOKEN).tunnel == ""
