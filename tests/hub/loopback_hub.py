"""A Hub for tests: what huggingface_hub uses of the Hub's HTTP interface, on loopback, with faults on demand.

Repositories have commits, branches and tags; contents lie in a temporary folder under their SHA-256. As on the real
Hub a commit is one step, large files are sent before it and checked against their hash, and a private repository looks
to others as if it were not there.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

LARGE_FILES = (".safetensors", ".bin", ".pt", ".pth", ".parquet")
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)


@dataclass
class Fault:
    """Something that goes wrong with requests.

    Args:
        request: Regular expression for "METHOD /path".
        kind: "cut" (the connection ends in the middle of the content that is sent), "corrupt" (a byte of the content
            arrives changed), "truncate" (only half of the content is sent), or a status such as "503".
        times: How many requests it hits.
    """

    request: str
    kind: str
    times: int = 1


@dataclass
class File:
    """A file of a commit: the SHA-256 of its content, its size, and whether it is a large file."""

    sha256: str
    git_sha: str
    size: int
    large: bool


@dataclass
class Repository:
    """A repository: its commits (paths and files each), and the commit of each branch and tag."""

    kind: str
    name: str
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        """Add a commit to a branch; returns its id."""
        oid = hashlib.sha1(f"{self.name} {len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid], self.messages[oid] = files, message
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or commit id."""
        for known in (self.branches, self.tags):
            if revision in known:
                return known[revision]
        if revision in self.commits:
            return revision
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class Refusal(Exception):
    """An error status that the Hub answers with."""

    def __init__(self, status: int, code: str, message: str, **details: str):
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details


class LoopbackHub:
    """The server; use it as a context manager.

    Args:
        folder: Where contents are stored.
        tokens: User of each token.
    """

    def __init__(self, folder: Path, tokens: dict[str, str]):
        self.folder, self.tokens = folder, tokens
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # ---- for the tests ----

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Contents of a repository by path."""
        repository = self.repositories[kind, name]
        files = repository.commits[repository.resolve(revision)]
        return {path: self.content(file.sha256) for path, file in sorted(files.items())}

    def messages(self, name: str, kind: str = "model") -> list[str]:
        """The messages of all commits, oldest first."""
        return list(self.repositories[kind, name].messages.values())

    def publish(self, name: str, files: dict[str, bytes]) -> None:
        """Make a public model repository of these files, by no client."""
        repository = self._repository("model", name) or self._create("model", name, private=False)
        stored = {path: self.store(content, path.endswith(LARGE_FILES)) for path, content in files.items()}
        repository.commit("main", stored, "Published")

    # ---- storage ----

    def content(self, sha256: str) -> bytes:
        """A stored content."""
        return (self.folder / sha256).read_bytes()

    def store(self, content: bytes, large: bool) -> File:
        """Keep a content."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        git_sha = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return File(sha256, git_sha, len(content), large)

    def _repository(self, kind: str, name: str) -> Repository | None:
        return self.repositories.get((kind, name))

    def _create(self, kind: str, name: str, private: bool) -> Repository:
        repository = Repository(kind, name, private)
        attributes = self.store(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", large=False)
        repository.commit("main", {".gitattributes": attributes}, "initial commit")
        self.repositories[kind, name] = repository
        return repository

    # ---- what requests do; each returns the JSON of the answer ----

    def create(self, user: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST /api/repos/create."""
        kind, name = body.get("type") or "model", f"{body.get('organization') or user}/{body['name']}"
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if name.split("/")[0] != user:
            raise Refusal(403, "", f"You don't have the rights to create a repo under {name.split('/')[0]}")
        if self._repository(kind, name):
            raise Refusal(409, "", "You already created this repo", url=url)
        self._create(kind, name, body.get("visibility") == "private" or bool(body.get("private")))
        return {"url": url, "name": name}

    def find(self, kind: str, name: str, user: str | None, write: bool = False) -> Repository:
        """A repository, if this user may read (or write) it."""
        repository = self._repository(kind, name)
        owner = name.split("/")[0]
        if repository is None or (repository.private and user != owner):
            raise Refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user != owner:
            raise Refusal(403 if user else 401, "", f"{user or 'no user'} may not write to {name}")
        return repository

    def info(self, repository: Repository, revision: str) -> dict[str, Any]:
        """GET /api/models/NAME[/revision/REVISION]."""
        oid = repository.resolve(revision)
        card = (
            metadata_of(self.content(readme.sha256).decode())
            if (readme := repository.commits[oid].get("README.md"))
            else {}
        )
        return {
            "id": repository.name,
            "modelId": repository.name,
            "sha": oid,
            "private": repository.private,
            "tags": card.get("tags") or [],
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
            "siblings": [{"rfilename": path} for path in sorted(repository.commits[oid])],
        }

    def tree(self, repository: Repository, revision: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """GET /api/models/NAME/tree/REVISION/FOLDER."""
        files = repository.commits[repository.resolve(revision)]
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        entries = [entry(path, file) for path, file in inside.items() if recursive or "/" not in path[len(prefix) :]]
        folders = {prefix + path[len(prefix) :].split("/")[0] for path in inside if "/" in path[len(prefix) :]}
        return entries + [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]

    def paths_info(self, repository: Repository, revision: str, paths: list[str]) -> list[dict[str, Any]]:
        """POST /api/models/NAME/paths-info/REVISION."""
        files = repository.commits[repository.resolve(revision)]
        found = [entry(path, files[path]) for path in paths if path in files]
        folders = [path for path in paths if any(name.startswith(f"{path}/") for name in files)]
        return found + [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]

    def preupload(self, repository: Repository, revision: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST /api/models/NAME/preupload/REVISION: which files are large, and what is there already."""
        files = repository.commits[repository.resolve(revision)]
        answers = []
        for wanted in body["files"]:
            there = files.get(wanted["path"])
            oid = None if there is None else (there.sha256 if there.large else there.git_sha)
            mode = "lfs" if wanted["path"].endswith(LARGE_FILES) else "regular"
            answers.append({"path": wanted["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def batch(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /NAME.git/info/lfs/objects/batch: where to send large files that are not there yet."""
        objects = []
        for wanted in body["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if not (self.folder / wanted["oid"]).exists():
                href = f"{self.url}/lfs/{wanted['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def receive(self, oid: str, content: bytes) -> None:
        """PUT of a large file."""
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(422, "", f"the content does not have the SHA-256 {oid}: it was damaged on its way")
        self.store(content, large=True)

    def verify(self, oid: str) -> dict[str, Any]:
        """POST after the PUT."""
        if not (self.folder / oid).exists():
            raise Refusal(404, "", f"there is no content with the SHA-256 {oid}")
        return {}

    def commit(self, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        """POST /api/models/NAME/commit/BRANCH: all operations or, if one fails, none."""
        files = dict(repository.commits[repository.resolve(branch)])
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = self.store(base64.b64decode(value["content"]), large=False)
            elif line["key"] == "lfsFile":
                self.verify(value["oid"])
                files[value["path"]] = self.store(self.content(value["oid"]), large=True)
            elif line["key"] in ("deletedFile", "deletedFolder"):
                gone = value["path"].rstrip("/")
                files = {
                    path: file for path, file in files.items() if path != gone and not path.startswith(f"{gone}/")
                }
            else:
                raise Refusal(400, "", f"unknown operation {line['key']}")
        oid = repository.commit(branch, files, message)
        return {"commitUrl": f"{self.url}/{repository.name}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None}

    def branch(self, repository: Repository, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST /api/models/NAME/branch/BRANCH."""
        if name in repository.branches:
            raise Refusal(409, "", f"Reference {name} already exists")
        repository.branches[name] = repository.resolve(body.get("startingPoint") or "main")
        return {}

    def tag(self, repository: Repository, revision: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST /api/models/NAME/tag/REVISION."""
        repository.tags[body["tag"]] = repository.resolve(revision)
        return {}

    def refs(self, repository: Repository) -> dict[str, Any]:
        """GET /api/models/NAME/refs."""
        named = {"branches": ("refs/heads", repository.branches), "tags": ("refs/tags", repository.tags)}
        return {
            kind: [{"name": name, "ref": f"{prefix}/{name}", "targetCommit": oid} for name, oid in known.items()]
            for kind, (prefix, known) in named.items()
        } | {"converts": []}


def entry(path: str, file: File) -> dict[str, Any]:
    """A file in the listing of a folder."""
    listed = {"type": "file", "path": path, "size": file.size, "oid": file.git_sha}
    return listed | ({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.large else {})


def metadata_of(card: str) -> dict[str, Any]:
    """The YAML at the top of a card."""
    match = FRONT_MATTER.match(card)
    return (yaml.safe_load(match.group(1)) or {}) if match else {}


def card_problems(card: str) -> list[str]:
    """What the Hub would refuse in the metadata of a card."""
    try:
        metadata = metadata_of(card)
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["the metadata must be a mapping"]
    problems = []
    for name in ("license", "pipeline_tag", "library_name", "license_name", "license_link", "pretty_name"):
        if name in metadata and not isinstance(metadata[name], str):
            problems.append(f'"{name}" must be a string')
    for name in ("tags", "datasets", "metrics", "language", "task_categories", "task_ids", "size_categories"):
        if name in metadata and not all(isinstance(item, str) for item in aslist(metadata[name])):
            problems.append(f'"{name}" must be a string or a list of strings')
    for code in aslist(metadata.get("language")):
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", str(code)):
            problems.append(f'"language" has {code!r}, which is no ISO 639 code')
    if metadata.get("license") == "other" and not {"license_name", "license_link"} <= set(metadata):
        problems.append('"license: other" needs "license_name" and "license_link"')
    if "model-index" in metadata:
        problems += index_problems(metadata["model-index"])
    return problems


def index_problems(model_index: Any) -> list[str]:
    """What the Hub would refuse in a model-index."""
    try:
        _, results = model_index_to_eval_results(model_index)
    except (KeyError, TypeError, ValueError) as error:
        return [f'"model-index" cannot be read: {type(error).__name__} {error}']
    return [
        f'"model-index" gives {result.metric_type} the value {result.metric_value!r}'
        for result in results
        if not isinstance(result.metric_value, int | float | str)
    ]


def aslist(value: Any) -> list[Any]:
    """A value as a list; nothing as an empty one."""
    return value if isinstance(value, list) else [] if value is None else [value]


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, applies a fault, and lets the hub answer."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.handle_request()

    def do_GET(self) -> None:
        self.handle_request()

    def do_POST(self) -> None:
        self.handle_request()

    def do_PUT(self) -> None:
        self.handle_request()

    def handle_request(self) -> None:
        """Answer one request."""
        request = f"{self.command} {unquote(self.path)}"
        fault = self.next_fault(request)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "cut" and length:
            self.rfile.read(length // 2)
            self.cut()
            return
        body = self.rfile.read(length)
        if fault == "corrupt" and length:
            body = body[:-1] + bytes([body[-1] ^ 1])
        try:
            if fault and fault.isdigit():
                raise Refusal(int(fault), "", "a fault of the server")
            with self.hub.lock:
                self.answer(body, fault if not length else None)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            content = json.dumps({"error": refusal.message, **refusal.details}).encode()
            self.reply(refusal.status, content, {"X-Error-Message": refusal.message, **headers})

    def next_fault(self, request: str) -> str | None:
        """Note the request, and take the first fault that concerns it."""
        with self.hub.lock:
            self.hub.requests.append(request)
            for fault in self.hub.faults:
                if fault.times and re.search(fault.request, request):
                    fault.times -= 1
                    return fault.kind
        return None

    def cut(self) -> None:
        """Drop the connection."""
        self.close_connection = True
        self.connection.close()

    def reply(self, status: int, content: bytes, headers: dict[str, str], fault: str | None = None) -> None:
        """Send an answer."""
        self.send_response(status)
        sent = content[:-1] + bytes([content[-1] ^ 1]) if fault == "corrupt" else content
        sent = content[: len(content) // 2] if fault in ("cut", "truncate") else sent
        for name, value in headers.items():
            self.send_header(name, value)
        # A cut connection promises the whole and breaks; a truncated file is all that the server thinks there is.
        self.send_header("Content-Length", str(len(content) if fault == "cut" else len(sent)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
            if fault == "cut":
                self.cut()

    def user(self) -> str | None:
        """Whose token came with the request."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def answer(self, body: bytes, fault: str | None) -> None:
        """Find the route, and send what the hub says."""
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        match = re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/(.+)", path)
        if match and self.command in ("GET", "HEAD"):
            self.send_file(*match.groups(), fault)
            return
        for command, pattern, respond in self.routes(body, query):
            match = re.fullmatch(pattern, path)
            if match and command == self.command:
                status, result = 200, respond(*match.groups())
                if "/api/validate-yaml" in path and result["errors"]:
                    status = 400
                self.reply(status, json.dumps(result).encode(), {"Content-Type": "application/json"})
                return
        raise Refusal(404, "", f"the loopback hub has no {self.command} {path}")

    def routes(self, body: bytes, query: dict[str, list[str]]) -> list[tuple[str, str, Callable[..., Any]]]:
        """Method, path and answer of everything but files."""
        hub = self.hub

        def read(kind: str, name: str) -> Repository:
            return hub.find(kind, name, self.user())

        def write(kind: str, name: str) -> Repository:
            return hub.find(kind, name, self.user(), write=True)

        def parsed() -> Any:
            if (self.headers.get("Content-Type") or "").startswith("application/x-www-form-urlencoded"):
                return parse_qs(body.decode())
            return json.loads(body)

        api = "/api/(model|dataset)s/([^/]+/[^/]+)"
        return [
            ("GET", "/api/whoami-v2", lambda: {"name": self.signed_in(), "type": "user", "orgs": []}),
            ("POST", "/api/repos/create", lambda: hub.create(self.signed_in(), parsed())),
            ("POST", "/api/validate-yaml", lambda: self.validate(parsed()["content"])),
            ("POST", f"{api}/preupload/(.+)", lambda kind, name, rev: hub.preupload(write(kind, name), rev, parsed())),
            (
                "POST",
                f"{api}/commit/(.+)",
                lambda kind, name, rev: hub.commit(write(kind, name), rev, [json.loads(x) for x in body.splitlines()]),
            ),
            ("POST", f"{api}/branch/(.+)", lambda kind, name, rev: hub.branch(write(kind, name), rev, parsed())),
            ("POST", f"{api}/tag/(.+)", lambda kind, name, rev: hub.tag(write(kind, name), rev, parsed())),
            (
                "POST",
                f"{api}/paths-info/(.+)",
                lambda kind, name, rev: hub.paths_info(read(kind, name), rev, parsed()["paths"]),
            ),
            ("GET", f"{api}/refs", lambda kind, name: hub.refs(read(kind, name))),
            ("GET", f"{api}/revision/(.+)", lambda kind, name, rev: hub.info(read(kind, name), rev)),
            (
                "GET",
                f"{api}/tree/([^/]+)/?(.*)",
                lambda kind, name, rev, folder: hub.tree(read(kind, name), rev, folder, "true" in str(query).lower()),
            ),
            ("GET", api, lambda kind, name: hub.info(read(kind, name), "main")),
            (
                "POST",
                r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch",
                lambda kind, name: write("dataset" if kind else "model", name) and hub.batch(parsed()),
            ),
            ("PUT", "/lfs/([0-9a-f]{64})", lambda oid: hub.receive(oid, body)),
            ("POST", "/lfs/([0-9a-f]{64})/verify", hub.verify),
        ]

    def signed_in(self) -> str:
        """The user, or a refusal."""
        user = self.user()
        if user is None:
            raise Refusal(401, "", "Invalid username or password.")
        return user

    def validate(self, card: str) -> dict[str, Any]:
        """POST /api/validate-yaml."""
        return {"errors": [{"message": problem} for problem in card_problems(card)], "warnings": []}

    def send_file(self, kind: str | None, name: str, rest: str, fault: str | None) -> None:
        """HEAD and GET of a file."""
        repository = self.hub.find((kind or "models").removesuffix("s"), name, self.user())
        revision, _, path = rest.partition("/")
        oid = repository.resolve(revision)
        file = repository.commits[oid].get(path)
        if file is None:
            raise Refusal(404, "EntryNotFound", f"{path} does not exist on {revision}")
        etag = file.sha256 if file.large else file.git_sha
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if file.large:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        content, status = self.hub.content(file.sha256), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and content:
            first, last = int(asked[1]), min(int(asked[2] or file.size - 1), file.size - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
            content, status = content[first : last + 1], 206
        self.reply(status, content, headers, fault)
