"""A small GitHub on loopback: the part of its API that the workflows use, with the state in plain dicts for a test to read."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, Any]


class Forge(ThreadingHTTPServer):
    """State: pulls, runs, statuses (sha -> newest first), comments (number -> list), releases; `calls` is every request."""

    def __init__(self, artifacts: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.artifacts = artifacts
        self.pulls: list[Row] = []
        self.runs: dict[int, Row] = {}  # of workflows, by ID
        self.statuses: dict[str, list[Row]] = {}
        self.comments: dict[int, list[Row]] = {}
        self.releases: list[Row] = []
        self.files: dict[int, bytes] = {}
        self.calls: list[tuple[str, str, str]] = []  # method, path, token
        self.down = False
        self.hold = ""  # an asset of this name stays half uploaded, and its sender waits
        self.held = threading.Event()
        self.next_id = 100
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def add_release(self, tag: str, assets: dict[str, bytes], draft: bool = False) -> None:
        rows = []
        for name, data in assets.items():
            rows.append({"id": self.new_id(), "name": name, "size": len(data), "state": "uploaded"})
            self.files[rows[-1]["id"]] = data
        number = self.new_id()
        upload = f"{self.url}/upload/{number}{{?name,label}}"
        self.releases.append({"id": number, "tag_name": tag, "draft": draft, "assets": rows, "upload_url": upload, "body": ""})

    def release(self, tag: str) -> Row | None:
        return next((r for r in self.releases if r["tag_name"] == tag), None)


class Handler(BaseHTTPRequestHandler):
    server: Forge

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, value: Any, code: int = 200) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _handle(self, method: str) -> None:
        forge, address = self.server, urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        forge.calls.append((method, self.path, token))
        body = self._body()
        if forge.down:
            return self._send({"message": "down"}, 503)
        query = {k: v[0] for k, v in parse_qs(address.query).items()}
        if match := re.fullmatch(r"/upload/(\d+)", address.path):
            release = next(r for r in forge.releases if r["id"] == int(match[1]))
            if query["name"] == forge.hold:
                release["assets"].append({"id": forge.new_id(), "name": query["name"], "size": 0, "state": "starter"})
                forge.held.set()
                time.sleep(60)
                return
            if query["name"] in {a["name"] for a in release["assets"]}:
                return self._send({"message": "already_exists"}, 422)
            asset = {"id": forge.new_id(), "name": query["name"], "size": len(body), "state": "uploaded"}
            forge.files[asset["id"]] = body
            release["assets"].append(asset)
            return self._send(asset, 201)
        if address.path == "/identity":  # a new token each time, for whoever may ask
            allowed = token == "may-ask" and query.get("audience") == "api://AzureADTokenExchange"
            return self._send({"value": f"signed-{forge.new_id()}"} if allowed else {}, 200 if allowed else 401)
        path = address.path.removeprefix("/repos/acme/slm/")
        first = int(query.get("page", 1)) == 1
        value = json.loads(body) if body else {}
        if method == "GET" and path == "pulls":
            found = [p for p in forge.pulls if p["state"] == "open" and query.get("head") in (None, p["head"]["label"])]
            return self._send(found if first else [])
        if method == "POST" and path == "pulls":
            if any(p["state"] == "open" and p["head"]["label"] == f"acme:{value['head']}" for p in forge.pulls):
                return self._send({"message": "A pull request already exists"}, 422)
            pull = {"number": forge.new_id(), "state": "open", "title": value["title"], "body": value["body"]}
            pull["head"] = {"label": f"acme:{value['head']}", "ref": value["head"], "sha": "", "repo": {"full_name": "acme/slm"}}
            pull["base"] = {"ref": value["base"], "sha": ""}
            forge.pulls.append(pull)
            return self._send(pull, 201)
        if method == "PATCH" and (match := re.fullmatch(r"pulls/(\d+)", path)):
            pull = next(p for p in forge.pulls if p["number"] == int(match[1]))
            pull.update(value)
            return self._send(pull)
        if match := re.fullmatch(r"statuses/([0-9a-f]{40})", path):
            forge.statuses.setdefault(match[1], []).insert(0, value | {"creator": {"login": "github-actions[bot]"}})
            return self._send(value, 201)
        if match := re.fullmatch(r"commits/([0-9a-f]{40})/statuses", path):
            return self._send(forge.statuses.get(match[1], []) if first else [])
        if match := re.fullmatch(r"issues/(\d+)/comments", path):
            comments = forge.comments.setdefault(int(match[1]), [])
            if method == "GET":
                return self._send(comments if first else [])
            comments.append({"id": forge.new_id(), "body": value["body"], "user": {"type": "Bot"}})
            return self._send(comments[-1], 201)
        if match := re.fullmatch(r"issues/comments/(\d+)", path):
            comment = next(c for rows in forge.comments.values() for c in rows if c["id"] == int(match[1]))
            comment.update(value)
            return self._send(comment)
        if match := re.fullmatch(r"actions/runs/(\d+)", path):
            run = forge.runs.get(int(match[1]))
            return self._send(run or {"message": "Not Found"}, 200 if run else 404)
        if match := re.fullmatch(r"actions/runs/(\d+)/artifacts", path):
            zips = sorted((forge.artifacts / match[1]).glob("*.zip"))
            rows = [{"id": int(match[1]) * 100 + i, "name": p.stem, "size_in_bytes": p.stat().st_size} for i, p in enumerate(zips)]
            return self._send({"artifacts": rows if first else []})
        if match := re.fullmatch(r"actions/artifacts/(\d+)/zip", path):
            run, index = divmod(int(match[1]), 100)
            if "octet-stream" in (self.headers.get("Accept") or ""):
                return self._send({"message": "Unsupported Media Type"}, 415)
            return self._send(sorted((forge.artifacts / str(run)).glob("*.zip"))[index].read_bytes())
        if address.path == "/repos/acme/slm":
            return self._send({"default_branch": "main"})
        if path == "releases":
            if method == "GET":
                return self._send(forge.releases if first else [])
            forge.add_release(value["tag_name"], {}, draft=value["draft"])
            forge.releases[-1] |= {"body": value["body"], "commit": value["target_commitish"]}
            return self._send(forge.releases[-1], 201)
        if match := re.fullmatch(r"releases/assets/(\d+)", path):
            if method == "DELETE":
                for release in forge.releases:
                    release["assets"] = [a for a in release["assets"] if a["id"] != int(match[1])]
                return self._send(b"", 204)
            if "octet-stream" not in (self.headers.get("Accept") or ""):
                return self._send({"id": int(match[1])})
            return self._send(forge.files[int(match[1])])
        if match := re.fullmatch(r"releases/(\d+)", path):
            release = next(r for r in forge.releases if r["id"] == int(match[1]))
            release.update(value)
            return self._send(release)
        return self._send({"message": f"not here: {method} {path}"}, 404)

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def do_PATCH(self) -> None:
        self._handle("PATCH")

    def log_message(self, *_: object) -> None:
        pass
