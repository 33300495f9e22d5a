"""Runs a command for which some system calls fail, in all its libraries.

`python denied.py flock:ENOSYS,chmod:EPERM COMMAND WORDS`: a kernel filter
(seccomp) answers them, as a file system would that cannot do them. `fcntl` is
that of record locks alone, `create` whatever makes a file or a folder.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

CALLS = {
  'flock': 73,
  'fcntl': 72,
  'chmod': 90,
  'fchmod': 91,
  'fchmodat': 268,
  'fchmodat2': 452,
}
AVAILABLE = sys.platform == 'linux' and platform.machine() == 'x86_64'
_LOCKS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ERROR, _ALLOW = 0x00050000, 0x7FFF0000
_NUMBER, _SECOND, _THIRD = 0, 24, 32  # offsets of the number and arguments
_HAS_BIT = 0x45
_OPENAT, _OPEN, _MKDIR, _MKDIRAT, _LINK, _LINKAT = 257, 2, 83, 258, 86, 265


def make_filter(rules):
  """The program: (code, jump if true, jump if false, value) each."""
  lines = [(_LOAD, 0, 0, _NUMBER)]
  for name, code in rules:
    answer = (_RETURN, 0, 0, _ERROR | code)
    if name == 'create':
      lines += _deny_creation(answer)
      continue
    if name != 'fcntl':
      lines += [(_EQUAL, 0, 1, CALLS[name]), answer]
      continue
    tests = [
      (_EQUAL, len(_LOCKS) - 1 - i, i == len(_LOCKS) - 1, command)
      for i, command in enumerate(_LOCKS)
    ]
    body = [(_LOAD, 0, 0, _SECOND), *tests, answer]
    lines += [(_EQUAL, 0, len(body), CALLS[name]), *body]
    lines.append((_LOAD, 0, 0, _NUMBER))
  return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _deny_creation(answer):
  """Of opening a file that is to be made, of folders and of links."""
  lines = []
  for number, offset in ((_OPEN, _SECOND), (_OPENAT, _THIRD)):
    test = [(_LOAD, 0, 0, offset), (_HAS_BIT, 0, 1, os.O_CREAT), answer]
    lines += [(_EQUAL, 0, len(test), number), *test, (_LOAD, 0, 0, _NUMBER)]
  for number in (_MKDIR, _MKDIRAT, _LINK, _LINKAT):
    lines += [(_EQUAL, 0, 1, number), answer]
  return lines


def fill_disk():
  """No file or folder can be made any more, by any thread of this process."""
  if not AVAILABLE:
    raise NotImplementedError('a full disk is Linux on x86_64 alone')
  install([('create', errno.ENOSPC)])


def install(rules):
  """For this process and its children, for ever."""
  lines = make_filter(rules)
  code = b''.join(struct.pack('HBBI', *line) for line in lines)
  buffer = ctypes.create_string_buffer(code, len(code))

  class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]

  program = Program(len(lines), ctypes.addressof(buffer))
  libc = ctypes.CDLL(None, use_errno=True)
  libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
  # seccomp(SET_MODE_FILTER, TSYNC): all threads.
  if libc.syscall(317, 1, 1, ctypes.byref(program)):
    sys.exit(f'seccomp: {os.strerror(ctypes.get_errno())}')


if __name__ == '__main__':
  words = [word.split(':') for word in sys.argv[1].split(',')]
  install([(name, getattr(errno, code)) for name, code in words])
  os.execvp(sys.argv[2], sys.argv[2:])
