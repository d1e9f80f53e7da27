"""A Hugging Face Hub on the loopback device, and what the tests find there.

    with HubServer(folder, "http://127.0.0.1:1234") as hub:  # HF_ENDPOINT
        hub.requests     # ("GET", "/api/datasets/user/name/revision/main", None), ...: the range

Repositories are folders: `folder/datasets/user/name/...` and `folder/models/user/name/...`. One
with `private` in its name is given to those only who have the token `hf_test`. What is pushed is
written there. `hub.cut` tells how many times the file of a name is to break off in its middle, and
how many times a `commit` is. Files that end in `hub.large` are pushed as objects of git-lfs.
"""

import base64
import hashlib
import io
import json
import re
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import datasets
from PIL import Image

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.server.hub
        hub.requests.append(("PUT", self.path, None))
        hub.objects[hashlib.sha256(content).hexdigest()] = content
        self.reply(200)

    def reply(self, status, content=b"", kind="application/json", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")  # else it would be answered after the test
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def fail(self, status, code, message):
        self.reply(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def answer(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if path == "/api/whoami-v2":
            return self.reply(200, {"name": "user", "type": "user", "orgs": []})
        if path == "/api/repos/create":
            body = json.loads(self.body)
            kind = f"{body.get('type', 'model')}s"
            name = body["name"] if "/" in body["name"] else f"user/{body['name']}"
            (hub.folder / kind / name).mkdir(parents=True, exist_ok=True)
            prefix = "datasets/" if kind == "datasets" else ""
            return self.reply(200, {"url": f"{hub.url}/{prefix}{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(self.body)["objects"]
            for item in objects:
                if item["oid"] not in hub.objects:  # else there is nothing to do
                    item["actions"] = {"upload": {"href": f"{hub.url}/objects/{item['oid']}"}}
            return self.reply(200, {"transfer": "basic", "objects": objects})
        api = re.fullmatch(
            r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit)/([^/]+)/?(.*))?",
            path,
        )
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not api and not file:
            return self.fail(404, "RepoNotFound", "Repository not found")
        kind, name = (api or file).group(1, 2)
        repository = hub.folder / (kind or "models").strip("/") / name
        allowed = self.headers.get("Authorization") == "Bearer hf_test"
        if not repository.is_dir() or ("private" in name and not allowed):
            return self.fail(401, "RepoNotFound", "Repository not found")
        revision = (api or file).group(4 if api else 3)
        if revision not in (None, "main", COMMIT):
            return self.fail(404, "RevisionNotFound", "Revision not found")
        if file:
            return self.send_file(repository / file[4])
        verb, rest = api.group(3, 5)
        if verb == "tree":
            return self.send_tree(repository, rest)
        if verb == "preupload":
            modes = []
            for file in json.loads(self.body)["files"]:
                large = bool(hub.large) and file["path"].endswith(hub.large)
                modes.append({"path": file["path"], "uploadMode": "lfs" if large else "regular"})
                modes[-1] |= {"shouldIgnore": False, "oid": oid(repository / file["path"], large)}
            return self.reply(200, {"files": modes})
        if verb == "commit":
            if hub.cut.get("commit", 0):
                hub.cut["commit"] -= 1
                return self.fail(403, "Forbidden", "The Hub is asleep")
            return self.commit(repository, name)
        siblings = [{"rfilename": str(path)} for path in files_of(repository)]
        return self.reply(
            200,
            {
                **{"id": name, "sha": COMMIT, "private": "private" in name, "siblings": siblings},
                **{"tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False},
            },
        )

    def send_tree(self, repository, rest):
        folder = repository / rest
        if not folder.is_dir():
            return self.fail(404, "EntryNotFound", "Entry not found")
        entries = []
        for path in sorted(folder.rglob("*") if "recursive=" in self.path else folder.iterdir()):
            entry = {"path": str(path.relative_to(repository)), "oid": COMMIT, "size": 0}
            entry["type"] = "directory" if path.is_dir() else "file"
            if path.is_file():
                entry["size"] = path.stat().st_size
            entries.append(entry)
        return self.reply(200, entries)

    def send_file(self, path):
        if not path.is_file():
            return self.fail(404, "EntryNotFound", "Entry not found")
        content = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:40]}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        status, asked = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        whole = len(content)
        if asked:
            start, end = int(asked[1]), int(asked[2] or whole - 1)
            content, status = content[start : end + 1], 206
            headers["Content-Range"] = f"bytes {start}-{min(end, whole - 1)}/{whole}"
        if self.command == "GET" and self.server.hub.cut.get(path.name, 0):
            self.server.hub.cut[path.name] -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        return self.reply(status, content, "application/octet-stream", **headers)

    def commit(self, repository, name):
        for line in self.body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                path = repository / item["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(item["value"]["content"]))
            if item["key"] == "lfsFile":
                path = repository / item["value"]["path"]
                path.write_bytes(self.server.hub.objects[item["value"]["oid"]])
        hub = self.server.hub
        return self.reply(
            200, {"commitUrl": f"{hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        )


def oid(path, large):
    """Name by which git, or git-lfs, knows a file; None if there is none."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def files_of(repository):
    return sorted(path.relative_to(repository) for path in repository.rglob("*") if path.is_file())


class HubServer:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.requests, self.cut = folder, url, [], {}
        self.large, self.objects = "", {}
        self.server = ThreadingHTTPServer(("127.0.0.1", urlsplit(url).port), Handler)
        self.server.hub = self

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def downloads(self, name: str) -> int:
        """How many times all of a file was asked for. (`datasets` looks at the list of a zip.)"""
        return sum(
            (kind, part) == ("GET", None) and path.endswith(name)
            for kind, path, part in self.requests
        )


def write_zip(path: Path, files: list[Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.write(file, f"{path.stem}/{file.name}")


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def embedded(files: list[Path]) -> list[dict]:
    """Cells of a column of pictures, which hold their bytes, as parquet on the Hub does."""
    return [{"bytes": file.read_bytes(), "path": file.name} for file in files]


def make_repositories(root: Path, files: list[Path]) -> None:
    """Puts eight pictures into a folder, in all the layouts that data sets have on the Hub."""
    sets, small = root / "datasets", []
    for number, file in enumerate(files):
        small.append(root / f"lr-{number}" / file.name)
        small[-1].parent.mkdir()
        Image.open(file).resize((48, 40)).save(small[-1])
    # As yangtao9009/DIV2K: the default.
    write_zip(sets / "yangtao9009" / "DIV2K" / "DIV2K_train_HR.zip", files)
    # As goodfellowliu/DIV2K.
    for name, pictures in (
        *(("train_HR", files), ("train_LR_bicubic_X2", small)),
        *(("valid_HR", files[:2]), ("valid_LR_bicubic_X2", small[:2])),
    ):
        write_zip(sets / "user" / "mixed" / f"DIV2K_{name}.zip", pictures)
    for split, pictures in (("train", files[:6]), ("validation", files[6:])):
        (sets / "user" / "folder" / split).mkdir(parents=True)
        for picture in pictures:
            shutil.copy(picture, sets / "user" / "folder" / split)
    table = datasets.Dataset.from_dict(
        {"hr": embedded(files), "lr": embedded(small), "label": [0] * len(files)}
    )
    for column in ("hr", "lr"):
        table = table.cast_column(column, datasets.Image())
    (sets / "user" / "private-pairs").mkdir()
    table.to_parquet(sets / "user" / "private-pairs" / "train.parquet")
    (sets / "user" / "script").mkdir()
    (sets / "user" / "script" / "script.py").write_text("raise SystemExit('run')")
    for name, number in (("Set5", 5), ("Set14", 14)):
        content = {f"{name}_HR/{n}.png": files[n % 8].read_bytes() for n in range(number)}
        write_tar(sets / "eugenesiow" / name / "data" / f"{name}_HR.tar.gz", content)
    few = {"BSD100_HR/1.png": files[0].read_bytes()}
    write_tar(sets / "eugenesiow" / "BSD100" / "data" / "BSD100_HR.tar.gz", few)
    evil = {"../../evil.png": files[0].read_bytes()}
    write_tar(sets / "eugenesiow" / "Urban100" / "data" / "Urban100_HR.tar.gz", evil)
    (root / "models").mkdir()
