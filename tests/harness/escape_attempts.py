"""Runs inside a sandbox: tries to get out in many ways and prints what it saw of the machine, as JSON.

Every attempt returns what it got hold of, or raises. What raises did not escape; what returns a false value did not, either.
"""

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import time

MARK, SECRET_FILE, UNIX_SOCKET, ABSTRACT_SOCKET = sys.argv[1:5]
TCP_PORT, UDP_PORT, DNS_PORT, VICTIM = map(int, sys.argv[5:9])
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_MOUNTS, NEW_NET = 0x10000000, 0x00020000, 0x40000000


def call(name, *arguments):
    """Call the C library; raise what errno says."""
    answer = getattr(LIBC, name)(*arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"{name} gave {answer}"


def number(x86_64, aarch64):
    return x86_64 if os.uname().machine == "x86_64" else aarch64


def udp(port, content):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(0.3)
        link.sendto(content, ("127.0.0.1", port))
        return link.recv(1000).decode(errors="replace")


def unix(address):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(0.5)
        link.connect(address)
        return f"connected to {address!r}"


def tcp():
    with socket.create_connection(("127.0.0.1", TCP_PORT), timeout=0.5):
        return "connected"


def dns():
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07k2think\x07invalid\x00\x00\x01\x00\x01"
    return udp(DNS_PORT, question)


def others_environment():
    seen = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ") as file:
                seen += [pid] * (MARK in file.read())
        except OSError:
            pass
    return seen


def others_processes():
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) == VICTIM]


def own_environment():
    return [name for name in os.environ if MARK in os.environ[name] or name.startswith(("K2THINK", "CEREBRAS", "HF_"))]


def read(path):
    with open(path) as file:
        return MARK in file.read() and f"read {path}"


def accounts():
    with open("/etc/shadow") as file:
        return file.readline()


def link_out():
    link = f"/tmp/k2think-{MARK}"
    os.symlink(SECRET_FILE, link)
    try:
        return read(link)
    finally:
        os.unlink(link)


def hard_link_out():
    link = f"/tmp/k2think-{MARK}"
    os.link("/usr/bin/env", link)
    os.unlink(link)
    return "linked a file of the machine"


def roots_of_others():
    for pid in ("1", "self", str(os.getppid())):
        try:
            if read(f"/proc/{pid}/root{SECRET_FILE}"):
                return f"read through /proc/{pid}/root"
        except OSError:
            pass
    return ""


def writes_outside():
    written = []
    for folder in ("/", "/usr", "/usr/lib", "/etc", "/dev", "/dev/shm", "/code", "/proc", "/var/tmp", sys.base_prefix):
        try:
            with open(f"{folder.rstrip('/')}/k2think-{MARK}", "w") as file:
                file.write("x")
            written.append(folder)
            os.unlink(file.name)
        except OSError:
            pass
    return written


def open_files():
    """What is inherited: the three standard files, and nothing else."""
    # The folder is listed through a file of its own, which is closed when its link is asked for.
    held = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.lexists(f"/proc/self/fd/{fd}")]
    return [f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}" for fd in held]


def devices():
    opened = []
    for name in ("mem", "kmsg", "port", "kvm", "fuse", "vda", "sda", "loop-control", "net/tun"):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY))
            opened.append(name)
        except OSError:
            pass
    return opened


def capabilities():
    with open("/proc/self/status") as file:
        lines = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    return int(lines["CapEff"], 16) and f"CapEff {lines['CapEff'].strip()}"


def bubblewrap_inside():
    done = subprocess.run(["bwrap", "--ro-bind", "/", "/", "true"], capture_output=True)
    return done.returncode == 0 and "bwrap ran"


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "forked"


def spawn():
    os.waitpid(os.posix_spawn("/usr/bin/env", ["true"], {}), 0)
    return "spawned"


def raw_clone():
    """A new process in new namespaces, past the C library."""
    flags = NEW_USER | NEW_NET | 17
    pid = LIBC.syscall(number(56, 220), flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return "cloned"


def raw_clone3():
    """The newer call, whose flags no filter can read."""
    arguments = (ctypes.c_uint64 * 11)(NEW_USER, 0, 0, 0, 17)
    pid = LIBC.syscall(435, arguments, ctypes.sizeof(arguments))
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return "cloned"


def signal_outside():
    os.kill(VICTIM, 0)
    os.kill(VICTIM, 9)
    return "killed a process of the machine"


def higher_limits():
    raised = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        try:
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            raised.append(kind)
        except (ValueError, OSError):
            pass
    return raised


def sockets_of_the_kernel():
    made = []
    for family, kind in (
        (40, socket.SOCK_STREAM),
        (socket.AF_NETLINK, socket.SOCK_RAW),
        (socket.AF_PACKET, socket.SOCK_RAW),
        (38, 5),
    ):
        try:
            socket.socket(family, kind).close()
            made.append(family)
        except OSError:
            pass
    return made


def memory_past_limits():
    """System V memory of a size that no limit of a process counts."""
    segment = LIBC.shmget(0, ctypes.c_size_t(2**33), 0o1600)
    if segment < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    call("shmctl", segment, 0, None)
    return "got 8 GiB"


def set_user():
    os.setuid(0)
    return "became root"


ATTEMPTS = {
    "tcp": tcp,
    "udp": lambda: udp(UDP_PORT, b"hello"),
    "dns": dns,
    "unix_socket": lambda: unix(UNIX_SOCKET),
    "abstract_socket": lambda: unix("\0" + ABSTRACT_SOCKET),
    "other_families": sockets_of_the_kernel,
    "others_environment": others_environment,
    "others_processes": others_processes,
    "own_environment": own_environment,
    "secret_file": lambda: read(SECRET_FILE),
    "dots": lambda: read(f"/tmp/../../../..{SECRET_FILE}"),
    "accounts": accounts,
    "symlink_out": link_out,
    "hard_link": hard_link_out,
    "roots_of_others": roots_of_others,
    "writes_outside": writes_outside,
    "open_files": open_files,
    "devices": devices,
    "capabilities": capabilities,
    "set_user": set_user,
    "fork": fork,
    "spawn": spawn,
    "subprocess": lambda: subprocess.run(["id"], capture_output=True).stdout.decode(),
    "bubblewrap_inside": bubblewrap_inside,
    "user_namespace": lambda: call("unshare", NEW_USER),
    "mount_namespace": lambda: call("unshare", NEW_MOUNTS),
    "clone_namespace": raw_clone,
    "clone3_namespace": raw_clone3,
    "join_namespace": lambda: call("setns", os.open("/proc/1/ns/net", os.O_RDONLY), 0),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "chroot": lambda: os.chroot("/tmp") or "chroot worked",
    "ptrace": lambda: call("ptrace", 0, 0, None, None),
    "ptrace_first": lambda: call("ptrace", 16, 1, None, None),
    "others_memory": lambda: call("process_vm_readv", 1, None, 0, None, 0, 0),
    "system_v_memory": memory_past_limits,
    "memory_file": lambda: os.memfd_create("x") and "made a file in memory",
    "keyring": lambda: call("syscall", number(250, 219), 0, -3, 0, 0, 0),
    "bpf": lambda: call("syscall", number(321, 280), 0, 0, 0),
    "perf_events": lambda: call("syscall", number(298, 241), 0, 0, -1, -1, 0),
    "user_faults": lambda: call("syscall", number(323, 282), 1),
    "io_uring": lambda: call("syscall", 425, 1, (ctypes.c_uint8 * 120)()),
    "higher_limits": higher_limits,
    "signal_outside": signal_outside,
}


def main():
    seen = {}
    for name, attempt in ATTEMPTS.items():
        began = time.monotonic()
        try:
            got = attempt()
            seen[name] = {"escaped": bool(got), "saw": repr(got)}
        except BaseException as exc:
            seen[name] = {"escaped": False, "saw": f"{type(exc).__name__}: {exc}"}
        seen[name]["seconds"] = time.monotonic() - began
    print(json.dumps(seen))


main()
