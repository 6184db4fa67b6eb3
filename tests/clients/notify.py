"""Speaks for a service with the module that $1 names, `sdnotify` or `systemd`. The words after it are a first message;
each line from descriptor 3, words between tabs, is another. `@child` stands for the pid of a child; `@pipe`, `@null` and
`@barrier` send a descriptor along; `@feed` and `@quiet` alone begin and end a message of WATCHDOG=1 every 200 ms."""

import os
import select
import subprocess
import sys


def by_sdnotify(text, descriptors):
    import sdnotify

    assert not descriptors, "sdnotify sends none"
    sdnotify.SystemdNotifier(debug=True).notify(text)


def by_systemd(text, descriptors):
    from systemd import daemon

    assert daemon.notify(text, fds=descriptors), "there is nobody to say it to"


notify = {"sdnotify": by_sdnotify, "systemd": by_systemd}[sys.argv[1]]
child = subprocess.Popen(["/bin/sleep", "1000"])


def pipe():
    """The reading end of a pipe with a word in it, whose other end is closed."""
    read, write = os.pipe()
    os.write(write, b"treasure")
    os.close(write)
    return read


def say(words):
    descriptors, barrier = [], None
    for word in words:
        if word == "@pipe":
            descriptors.append(pipe())
        elif word == "@null":
            descriptors.append(os.open("/dev/null", os.O_RDONLY))
        elif word == "@barrier":
            barrier, end = os.pipe()
            descriptors.append(end)
    text = "\n".join(word.replace("@child", str(child.pid)) for word in words if word[0] != "@")
    notify(text, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    if barrier is not None:
        # Nobody else has the other end once the receiver has closed it.
        assert os.read(barrier, 1) == b""
    print("said 0:", *words, flush=True)


print("has", os.environ["LISTEN_FDNAMES"], flush=True)
if "chest" in os.environ["LISTEN_FDNAMES"]:
    print("found", os.read(4, 99).decode(), flush=True)
if sys.argv[2:]:
    say(sys.argv[2:])
feeding, orders = False, b""
while True:
    if not select.select([3], [], [], 0.2 if feeding else None)[0]:
        notify("WATCHDOG=1", [])
        continue
    orders += os.read(3, 4096)
    *lines, orders = orders.split(b"\n")
    for line in lines:
        words = line.decode().split("\t")
        if words[0] in ("@feed", "@quiet"):
            feeding = words[0] == "@feed"
        else:
            say(words)
