"""A stand-in of the Hugging Face Hub on this machine: repositories of one revision, by its HTTP API."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_stand_in"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What was asked of it: create a repository, say how a file is sent, take one, commit; give files."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.refuses: int | None = None
        """A status that every request that writes is answered with."""
        self.address = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        hub, body = self.hub, self._body()
        if hub.refuses is not None or self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._answer(hub.refuses or 401, {"error": "Not for you."})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization'] or 'me'}/{asked['name']}"
            hub.created.append(asked)
            known = repo_id in hub.files
            hub.files.setdefault(repo_id, {})
            self._answer(409 if known else 200, {"url": f"{hub.address}/{repo_id}"})
        elif self.path == "/api/validate-yaml":  # of a card, as the client asks before it sends one
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": each["oid"],
                    "size": each["size"],
                    "actions": {"upload": {"href": f"{hub.address}/objects/{each['oid']}"}},
                }
                for each in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            repo_id = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            self._commit(hub.files[repo_id], [json.loads(line) for line in body.splitlines()])
            url = f"{hub.address}/{repo_id}/commit/{COMMIT}"
            self._answer(200, {"commitUrl": url, "commitOid": COMMIT})
        else:
            self._answer(404, {"error": self.path})

    def _commit(self, files: dict[str, bytes], operations: list[dict[str, Any]]) -> None:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self._answer(200, {})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        repo_id, slash, name = path.strip("/").partition("/resolve/")
        if slash:
            self._file(repo_id, name.partition("/")[2])
        elif path.startswith("/api/models/"):
            repo_id = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            files = self.hub.files.get(repo_id)
            if files is None:
                self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif "/tree/" in path:
                self._answer(200, [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in files])
            else:
                siblings = [{"rfilename": name} for name in files]
                self._answer(200, {"id": repo_id, "sha": COMMIT, "siblings": siblings})
        else:
            self._answer(404, {"error": path})

    do_HEAD = do_GET  # noqa: N815

    def _file(self, repo_id: str, name: str) -> None:
        content = self.hub.files.get(repo_id, {}).get(name)
        if content is None:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), headers or {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def standing_in() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
