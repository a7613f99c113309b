"""Counts the instructions that a program executes between its first and its second call of sched_yield, one by one: for what callgrind can't run.

Usage: step.py PROGRAM ARGUMENT...
Prints the count. The program's own output goes to standard error.
"""

import ctypes
import os
import signal
import sys

TRACEME, PEEKTEXT, PEEKUSER, SINGLESTEP, DETACH, SYSCALL, SETOPTIONS = 0, 1, 3, 9, 17, 24, 0x4200
TRACESYSGOOD, EXITKILL = 1, 0x100000
# Offsets in struct user of x86-64.
RAX, ORIG_RAX, RIP = 80, 120, 128
SCHED_YIELD = 24
SYSCALL_CODE = 0x050F

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
ptrace = libc.ptrace


def wait(pid):
    """The signal that it stopped with; ends us when it has ended."""
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(f"step.py: the program ended before its second mark: status {status}")
    return os.WSTOPSIG(status)


def run_to_first_mark(pid):
    while True:
        ptrace(SYSCALL, pid, None, None)
        if wait(pid) != signal.SIGTRAP | 0x80:
            continue
        marked = ptrace(PEEKUSER, pid, ORIG_RAX, None) == SCHED_YIELD
        # Its end is a stop, too.
        ptrace(SYSCALL, pid, None, None)
        wait(pid)
        if marked:
            return


def steps_to_second_mark(pid):
    count = 0
    while True:
        if ptrace(PEEKUSER, pid, RAX, None) == SCHED_YIELD:
            code = ptrace(PEEKTEXT, pid, ptrace(PEEKUSER, pid, RIP, None), None)
            if code & 0xFFFF == SYSCALL_CODE:
                return count
        ptrace(SINGLESTEP, pid, None, None)
        stopped = wait(pid)
        if stopped != signal.SIGTRAP:
            sys.exit(f"step.py: signal {stopped} between the marks")
        count += 1


def main():
    # On one processor: the two take turns, and waking each other across processors would take most of the time.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        ptrace(TRACEME, 0, None, None)
        os.execv(sys.argv[1], sys.argv[1:])
    wait(pid)
    if ptrace(SETOPTIONS, pid, None, TRACESYSGOOD | EXITKILL) != 0:
        sys.exit(f"step.py: no ptrace here: {os.strerror(ctypes.get_errno())}")
    run_to_first_mark(pid)
    steps = steps_to_second_mark(pid)
    ptrace(DETACH, pid, None, None)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"step.py: the program ended badly: status {status}")
    print(steps)


main()
