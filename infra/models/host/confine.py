"""What keeps a model's process from the rest of the machine, by what the kernel offers to anybody (Linux).

Two steps, both for good and for every process that the model starts. `confine` comes before the first thread: no
privileges to win back, and files only below the folders named (Landlock). `seal` comes when the process listens: no
new socket, so no way to the node, to rivals or to the network; nobody else's process to signal, trace or limit; no
memory that outlives the process; no change of any file's mode, owner or times, which Landlock does not watch.
What the model answers travels on connections that are accepted, and `accept` stays.

Neither needs root, a helper program or a container; Docker's default profile lets both through. Where the kernel has
neither (macOS, Linux before 5.13) both return what they could do, and the host says so.

Only the standard library, and nothing of this package: a model's process must stay small.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

TOKEN = "MODEL_RUNNER_NODE_TOKEN"  # noqa: S105 - the variable's name
NOT_CONFINED = (
    "models run as this user, with its files and its network: this system cannot confine them (Linux from 5.13 can), "
    "so serve code that you trust"
)
HOST_ENVIRONMENT = (
    *(
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "USER",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "TMPDIR",
    ),
    *("PYTHONDONTWRITEBYTECODE", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"),
)
"""What a model host gets of the variables around it. The rest may be secrets, and it starts strangers' code."""

PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
CAPABILITIES = 64
CAPABILITY_VERSION = 0x20080522

# --- Landlock: https://docs.kernel.org/userspace-api/landlock.html ---------------------------------------------------
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
PATH_BENEATH = 1
FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights a version of the interface knows; 16 from 5 on
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15  # truncate, ioctl
MAKE_DEVICES_AND_SOCKETS = 1 << 6 | 1 << 9 | 1 << 11
READ = EXECUTE | READ_FILE | READ_DIR
CONNECT_TCP = 2
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 1 | 2
SCOPED_FROM = 6

READABLE = (
    *("/usr", "/lib", "/lib64", "/bin", "/proc", "/sys/devices/system", "/sys/fs/cgroup"),
    *(
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/timezone",
        "/etc/ssl",
        "/etc/mime.types",
        "/etc/nsswitch.conf",
    ),
    *("/etc/passwd", "/etc/group", "/etc/os-release", "/etc/alternatives", "/etc/fonts"),
)
"""The parts of a machine that programs read. Files of /etc with secrets are left out, since a host run as root could
read them.
"""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

# --- seccomp: include/uapi/linux/{seccomp,filter,audit}.h ------------------------------------------------------------
SET_MODE_FILTER, ALL_THREADS = 1, 1
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE, IGNORE, KILL = (
    0x7FFF0000,
    0x00050000 | 1,
    0x00050000,
    0x80000000,
)  # REFUSE: EPERM; IGNORE: errno 0
OTHER_ABI = 0x40000000
"""System calls of x86-64's second numbering begin here; a list of the first would not see them."""
MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""Column of the tables below, the kernel's number of the architecture, and that of `seccomp`."""
REFUSED = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),  # its requests pass no filter
    "setsid": (112, 157),  # whoever left the process group would outlive it
    "setpgid": (109, 154),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    # Memory that is no process's, so that nobody's limit counts it; System V's stays when the process has ended.
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}
IGNORED = {
    # They work on any file of the same user, even a hidden one: a model could lock the node out of its own log. They
    # seem to work, because `shutil.copy` and archives end where they are refused.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
"""Calls that succeed and do nothing; None: the machine does not have it."""
OF_ONE_PROCESS = {  # name: (numbers, value of the first argument that means a process, and not all of a user's)
    "setpriority": ((141, 140), 0),
    "ioprio_set": ((251, 30), 1),
}
ON_ITSELF_ALONE = {  # name: (numbers, which argument names the process; 0 is the caller)
    "prlimit64": ((302, 261), 0),
    "sched_setaffinity": ((203, 122), 0),
    "sched_setscheduler": ((144, 119), 0),
    "sched_setparam": ((142, 118), 0),
    "sched_setattr": ((314, 274), 0),
    "setpriority": ((141, 140), 1),
    "ioprio_set": ((251, 30), 1),
}
SIGNALS = {  # where Landlock does not keep signals in: a model then cannot end even its own children
    "kill": ((62, 129), 0),
    "tkill": ((200, 130), 0),
    "tgkill": ((234, 131), 0),
    "rt_sigqueueinfo": ((129, 138), 0),
    "rt_tgsigqueueinfo": ((297, 240), 0),
}


def confine(readable: Iterable[Path], listable: Iterable[Path], writable: Iterable[Path]) -> str:
    """Give up every privilege, and every file but those below the folders named and what each program needs.

    Call it before the first thread: the kernel confines the thread that asks, and those that it starts.
    Returns what confines now, `files`, or the empty string where this kernel does not have it.
    """
    if sys.platform != "linux":
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _drop_capabilities(libc)
    abi = libc.syscall(CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return ""
    every_right = (1 << FS_BITS.get(abi, 16)) - 1
    scopes = SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= SCOPED_FROM else 0
    wanted = struct.pack("=QQQ", every_right, CONNECT_TCP if abi > 3 else 0, scopes)  # noqa: PLR2004 - TCP is of 4
    ruleset = _checked(libc.syscall(CREATE_RULESET, wanted, len(wanted), 0))
    try:
        everything = every_right & ~MAKE_DEVICES_AND_SOCKETS
        for paths, rights in (
            ((*map(Path, READABLE), *readable), READ),
            (map(Path, DEVICES), READ_FILE | WRITE_FILE),
            (listable, READ_DIR),
            (writable, everything),
        ):
            for path in paths:
                _allow(libc, ruleset, path, rights & every_right)
        _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return "files"


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """A host that runs as root must not lend its models the clock, the modules or the raw devices."""
    for capability in range(CAPABILITIES):
        libc.prctl(
            PR_CAPBSET_DROP, capability, 0, 0, 0
        )  # refused to whoever has none: then there is nothing to drop
    nothing = struct.pack("=6I", *(0,) * 6)
    _checked(libc.capset(struct.pack("=Ii", CAPABILITY_VERSION, 0), nothing))


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it is not here, so there is nothing to read
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= OF_FILES
        _checked(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, opened), 0))
    finally:
        os.close(opened)


def seal() -> str:
    """No new socket and no hand on others' processes from here on, in every thread.

    Returns what is sealed now, `network`, or the empty string where this kernel or machine does not have it.
    """
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return ""
    column, architecture, seccomp = machine
    libc = ctypes.CDLL(None, use_errno=True)
    alone = dict(ON_ITSELF_ALONE)
    if libc.syscall(CREATE_RULESET, None, 0, 1) < SCOPED_FROM:
        alone |= SIGNALS
    program = _program(architecture, column, alone)
    buffer = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if libc.syscall(seccomp, SET_MODE_FILTER, ALL_THREADS, filters) != 0:
        return ""
    return "network"


def _program(architecture: int, column: int, alone: dict[str, tuple[tuple[int, int], int]]) -> bytes:
    """The filter, eight bytes an instruction: (code, where to go if true, if false, value)."""
    own = os.getpid()
    refuse = (RETURN, 0, 0, REFUSE)
    program = [
        *((LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL)),
        *((LOAD, 0, 0, 0), (AT_LEAST, 0, 1, OTHER_ABI), refuse),
    ]
    for numbers in REFUSED.values():
        program += [(EQUAL, 0, 1, numbers[column]), refuse]
    for by_machine in IGNORED.values():
        if (number := by_machine[column]) is not None:
            program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, IGNORE)]
    for numbers, one_process in OF_ONE_PROCESS.values():
        program += [(EQUAL, 0, 3, numbers[column]), (LOAD, 0, 0, 16), (EQUAL, 1, 0, one_process), refuse]
        program.append((LOAD, 0, 0, 0))
    for numbers, argument in alone.values():
        program += [
            (EQUAL, 0, 5, numbers[column]),
            (LOAD, 0, 0, 16 + 8 * argument),
            *((EQUAL, 2, 0, 0), (EQUAL, 1, 0, own)),
            refuse,
            (RETURN, 0, 0, ALLOW),
        ]
    program.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def scrubbed_environment() -> dict[str, str]:
    """The environment for a process that starts models."""
    return {name: os.environ[name] for name in HOST_ENVIRONMENT if name in os.environ}


def hide_from_others() -> None:
    """Keep this process's environment and memory from others of the same user (Linux); ours hold secrets."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"a model's process cannot be confined: {os.strerror(number)}")
    return result
