"""A model hub over real HTTP: as much of the protocol as huggingface_hub speaks to fetch a model and to send one.

It keeps what it is sent. `slow`: after so many bytes of a large file it waits for a long time, as a dying line does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".gguf")


@dataclass
class Repository:
    """Commits, oldest first, each the files of the whole repository; branches and tags name commits."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add files on top of the last commit; gives the new one's name."""
        whole = {**(self.commits[-1][1] if self.commits else {}), **files}
        name = hashlib.sha1(repr((len(self.commits), sorted(whole))).encode(), usedforsecurity=False).hexdigest()
        self.commits.append((name, whole))
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1] if self.commits else None
        return next((c for c in self.commits if c[0] == self.tags.get(revision, revision)), None)


@dataclass
class FakeHub:
    url: str = ""
    token: str = ""  # asked for when something is sent, and for private repositories
    slow: int | None = None
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)

    def downloads(self) -> list[str]:
        return [r.split(" ")[1].rpartition("/")[2] for r in self.requests if r.startswith("GET") and "/resolve/" in r]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._begin()
        parts = self.path_parts
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=self.command == "GET")
        else:
            self._json(404, {"error": "no such page"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._begin()
        body, parts = self.rfile.read(int(self.headers.get("Content-Length", 0))), self.path_parts
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._json(401, {"error": "who are you?"})
        if parts == ["api", "validate-yaml"]:
            return self._json(200, {"errors": [], "warnings": []})
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[-2:-1] == ["preupload"]:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for f in files
            ]
            return self._json(200, {"files": modes})
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self._batch(json.loads(body))
        if parts[-2:-1] == ["commit"]:
            return self._commit("/".join(parts[2:4]), body)
        return self._json(404, {"error": "no such page"})

    def do_PUT(self) -> None:
        self._begin()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.uploads[hashlib.sha256(data).hexdigest()] = data
        self._json(200, {})

    def _begin(self) -> None:
        self.path_parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.requests.append(f"{self.command} {urlsplit(self.path).path}")

    def _found(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(name)
        allowed = repository and (
            not repository.private or self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        )
        return repository.at(revision) if repository and allowed else None

    def _info(self, name: str, revision: str) -> None:
        found = self._found(name, revision)
        if found is None:
            return self._json(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
        siblings: list[dict[str, Any]] = []
        for path, data in found[1].items():
            large = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}}
            siblings.append({"rfilename": path, "size": len(data), **(large if path.endswith(LARGE) else {})})
        return self._json(200, {"id": name, "modelId": name, "sha": found[0], "siblings": siblings, "tags": []})

    def _file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        found = self._found(name, revision)
        if found is None or path not in found[1]:
            return self._json(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        data = found[1][path]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", found[0])
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return None
        if self.hub.slow is not None and path.endswith(LARGE):
            self.wfile.write(data[start : start + self.hub.slow])
            self.wfile.flush()
            time.sleep(30)
            return None
        self.wfile.write(data[start:])
        return None

    def _create(self, asked: dict[str, Any]) -> None:
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories.setdefault(name, Repository(private=bool(private)))
        self._json(200, {"url": f"{self.hub.url}/{name}"})

    def _batch(self, asked: dict[str, Any]) -> None:
        upload = {"upload": {"href": f"{self.hub.url}/upload"}}
        objects = [{**o, "actions": upload} for o in asked["objects"]]
        self._json(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        commit = self.hub.repositories[name].commit(files)
        self._json(200, {"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "success": True})

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, said in (headers or {}).items():
            self.send_header(key, said)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def fake_hub(**settings: Any) -> Iterator[FakeHub]:
    hub = FakeHub(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.block_on_close = False
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
