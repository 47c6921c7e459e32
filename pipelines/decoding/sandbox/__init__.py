"""A sandbox of stacked Linux kernel layers for processes that read untrusted bytes.

A hostile file that takes over a codec has the rights of the codec's process. So that process gets
almost none: no file except the video's open descriptor, no network, no other process, no further
program. Each layer is tested separately, because a container or an older kernel may refuse some.
"""

LAYERS = {
    "no_new_privs": "no new privileges through executed programs",
    "capabilities": "no capabilities, even as root",
    "user_namespace": "no user id outside the namespace",
    "network_namespace": "no network interface, not even the loopback",
    "ipc_namespace": "no shared memory or message queues",
    "pid_namespace": "no access to other processes; all children end together",
    "landlock": "no file access by path; no ports; no signals to other processes",
    "seccomp": "only system calls that compute, read and write open files",
}
"""The layers and their purposes, in the order in which they are applied."""
