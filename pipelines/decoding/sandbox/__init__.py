"""What holds a process that touches untrusted bytes: layers of the Linux kernel's, one on another.

A codec that a hostile file takes over has the rights of its process. So that process gets almost
none: no file but the video's open descriptor, no network, no other process, no further program.
Each layer is tried by itself, as a container or an older kernel may refuse some.
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
"""Every layer, with what it is for, in the order in which they are put on."""
