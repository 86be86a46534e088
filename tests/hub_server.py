"""A small Hub: what an unmodified huggingface_hub client (2.x) asks for models and Spaces, answered from memory.

    with HubServer(folder) as hub:
        ...  # a process with HF_ENDPOINT=hub.url and HF_TOKEN=hf_writer pushes and pulls

Repositories, branches, tags, pull requests, a Space's variables, LFS and, where `folder` is given, Xet, whose content
store is a folder that the client itself reads and writes (`local://`). Users: hf_writer may write to tester/,
hf_reader only reads it. `hub.faults` makes requests fail, `hub.log` keeps what was asked. In `hub.repos` the name of a
Space begins with spaces/.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

OWNER = "tester"
ROLES = {"hf_writer": "write", "hf_reader": "read"}
LFS_SUFFIXES = (".keras", ".onnx", ".parquet", ".png")
NAME = r"([\w.-]+/[\w.-]+)"
PLACE = r"((?:spaces/)?[\w.-]+/[\w.-]+)"
API = "/api/(model|space)s/NAME"


@dataclass(frozen=True)
class File:
    """One file of a commit: small ones are stored in git, large ones in LFS or Xet under their SHA-256."""

    size: int
    oid: str  # git's blob SHA-1, of the pointer for a large file
    sha256: str | None = None
    xet: str | None = None  # its Xet hash, where it came that way


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    oid: str
    message: str
    files: dict[str, File]


@dataclass
class Repo:
    """Branches, tags and pull requests of a model or Space; every ref names one of its commits."""

    private: bool = False
    variables: dict[str, dict] = field(default_factory=dict)  # of a Space: {"value": …, "description": …}
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def add(self, ref: str, message: str, files: dict[str, File]) -> Commit:
        """Move a ref to a new commit, in one step."""
        oid = hashlib.sha1(f"{len(self.commits)}{message}{files}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, message, files)
        self.refs[ref] = oid
        return self.commits[oid]

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag or a commit's own hash."""
        oid = self.refs.get(revision, revision)
        if oid not in self.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, **body):
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path holds `text`.

    kind "cut" closes the connection when half of the body has passed, "hang" stops there, "spoil" changes the bytes
    sent; a number is a status to answer.
    """

    method: str
    text: str
    kind: str | int
    times: int = 1


class HubServer:
    """The Hub's state, and the thread that serves it while the `with` block runs."""

    def __init__(self, xet: Path | None = None):
        self.xet = xet  # where Xet's content lies; None: no Xet here
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # by git SHA-1 or SHA-256
        self.log: list[str] = []  # "PUT /lfs/…" whatever became of it, and each operation of a commit
        self.faults: list[Fault] = []
        self.half_way = threading.Event()  # set when a request was cut or hangs
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str) -> str | int | None:
        """The kind of fault due for a request, used up by asking."""
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.text in path:
                    fault.times -= 1
                    return fault.kind
        return None

    def repo(self, name: str, role: str | None, *, write: bool = False) -> Repo:
        """A repository that this caller may read, or write; the Hub does not tell strangers what is private."""
        found = self.repos.get(name)
        hidden = found is None or (found.private and not role)
        if hidden:
            raise Refusal(401 if role is None else 404, "RepoNotFound", "Repository not found")
        if write and role is None:
            raise Refusal(401, "", "Invalid username or password.")
        if write and (role != "write" or not name.removeprefix("spaces/").startswith(f"{OWNER}/")):
            raise Refusal(403, "", "You need a token with write permission for this repository")
        return found

    # ---- what the client asks, one method an endpoint

    def whoami(self, role: str | None) -> dict:
        """GET /api/whoami-v2."""
        if role is None:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return {"type": "user", "name": OWNER, "orgs": [], "auth": {"accessToken": {"role": role}}}

    def create(self, role: str | None, body: dict) -> dict:
        """POST /api/repos/create; 409 names the repository that exists."""
        if role is None:
            raise Refusal(401, "", "Invalid username or password.")
        plain, kind = f"{body.get('organization') or OWNER}/{body['name']}", body.get("type", "model")
        if role != "write" or not plain.startswith(f"{OWNER}/"):
            raise Refusal(403, "", f"You don't have the rights to create a {kind} under {plain.split('/')[0]}")
        if kind == "space" and not body.get("sdk"):
            raise Refusal(400, "", "A Space needs an sdk")
        name = key(kind, plain)
        answer = {"url": f"{self.url}/{name}", "name": plain, "id": plain}
        with self._lock:
            if name in self.repos:
                raise Refusal(409, "", f"You already created this {kind} repo", **answer)
            self.repos[name] = Repo(private=body.get("visibility") == "private" or body.get("private") is True)
            rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
            self.repos[name].add("main", "initial commit", {".gitattributes": self.store(rules.encode())})
        return answer

    def validate_yaml(self, body: dict) -> dict:
        """POST /api/validate-yaml: whether a card's front matter is YAML, and a Space's names what runs it."""
        front = re.match(r"---\n(.*?)\n---\n", body["content"], re.DOTALL)
        try:
            entries = yaml.safe_load(front[1] if front else "") or {}
        except yaml.YAMLError as error:
            raise Refusal(400, "", "bad card", errors=[{"message": str(error)}], warnings=[]) from error
        if body.get("repoType") == "space" and entries.get("sdk") not in ("gradio", "docker", "static"):
            raise Refusal(400, "", "bad card", errors=[{"message": '"sdk" must be one of them'}], warnings=[])
        return {"errors": [], "warnings": []}

    def preupload(self, repo: Repo, revision: str, body: dict) -> dict:
        """POST /api/KIND/ID/preupload/REV: which files go to LFS, and what the repository has under their names."""
        present = repo.at(revision).files
        answers = []
        for file in body["files"]:
            large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10_000_000
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if there := present.get(file["path"]):
                answer["oid"] = there.sha256 or there.oid
            answers.append(answer)
        return {"files": answers, "commitOid": repo.at(revision).oid}

    def lfs_batch(self, body: dict) -> dict:
        """POST /ID.git/info/lfs/objects/batch: no actions for content that is there already."""
        answers = []
        for item in body["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.blobs:
                upload = {"href": f"{self.url}/lfs/{item['oid']}", "header": {}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.url}/lfs-verify", "header": {}}}
            answers.append(answer)
        return {"transfer": "basic", "objects": answers}

    def lfs_put(self, oid: str, content: bytes) -> dict:
        """PUT /lfs/OID: only content of that SHA-256 is kept."""
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "", "The content does not match its SHA-256")
        self.blobs[oid] = content
        return {}

    def lfs_verify(self, body: dict) -> dict:
        """POST /lfs-verify: whether the content arrived whole."""
        if len(self.blobs.get(body["oid"], b"")) != body["size"]:
            raise Refusal(404, "", "Object does not exist on the server")
        return {}

    def commit(self, name: str, repo: Repo, revision: str, lines: bytes, pull_request: bool) -> dict:
        """POST /api/KIND/ID/commit/REV: all operations or none."""
        with self._lock:
            files, message = dict(repo.at(revision).files), ""
            for line in lines.splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if "path" in value:
                    self.log.append(f"{operation['key']} {value['path']}")
                match operation["key"]:
                    case "header":
                        message = value["summary"]
                    case "file":
                        files[value["path"]] = self.store(base64.b64decode(value["content"]))
                    case "lfsFile":
                        files[value["path"]] = self.large(value["oid"], value["size"])
                    case "deletedFile":
                        del files[value["path"]]
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
            commit = repo.add(f"refs/pr/{number}" if pull_request else revision, message, files)
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{self.url}/{name}/commit/{commit.oid}"}
        return {**answer, "pullRequestUrl": f"{self.url}/{name}/discussions/{number}"} if pull_request else answer

    def info(self, name: str, repo: Repo, revision: str, sizes: bool = False) -> dict:
        """GET /api/KIND/ID/revision/REV, with ?blobs=true for the files' sizes."""
        commit = repo.at(revision)
        siblings = [{"rfilename": path} | ({"size": file.size} if sizes else {}) for path, file in commit.files.items()]
        plain = name.removeprefix("spaces/")
        return {"id": plain, "modelId": plain, "sha": commit.oid, "private": repo.private, "siblings": siblings}

    def tree(self, repo: Repo, revision: str) -> list[dict]:
        """GET /api/KIND/ID/tree/REV?recursive=true."""
        entries = []
        for path, file in repo.at(revision).files.items():
            entry = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
            if file.sha256:
                entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
            entries.append(entry | ({"xetHash": file.xet} if file.xet else {}))
        return entries

    def new_ref(self, repo: Repo, name: str, revision: str) -> dict:
        """POST /api/KIND/ID/branch/NAME or …/tag/REV."""
        if name in repo.refs:
            raise Refusal(409, "", f"Reference already exists: {name}")
        repo.refs[name] = repo.at(revision).oid
        return {}

    def variables(self, repo: Repo, method: str, body: dict | None) -> dict:
        """GET, POST or DELETE /api/spaces/ID/variables; each answers all that there are."""
        if method == "POST":
            repo.variables[body["key"]] = {"value": body["value"], "description": body.get("description")}
        elif method == "DELETE":
            del repo.variables[body["key"]]
        return repo.variables

    # ---- content

    def store(self, content: bytes) -> File:
        """Keep a small file under git's blob hash."""
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.blobs[oid] = content
        return File(len(content), oid)

    def large(self, sha256: str, size: int) -> File:
        """The entry of a large file whose content must have arrived before, through LFS or Xet."""
        xet = None if sha256 in self.blobs else self._xet_files().get(sha256)
        if sha256 not in self.blobs and xet is None:
            raise Refusal(400, "", f"LFS object {sha256} was not uploaded")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return File(size, hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), sha256, xet)

    def _xet_files(self) -> dict[str, str]:
        """SHA-256 to Xet hash of what lies in the content store, read from its shards.

        A shard is rows of 48 bytes: a header; then for each file one row (hash, flags, number of entries), its
        entries, as many rows of verification if flag 31 is set, and a row with the SHA-256 if flag 30 is; all ones
        end the list. (Format: xet-core, mdb_shard/src/file_structs.rs.)
        """
        found = {}
        for shard in sorted(self.xet.rglob("shards/*.mdb")) if self.xet else []:
            content, row = shard.read_bytes(), 48
            while content[row : row + 32] != b"\xff" * 32:
                flags, entries = struct.unpack_from("<II", content, row + 32)
                last = row + 48 * (1 + entries * (2 if flags >> 31 else 1))
                if flags >> 30 & 1:
                    found[_words(content[last : last + 32])] = _words(content[row : row + 32])
                    last += 48
                row = last
        return found


def key(kind: str, name: str) -> str:
    """The name of a repository in `hub.repos`, and its path on the Hub."""
    return f"spaces/{name}" if kind == "space" else name


def _words(digest: bytes) -> str:
    """Hexadecimal digits of a hash that is stored as four little-endian 64-bit words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))


class Handler(BaseHTTPRequestHandler):
    """Turns requests into calls of the HubServer above."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_) -> None:
        """Nothing is printed; `hub.log` has it."""

    def _serve(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.log.append(f"{self.command} {path}")
        fault = hub.fault(self.command, path)
        try:
            body = self._body(half=fault in ("cut", "hang") and self.command in ("PUT", "POST"))
            if body is None:
                return self._break(fault)
            if isinstance(fault, int):
                raise Refusal(fault, "", "This was asked to fail")
            self._route(path, body, fault)
        except Refusal as refusal:
            self._answer(refusal.body, refusal.status, {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)})
        except ConnectionError:
            self.close_connection = True  # the other side has gone

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _route(self, path: str, body: bytes, fault: str | None) -> None:
        hub, command = self.hub, self.command
        query = parse_qs(urlsplit(self.path).query)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        role = ROLES.get(token)
        if token and not role:
            raise Refusal(401, "", "Invalid credentials in Authorization header")

        def asked(method: str, pattern: str) -> tuple[str, ...] | None:
            found = re.fullmatch(pattern.replace("NAME", NAME), path) if command == method else None
            return found.groups() if found else None

        def data() -> dict:
            return json.loads(body)

        if asked("GET", "/api/whoami-v2") is not None:
            return self._answer(hub.whoami(role))
        if asked("POST", "/api/repos/create") is not None:
            return self._answer(hub.create(role, data()))
        if asked("POST", "/api/validate-yaml") is not None:
            return self._answer(hub.validate_yaml(data()))
        if found := asked("PUT", "/lfs/(.+)"):
            return self._answer(hub.lfs_put(found[0], body))
        if asked("POST", "/lfs-verify") is not None:
            return self._answer(hub.lfs_verify(data()))
        if found := asked("POST", f"/{PLACE}.git/info/lfs/objects/batch"):
            hub.repo(found[0], role, write=True)
            return self._answer(hub.lfs_batch(data()))
        if found := asked("POST", f"{API}/preupload/(.+)"):
            return self._answer(hub.preupload(hub.repo(key(*found[:2]), role, write=True), found[2], data()))
        if found := asked("POST", f"{API}/commit/(.+)"):
            name = key(*found[:2])
            repo = hub.repo(name, role, write=True)
            return self._answer(hub.commit(name, repo, found[2], body, "create_pr" in query))
        if found := asked("POST", f"{API}/branch/(.+)"):
            repo = hub.repo(key(*found[:2]), role, write=True)
            return self._answer(hub.new_ref(repo, found[2], data().get("startingPoint", "main")))
        if found := asked("POST", f"{API}/tag/(.+)"):
            return self._answer(hub.new_ref(hub.repo(key(*found[:2]), role, write=True), data()["tag"], found[2]))
        if found := asked(command, "/api/spaces/NAME/variables"):
            repo = hub.repo(key("space", found[0]), role, write=True)
            return self._answer(hub.variables(repo, command, data() if body else None))
        if found := asked("GET", f"{API}/xet-(read|write)-token/(.+)"):
            hub.repo(key(*found[:2]), role, write=found[2] == "write")
            return self._xet_token()
        if found := asked("GET", f"{API}/tree/(.+)"):
            return self._answer(hub.tree(hub.repo(key(*found[:2]), role), found[2]))
        if found := asked("GET", f"{API}(?:/revision/(.+))?"):
            name = key(*found[:2])
            return self._answer(hub.info(name, hub.repo(name, role), found[2] or "main", "blobs" in query))
        if found := asked(command, f"/{PLACE}/resolve/([^/]+)/(.+)") if command in ("GET", "HEAD") else None:
            return self._resolve(found[0], hub.repo(found[0], role), *found[1:], fault)
        raise Refusal(404, "", f"Nothing here answers {command} {path}")

    def _resolve(self, name: str, repo: Repo, revision: str, path: str, fault: str | None) -> None:
        """HEAD and GET of a file, from `Range: bytes=N-` on where the client resumes."""
        commit = repo.at(revision)
        if path not in commit.files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        file = commit.files[path]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.sha256 or file.oid}"', "Accept-Ranges": "bytes"}
        content = self.hub.blobs.get(file.sha256 or file.oid)
        if file.xet:  # how a client is told to ask the content store
            place = name if name.startswith("spaces/") else f"models/{name}"
            route = f"{self.hub.url}/api/{place}/xet-read-token/{commit.oid}"
            headers |= {"X-Xet-Hash": file.xet, "X-Xet-Refresh-Route": route}
        if content is None and self.command == "GET":
            raise Refusal(501, "", "This file came through Xet; ask for it there")
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        if start:
            headers["Content-Range"] = f"bytes {first}-{file.size - 1}/{file.size}"
        if fault == "spoil":
            content = bytes(byte ^ 1 for byte in content)
        self._headers(206 if start else 200, file.size - first, "application/octet-stream", headers)
        if self.command == "HEAD":
            return
        if fault in ("cut", "hang"):
            self.wfile.write(content[first : first + (file.size - first) // 2])
            return self._break(fault)
        self.wfile.write(content[first:])

    def _xet_token(self) -> None:
        """Where Xet's content store lies: in the headers for huggingface_hub, in the body for hf_xet."""
        if self.hub.xet is None:
            raise Refusal(403, "", "There is no Xet here")
        store, expiry = f"local://{self.hub.xet}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": store, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expiry)}
        self._answer({"casUrl": store, "accessToken": "xet", "exp": expiry}, 200, headers)

    # ---- bytes in and out

    def _body(self, *, half: bool) -> bytes | None:
        """The request's body; None where only half of it was taken."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
                if half:
                    return None
            self.rfile.readline()
            return b"".join(chunks)
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size // 2 if half else size)
        if not half and len(content) < size:
            raise ConnectionError("The body ended early")
        return None if half else content

    def _break(self, fault: str | None) -> None:
        """Close the connection in the middle, or keep it open and say nothing more until the server ends."""
        self.wfile.flush()
        self.hub.half_way.set()
        self.close_connection = True
        if fault == "hang":
            time.sleep(60)

    def _answer(self, body: dict | list, status: int = 200, headers: dict | None = None) -> None:
        content = json.dumps(body).encode()
        self._headers(status, len(content), "application/json", headers or {})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _headers(self, status: int, size: int, kind: str, headers: dict) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": size, **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
