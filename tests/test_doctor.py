"""The command that looks at what a run depends on."""

import types

import pytest
from helpers import commands, stores

from gan_jax.runtime import checkup
from gan_jax.runtime.errors import Error


def found(folders=None, **options):
  findings = checkup.look(folders or {}, **{'seconds': 0, **options})
  return {finding.name: finding for finding in findings}


def test_command(tmp_path):
  places = [f'--workdir={tmp_path}/runs/1', f'--data_dir={tmp_path}']
  done = commands.run('doctor', *places, '--seconds=0.01')
  assert done.returncode == 0, done.stderr
  lines = dict(line.split(': ', 1) for line in done.stdout.splitlines())
  assert lines['devices'].endswith('of cpu: cpu')
  assert 'float32' in lines['precision']
  assert lines['workdir'].startswith(f'{tmp_path}/runs/1: ')
  assert not (tmp_path / 'runs').exists()  # it looks, and makes nothing
  for name in ('matrix product', 'convolution'):
    reached = lines[name].removesuffix(' GFLOP/s on one device')
    assert float(reached.replace(',', '')) >= 1


def test_a_folder_that_is_none_is_a_fault(tmp_path):
  (tmp_path / 'file').touch()
  done = commands.run('doctor', f'--workdir={tmp_path}/file/x', '--seconds=0')
  assert done.returncode == 1
  assert f'{tmp_path}/file is no folder\n  -> name another' in done.stdout


def test_a_store_is_written_to_and_left_as_it_was():
  with stores.flaky() as flaky:
    finding = found({'workdir': 'flaky://b/run'})['workdir']
    assert finding.told.startswith(
      'flaky://b/run: put, found, read and removed'
    )
    assert not (finding.remedy or finding.fatal)
    assert not flaky.store

    def denied(call, path):
      raise PermissionError('Forbidden')

    flaky.fault = staticmethod(denied)
    finding = found({'workdir': 'flaky://b/run'})['workdir']
    assert 'the store refuses (PermissionError: Forbidden)' in finding.told
    assert finding.fatal


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
  def refuse(dir):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(checkup.tempfile, 'TemporaryDirectory', refuse)
  finding = found({'data': str(tmp_path)})['data']
  assert finding.fatal and 'Permission denied' in finding.told


def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=2**29)
  monkeypatch.setattr(checkup.shutil, 'disk_usage', lambda path: usage)
  finding = found({'data': str(tmp_path)})['data']
  assert finding.told.endswith(': 0.5 GiB free') and not finding.fatal
  assert finding.remedy.startswith('make room')


@pytest.mark.parametrize(
  ('platforms', 'remedy'),
  [
    ('', 'there is a GPU that JAX does not use: pip install "jax[x]"'),
    ('cpu', 'unset JAX_PLATFORMS=cpu to use a GPU'),
  ],
)
def test_a_device_that_is_not_used(platforms, remedy, monkeypatch, tmp_path):
  (tmp_path / 'nvidia0').touch()
  drivers = {str(tmp_path / 'nvidia*'): ('a GPU', 'jax[x]')}
  monkeypatch.setattr(checkup, '_DRIVERS', drivers)
  monkeypatch.setenv('JAX_PLATFORMS', platforms)
  assert found()['devices'].remedy == remedy


def test_no_device_at_all(monkeypatch):
  def check():
    raise Error('JAX_PLATFORMS=cuda: JAX finds no such device; unset it')

  monkeypatch.setattr(checkup.backend, 'check_devices', check)
  findings = found({'data': '/'})
  assert list(findings) == ['versions', 'devices']
  assert findings['devices'].fatal
  assert findings['devices'].remedy.endswith('unset it')
