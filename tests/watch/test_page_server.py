"""What a browser may ask the page's server for, and who may ask."""

import http.client
import json
import threading

import pytest
from watched_run import write_rows

from bridge.watch.run import Run
from bridge.watch.server import SCRIPTS, STYLES, Server


@pytest.fixture
def ask(tmp_path):
    write_rows(tmp_path, 5)
    (tmp_path / "video.mp4").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path.parent / "outside.md").write_text("outside")
    run = Run(tmp_path)
    run.news()
    server = Server(run, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def asked(path, method="GET", **headers):
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
        connection.putrequest(method, path, skip_host="host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    asked.server = server
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_listens_on_this_machine_alone(ask):
    assert ask.server.server_address[0] == "127.0.0.1"
    assert ask.server.address == f"http://127.0.0.1:{ask.server.server_address[1]}/"


def test_the_page_all_that_it_is_made_of_and_the_news_are_answered(ask):
    for path in ("/", *(f"/page/{name}" for name in (*SCRIPTS, *STYLES))):
        answer, body = ask(path)
        assert answer.status == 200, path
        assert len(body) > 500
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    _, page = ask("/")
    assert all(f"/page/{name}".encode() in page for name in (*SCRIPTS, *STYLES))
    answer, body = ask("/news?known=0&key=&about=")
    assert json.loads(body)["now"]["rows"] == 5
    assert json.loads(ask("/news?known=x&key=%00&about=..")[1])["first"] == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "10.0.0.1:8765"]
)
def test_a_page_of_another_site_whose_name_leads_here_is_refused(ask, host):
    answer, body = ask("/news", host=host)
    assert answer.status == 403
    assert b"step" not in body


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:9000", "LocalHost"])
def test_this_machine_may_be_called_by_all_of_its_names_at_any_port(ask, host):
    assert ask("/", host=host)[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/files/secret.txt",
        "/files/../outside.md",
        "/files/..%2foutside.md",
        "/files/%2fetc%2fpasswd",
        "/files//etc/passwd",
        "/files/",
        "/page/../server.py",
        "/page/..%2fserver.py",
        "/page/uplot/LICENSE",
        "/etc/passwd",
        "/metrics.jsonl",
    ],
)
def test_nothing_is_given_that_the_page_does_not_link_to(ask, path):
    assert ask(path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(ask, method):
    assert ask("/news", method)[0].status == 501


def test_a_video_comes_whole_or_in_the_part_that_is_asked_for(ask):
    whole = bytes(range(256)) * 4
    assert ask("/files/video.mp4")[1] == whole
    answer, body = ask("/files/video.mp4", range="bytes=100-199")
    assert (answer.status, body, answer.headers["Content-Range"]) == (
        206,
        whole[100:200],
        "bytes 100-199/1024",
    )
    answer, body = ask("/files/video.mp4", range="bytes=1000-")
    assert (answer.status, body) == (206, whole[1000:])
    assert ask("/files/video.mp4", range="bytes=1024-")[0].status == 416
    assert ask("/files/video.mp4", range="lines=1")[1] == whole
    answer, body = ask("/files/video.mp4", "HEAD")
    assert (answer.headers["Content-Length"], body) == ("1024", b"")
