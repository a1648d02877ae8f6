"""Makes a release in `dist/`: the book, the wheel that carries it, the sdist, what an image is built from, and an SBOM.

    python -Im documentation.release       what `make release` runs

It needs no network: everything is built with the tools and packages of this environment. Nothing is uploaded.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from documentation import book

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "dist"


def main() -> None:
    """Make everything anew, and name each file with its size."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = f"coordinator_node-{project['version']}"
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    book.build()
    _run("build", "--no-isolation", "--outdir", str(OUT), str(ROOT))
    _archive(ROOT / "api" / "book", OUT / f"{name}-book.tar.gz")
    _run("coordinator.cli.main", "deploy-files", str(OUT / "image"))
    _archive(OUT / "image", OUT / f"{name}-image-files.tar.gz")
    shutil.rmtree(OUT / "image")
    locked = (ROOT / "requirements.lock").read_text().split()
    jars = (ROOT / "infra" / "kafka" / "kafka_jars.lock").read_text().splitlines()
    (OUT / f"{name}.cdx.json").write_text(json.dumps(bill_of(project, locked, jars), indent=1) + "\n")
    files = sorted(path for path in OUT.iterdir() if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (OUT / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    for path in files:
        sys.stdout.write(f"{path.stat().st_size:>12,}  dist/{path.name}\n")


def _archive(folder: Path, target: Path) -> None:
    """A tar of what is in the folder, with the same bytes whenever and by whomever it is made."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with (
        target.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        archive.add(folder, arcname="", filter=plain)  # in order of the names


def bill_of(project: dict[str, Any], locked: list[str], jars: list[str]) -> dict[str, Any]:
    """The components as CycloneDX 1.5 has them: each package of the lock with its version, and its licence where its
    metadata name one; then each of Kafka's jars, `group:name:version sha256`, which a node fetches at its first start.
    """
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component(project["name"], project["version"], "application")},
        "components": [
            *(
                _component(name, version, "library")
                for name, version in (line.split("==") for line in locked)
            ),
            *(_jar(line) for line in jars),
        ],
    }


def _jar(line: str) -> dict[str, Any]:
    place, sha256 = line.split()
    group, name, version = place.split(":")
    return {
        "type": "library",
        "group": group,
        "name": name,
        "version": version,
        "purl": f"pkg:maven/{group}/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": sha256}],
    }


def _component(name: str, version: str, kind: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": kind,
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    try:
        package: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return component
    if expression := package.get("License-Expression"):
        return component | {"licenses": [{"expression": expression}]}
    names = [
        classifier.rpartition(" :: ")[2]
        for classifier in package.get_all("Classifier") or []
        if classifier.startswith("License ::")
    ]
    if not names and (text := package.get("License", "")) and "\n" not in text:
        names = [text]  # the older field; some put the whole text of the licence there
    return component | (
        {"licenses": [{"license": {"name": license_name}} for license_name in names]} if names else {}
    )


def _run(module: str, *arguments: str) -> None:
    environ = os.environ | {"FEED_SOURCE": "generated"}  # named, so that nobody is asked whether it answers
    done = subprocess.run(
        [sys.executable, "-Im", module, *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"release: {module} {' '.join(arguments)} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


if __name__ == "__main__":
    main()
