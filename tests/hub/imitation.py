"""A hub on this machine: as much of the protocol of huggingface.co as pushing and fetching small files needs."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Hub:
    """Repositories by name: for every commit, the files by path."""

    address: str
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    refuses: bool = False
    """Whether it answers 403 to whoever wants to write."""

    def newest(self, name):
        return list(self.repositories[name])[-1]


class Handler(BaseHTTPRequestHandler):
    def reply(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.reply(404, {"error": "not found"}, X_Error_Code=code)

    def do_POST(self):
        hub = self.server.hub
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts == ["api", "validate-yaml"]:
            return self.reply(200, {"errors": [], "warnings": []})
        if hub.refuses:
            return self.reply(403, {"error": "Forbidden"})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(content)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if asked.get("private") or asked.get("visibility") == "private":
                hub.private.add(name)
            exists = name in hub.repositories
            hub.repositories.setdefault(name, {"0" * 40: {}})
            return self.reply(409 if exists else 200, {"url": f"{hub.address}/{name}", "name": name})
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(content)["files"]]
            return self.reply(200, {"files": [one | {"shouldIgnore": False} for one in files]})
        if parts[4] == "commit":
            files = dict(hub.repositories[name][hub.newest(name)])
            for line in content.splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            commit = hashlib.sha1(content).hexdigest()
            hub.repositories[name][commit] = files
            url = f"{hub.address}/{name}/commit/{commit}"
            return self.reply(200, {"commitOid": commit, "commitUrl": url, "hookOutput": "", "success": True})
        return self.missing("EntryNotFound")

    def do_GET(self):
        hub = self.server.hub
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[0] == "api":
            name, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
        else:
            name, revision = "/".join(parts[:2]), parts[3] if len(parts) > 3 else "main"
        if name not in hub.repositories:
            return self.missing("RepoNotFound")
        commit = hub.newest(name) if revision == "main" else revision
        if commit not in hub.repositories[name]:
            return self.missing("RevisionNotFound")
        files = hub.repositories[name][commit]
        if parts[0] == "api" and "tree" in parts[4:5]:
            oid = "3" * 40
            tree = [{"type": "file", "path": path, "size": len(one), "oid": oid} for path, one in files.items()]
            return self.reply(200, tree)
        if parts[0] == "api":
            siblings = [{"rfilename": path} for path in files]
            return self.reply(200, {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})
        content = files.get("/".join(parts[4:]))
        if content is None:
            return self.missing("EntryNotFound")
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self.reply(200, content, ETag=etag, X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *values):
        pass


@contextmanager
def serving():
    """A hub without repositories, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
