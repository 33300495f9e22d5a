"""Object stores of this machine: S3 by moto, GCS by its emulator; a proxy."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading

# Each takes a free port of its own and says which, once its bucket is there;
# that is all it says.
_S3 = """
import logging, os, time
from moto.server import ThreadedMotoServer
logging.getLogger('werkzeug').setLevel(logging.ERROR)
server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
server.start()
_, port = server.get_host_and_port()
import boto3
client = boto3.client('s3', endpoint_url=f'http://127.0.0.1:{port}')
client.create_bucket(Bucket='bucket')
print(port, flush=True)
os.dup2(2, 1)
time.sleep(1e6)
"""
_GS = """
import os, time
from email.parser import BytesParser
from gcp_storage_emulator import server as emulator


class Exact(BytesParser):
  # Which the emulator reads uploads with; it takes a line feed or a carriage
  # return at the end of a file for its own.
  def parsebytes(self, data):
    message = super().parsebytes(data)
    if message.get_content_type() == 'multipart/related':
      edge = f'\\n--{message.get_boundary()}'.encode()
      content = data.rsplit(edge, 2)[1].partition(b'\\n\\n')[2]
      message.get_payload()[1].get_payload = lambda decode: content
    return message


emulator.BytesParser = Exact
server = emulator.create_server(
  '127.0.0.1', 0, in_memory=True, default_bucket='bucket'
)
server.start()
print(server._api._httpd.server_port, flush=True)
os.dup2(2, 1)
time.sleep(1e6)
"""
NEEDS = {
  's3': ('moto.server', 's3fs', 'boto3'),
  'gs': ('gcp_storage_emulator', 'gcsfs'),
}


def free_port():
  with socket.socket() as place:
    place.bind(('127.0.0.1', 0))
    return place.getsockname()[1]


def environment(scheme, port):
  """How processes find the store."""
  if scheme == 'gs':
    return {'STORAGE_EMULATOR_HOST': f'http://127.0.0.1:{port}'}
  return {
    'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}',
    'AWS_ACCESS_KEY_ID': 'testing',
    'AWS_SECRET_ACCESS_KEY': 'testing',
    'AWS_DEFAULT_REGION': 'us-east-1',
  }


@contextlib.contextmanager
def server(scheme):
  """A store with one bucket, `bucket`; its port."""
  process = subprocess.Popen(
    [sys.executable, '-c', _S3 if scheme == 's3' else _GS],
    env=dict(os.environ, **environment(scheme, 0)),
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  try:
    heard, _, _ = select.select([process.stdout], [], [], 120)
    said = process.stdout.read() if heard else ''
    assert said, 'the store has not started'
    yield int(said)
  finally:
    process.kill()
    process.communicate()


class Proxy:
  """Hands connections on to a store, until it is cut.

  Attributes:
    port: of its own.
    seen: what is called with the first bytes of a piece that goes to the store.
  """

  def __init__(self, target):
    self._target, self.seen = target, lambda head: None
    self._pairs, self._is_cut = [], threading.Event()
    self._listener = socket.create_server(('127.0.0.1', 0))
    self.port = self._listener.getsockname()[1]
    threading.Thread(target=self._accept, daemon=True).start()

  def _accept(self):
    while True:
      try:
        client, _ = self._listener.accept()
      except OSError:
        return
      if self._is_cut.is_set():
        client.close()
        continue
      try:
        server = socket.create_connection(('127.0.0.1', self._target))
      except OSError:
        client.close()
        continue
      self._pairs.append((client, server))
      for one, other, listens in (
        (client, server, True),
        (server, client, False),
      ):
        threading.Thread(
          target=self._pump, args=(one, other, listens), daemon=True
        ).start()

  def _pump(self, source, sink, listens):
    with contextlib.suppress(OSError):
      while piece := source.recv(65536):
        if listens:
          self.seen(piece[:300])
        if self._is_cut.is_set():
          break
        sink.sendall(piece)
    for end in (source, sink):
      with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
      end.close()

  def cut(self):
    """Ends all connections, and takes no more."""
    self._is_cut.set()
    for pair in self._pairs:
      for end in pair:
        with contextlib.suppress(OSError):
          end.shutdown(socket.SHUT_RDWR)
    self._pairs.clear()

  def mend(self):
    """Takes connections again."""
    self._is_cut.clear()

  def close(self):
    self.cut()
    self._listener.close()
