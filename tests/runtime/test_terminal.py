"""Standard streams that are closed, or that know fewer letters."""

import io
import os
import sys

import pytest

from gan_jax.runtime import terminal


@pytest.fixture
def closed_pipe():
  read, write = os.pipe()
  os.close(read)
  with open(write, 'w', encoding='utf-8') as stream:
    yield stream


def test_a_reader_that_has_seen_enough(closed_pipe, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', closed_pipe)
  with terminal.sturdy_streams():
    for _ in range(3):
      print('x' * 10_000, flush=True)
    print('not flushed')
  closed_pipe.flush()  # as Python does at its end
  terminal.tell('x', closed_pipe)


@pytest.mark.parametrize('stream', [None, 'closed'])
def test_no_stream(stream, monkeypatch):
  if stream:
    stream = io.StringIO()
    stream.close()
  monkeypatch.setattr(sys, 'stderr', stream)
  with terminal.sturdy_streams():
    print('x', file=sys.stderr)
    sys.stderr.flush()
    sys.stderr.writelines(['x'])
  assert sys.stderr is stream
  terminal.tell('x', stream)


def test_what_an_encoding_has_not_is_spelt(monkeypatch):
  raw = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, encoding='ascii'))
  with terminal.sturdy_streams():
    print('1 ± 2 × 3 \udcff é')
  assert raw.getvalue() == b'1 +- 2 x 3 \\udcff \\xe9\n'
  plain = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
  terminal.tell('±', plain)
  assert plain.buffer.getvalue() == b'+-\n'
