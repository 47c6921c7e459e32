"""A sandbox of stacked Linux kernel layers for processes that read untrusted bytes.

A hostile file that takes over a codec has the rights of the codec's process. So that process gets
almost none: no file except the video's open descriptor, no network, no other process, no further
program. Each layer is tested separately, because a container or an older kernel may refuse some.
"""

LAYERS = {
    "no_new_privs": "no program gives it rights that it has not",
    "capabilities": "none of root's rights, also as root",
    "user_namespace": "its user is nobody outside",
    "network_namespace": "no network interface, not even this machine's own",
    "ipc_namespace": "no memory or messages shared with others",
    "pid_namespace": "no process but its own can be named; all end together",
    "landlock": "no file is opened, written or removed; no port, no signal to others",
    "seccomp": "system calls: those that compute, read and write what is open, and no other",
}
"""The layers and their purposes, in the order in which they are applied."""
