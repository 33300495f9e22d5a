"""The weight files of the FID Inception, without torch or TensorFlow."""

import base64
import hashlib
import io
import os
import pickle
import re
import sys
import types
import zipfile
import zlib

import numpy as np
import pytest

from gan_jax.features import inception_weights, torch_file
from gan_jax.features.inception_weights import LAYERS
from gan_jax.runtime.errors import ArgumentError, DataError

SOME = ('conv', 'mixed_4/tower/conv_1', 'softmax')


@pytest.fixture(scope='module')
def raw():
  """Kernel, gamma, beta, mean, variance of some layers, as TensorFlow has."""
  rng = np.random.default_rng(2)
  found = {}
  for name in SOME:
    shape = LAYERS[name].shape
    kernel = rng.normal(size=shape).astype(np.float32)
    norm = rng.uniform(0.5, 1.5, (4, shape[-1])).astype(np.float32)
    found[name] = (kernel, *norm)
  return found


@pytest.fixture(scope='module')
def wanted(raw):
  found = {}
  for name, (kernel, gamma, beta, mean, var) in raw.items():
    a = np.float64(gamma) / np.sqrt(np.float64(var) + 0.001)
    found[name] = {'w': kernel * a, 'b': beta - a * mean}
  kernel, _, beta, *_ = raw['softmax']
  return {**found, 'softmax': {'w': kernel, 'b': beta}}


def write_npz(path, raw, wanted):
  arrays = {
    f'{name.replace("/", "_")}/{k}': v
    for name, layer in wanted.items()
    for k, v in layer.items()
  }
  np.savez(path, **arrays)


def state_dict(raw):
  """The arrays as the PyTorch port names and orders them."""
  found = {}
  for name, (kernel, gamma, beta, mean, var) in raw.items():
    module = LAYERS[name].torch
    if name == 'softmax':
      found |= {f'{module}.weight': kernel.T, f'{module}.bias': beta}
      continue
    found[f'{module}.conv.weight'] = kernel.transpose(3, 2, 0, 1)
    norm = (('weight', gamma), ('bias', beta))
    norm += (('running_mean', mean), ('running_var', var))
    found |= {f'{module}.bn.{k}': x for k, x in norm}
  return found


class _Pickler(pickle.Pickler):
  """Writes arrays as PyTorch writes tensors."""

  def __init__(self, file, old):
    super().__init__(file, protocol=2)
    self.old, self.storages = old, []

  def reducer_override(self, x):
    if not isinstance(x, np.ndarray):
      return NotImplemented
    self.storages.append(np.ascontiguousarray(x))
    steps = [step // 4 for step in self.storages[-1].strides]
    key = _Key(len(self.storages) - 1)
    args = (key, 0, x.shape, tuple(steps), False, None)
    return sys.modules['torch._utils']._rebuild_tensor_v2, args

  def persistent_id(self, x):
    if not isinstance(x, _Key):
      return None
    kind = sys.modules['torch'].FloatStorage
    numel = self.storages[x].size
    return ('storage', kind, str(int(x)), 'cpu', numel, *[None] * self.old)


class _Key(int):
  pass


def dump_torch(path, content, old=False):
  """Writes what holds arrays as `torch.save` does."""

  def _rebuild_tensor_v2():
    raise AssertionError

  class FloatStorage:
    pass

  parts = {'torch': FloatStorage, 'torch._utils': _rebuild_tensor_v2}
  with pytest.MonkeyPatch.context() as patch:
    for name, part in parts.items():
      part.__module__, part.__qualname__ = name, part.__name__
      module = types.ModuleType(name)
      setattr(module, part.__name__, part)
      patch.setitem(sys.modules, name, module)
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, old)
    pickler.dump(content)
  storages = {str(i): x for i, x in enumerate(pickler.storages)}
  if old:
    with open(path, 'wb') as file:
      for x in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}):
        pickle.dump(x, file, protocol=2)
      file.write(buffer.getvalue())
      pickle.dump(list(storages), file, protocol=2)
      for x in storages.values():
        file.write(x.size.to_bytes(8, 'little') + x.tobytes())
    return
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', buffer.getvalue())
    for k, x in storages.items():
      archive.writestr(f'archive/data/{k}', x.tobytes())


def write_torch(path, raw, wanted):
  dump_torch(path, state_dict(raw))


def write_old(path, raw, wanted):
  dump_torch(path, state_dict(raw), old=True)


WRITERS = {
  'a.npz': write_npz,
  'a.pth': write_torch,
  'old.pth': write_old,
}


@pytest.mark.parametrize('name', WRITERS)
def test_every_kind_of_file_gives_the_same_weights(name, raw, wanted, tmp_path):
  WRITERS[name](tmp_path / name, raw, wanted)
  found = inception_weights.load(tmp_path / name, SOME)
  assert list(found) == list(SOME)
  for layer in SOME:
    for k in ('w', 'b'):
      assert found[layer][k].dtype == np.float32
      np.testing.assert_allclose(
        found[layer][k], wanted[layer][k], rtol=1e-6, atol=1e-7
      )


# An OrderedDict of a (2, 3) of floats, its transpose, [1, 2], Parameter([0.5]).
# To regenerate: torch.save(..., _use_new_zipfile_serialization=True | False),
# zlib, base85; these are of torch 2.13.0.
GOLDEN = {
  'zip': (
    'c-'
    'o~^+i%iP7(XpgSk>LUuuYwAI%UaZ<ud3r%F>wnP!kzOvltWXph9B@`^sTPpO%<SeVZ@(r1'
    '5|7!T2Be>g7?NOuRgq?7{fxIW4fZ6VUC1(-YwPUE1%`tm5+{6bhkjs~-'
    '&_)hv|t6>YkxVl}#a$B?C7bi=h)*+QXe7+L}A)k=-OViq-1D_+zKm<KeO117S-'
    '5Hc0m0<IFaXughhqsHe=ZLzK!#XQz3wW^t4iSyu#L>7W1xJDw?k_LVo!plZg#aHbgc?ej9'
    '0&ojHau$~B5L7q}p?L)<tm0dT9>u3H>%c!QQv-'
    'W2?9IVG3$zHmWg=4cmjh+4Y{B{{%%`yH(62BQJz&EIG3?L50Si`ugEp+;=W?}DYS}qtg~T'
    '9C_*e`>mW?$SR+u#yvAGUoIFf^-'
    'R$viE+dPP6)l`=>teHF<Yr3=`aX3!684P2To6wHa%L$wNB!-'
    'C`oO)z^IsFhKIhd?Rvq~`Z_QR`<rvy)Twr!TfXrh(n=<TYxq~iRFX4XhHWogWl?7yrSm3s'
    'a2(*x?1?)Fk6D7_`s$Z=jZ^ipL>t6*75bXVKHQb}qca~FQFM1t*TU;t%W1{UvOtxAhkmd@'
    '=&x48@*V?(1J*3N$!=7<W{(L*n~;OeSrL6*+$!hp@Xnjx1t@*#Vb?3Z)YQF!CqlOgiQP!~'
    's2Zbva$iu|)9roqBCPOAIn^Di<zkhMGMCf&MmSrX6=?mt5{$2P~G5h3L7sM+VJfL4|7D*p'
    '+ds=s?ty4Jn^Mp1mL0jyiDX{Js(;J!+yXI?MLQuIH~2x4+JDT-n;J)4>ll43eBBM9-'
    'hAg09GSUMpl#n?<rNGGVv=bJZ&Bg99<a>-'
    'aJYx;Cfi~eoSz3%}p+BpEiF637RwVN+q5@!>SxJc$%)M0XXd7O<n;Np4j;Ass2FWlKRy)O'
    '85AM*6B7wfEiH}<<18}nkF73{{|@_VpxFV<OqeJ<=r2e!>~cb3Jd3!Dp}E(M!aIBu$0-'
    'o7&}WRK^()R+&y1I;nP1+APnJlJoJ0B2)*tav;258K1!<^'
  ),
  'old': (
    'c-'
    'nQ6%Wl*#6oz9bGX+CSxl^ufxdj%ZQD>%1SM36IV{Q!_Z%~vbRudHBIgV2aq)M~tP<RFwEO'
    '|8^0f`02Ny|kFQGAqheEj{t?M&%smjC>+{bTv<w^vKODSiIk#drXYFBTognP_EHtnzSQ>M'
    '~OW5Nr_hIFo0_<T8{+l0^m3Bf+p}-cMv$W*=k;?g4nd=wPu-'
    'l{V1fRJfRBg@G>jgl8G5*n>IlRTXN+D3i<Bpi0SJ>O^XpJk4Umz<Cq^@dd#Z5zyEu9jCpp'
    'GFe`-P|Mva%ahQ^qEtHEUt{3<zL>MZ*ct6f@R}uTJ6Dl;-'
    '4q#g!~*tg3^s=2(O@tdjfdktbZd|Cq(WQW7Y0u4aEDXw&fqk6Ihg_blv+Dy44e&MzV@^W3'
    'n@ybUfPO0mo}(Hi*h-'
    'g!Ff(B@j`>TXy8%+muplER~po@<7aq4zYSmghrT`<4*Pw$hIESbrP}BrT<7EvZZzbZ25tp'
    '#yCx@a=RXHGiFEW%8mSp9x9(%T|6~pKv4Tnjl~%11irlr~UZZs1z=HrD9@UBe5imZsclyT'
    'uM=fVU+5~9Z{#@DXI)6XYO$=N3;+W$2x<&p>ZqnnAliErC3yN;HzW'
  ),
}


@pytest.mark.parametrize('kind', GOLDEN)
def test_files_that_pytorch_wrote_are_read(kind, tmp_path):
  path = tmp_path / 'a.pth'
  path.write_bytes(zlib.decompress(base64.b85decode(GOLDEN[kind])))
  found = torch_file.read(path)
  a = np.arange(6, dtype=np.float32).reshape(2, 3)
  wanted = {'a': a, 'b': a.T, 'c': np.array([1, 2]), 'd': np.array([0.5])}
  assert set(found) == set(wanted)
  for name, x in wanted.items():
    np.testing.assert_array_equal(found[name], x)
  assert found['c'].dtype == np.int64


@pytest.mark.parametrize('old', [False, True])
def test_a_state_dict_is_found_within_a_checkpoint(old, tmp_path):
  x = np.arange(4, dtype=np.float32)
  content = {'epoch': 3, 'state_dict': {'module.a': x, 'b': 2 * x}}
  dump_torch(tmp_path / 'a.pth', content, old)
  found = torch_file.read(tmp_path / 'a.pth')
  np.testing.assert_array_equal(found['a'], x)
  np.testing.assert_array_equal(found['b'], 2 * x)


# What is no such file.


class Evil:
  def __reduce__(self):
    return os.mkdir, ('harm',)


@pytest.mark.parametrize('old', [False, True])
def test_a_pickle_that_calls_anything_else_is_refused(
  old, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  dump_torch(tmp_path / 'a.pth', {'a': Evil()}, old)
  with pytest.raises(DataError, match=r'mkdir.*save model.state_dict'):
    torch_file.read(tmp_path / 'a.pth')
  assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize('name', WRITERS)
@pytest.mark.parametrize('keep', [0, 50, 0.5, 0.98])
def test_a_file_cut_short_is_told(name, keep, raw, wanted, tmp_path):
  path = tmp_path / name
  some = {'conv': raw['conv']}
  WRITERS[name](path, some, {'conv': wanted['conv']})
  content = path.read_bytes()
  size = keep if isinstance(keep, int) else int(keep * len(content))
  path.write_bytes(content[:size])
  with pytest.raises(DataError, match=re.escape(str(path))):
    inception_weights.load(path, ['conv'])


class Opaque:
  """An array as PyTorch would write a part of a storage."""

  def __init__(self, offset, size, stride):
    self.part = offset, size, stride


def test_a_script_is_told_from_a_state_dict(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.pt', 'w') as archive:
    archive.writestr('a/data.pkl', b'')
    archive.writestr('a/code/__torch__.py', b'')
  with pytest.raises(DataError, match='TorchScript.*use the .pth'):
    inception_weights.load(tmp_path / 'a.pt', SOME)


def save(path, layers):
  write_npz(path, None, layers)
  return path


def test_a_wrong_layer_is_named(wanted, tmp_path):
  path = tmp_path / 'a.npz'
  conv = wanted['conv']
  save(path, {**wanted, 'conv': {**conv, 'w': conv['w'][:2]}})
  with pytest.raises(DataError, match=r'conv has shape \(2, 3, 3, 32\)'):
    inception_weights.load(path, SOME)
  save(path, {**wanted, 'conv': {**conv, 'b': conv['b'] * np.nan}})
  with pytest.raises(DataError, match='layer conv .* not finite'):
    inception_weights.load(path, SOME)
  save(path, {'conv': conv})
  with pytest.raises(inception_weights.MissingLayer, match='softmax'):
    inception_weights.load(path, ['conv', 'softmax'])
  save(path, {'other': conv})
  with pytest.raises(DataError, match='another network'):
    inception_weights.load(path, SOME)
  with pytest.raises(ArgumentError, match=r'a.bin`: an unknown kind.*\.npz'):
    inception_weights.load(tmp_path / 'a.bin', SOME)


# Finding them.


def test_a_file_of_a_known_name_has_its_hash(tmp_path, monkeypatch):
  path = tmp_path / inception_weights.DEFAULT
  path.write_bytes(b'weights')
  told = hashlib.sha256(b'weights').hexdigest()
  with pytest.raises(DataError, match=f'{told}.*begins 6726825d'):
    inception_weights.find(str(path), tmp_path)
  with pytest.raises(DataError, match='begins 6726825d'):
    inception_weights.find('', tmp_path)  # the one kept here is as bad
  monkeypatch.setitem(
    inception_weights.KNOWN, inception_weights.DEFAULT, (told[:8], '')
  )
  assert inception_weights.find(str(path), tmp_path) == path
  other = path.rename(tmp_path / 'mine.pth')
  assert inception_weights.find(str(other), tmp_path) == other


def test_a_missing_file_is_a_bad_flag(tmp_path):
  with pytest.raises(ArgumentError, match=r'`weights=.*no\.npz`: no such'):
    inception_weights.find(str(tmp_path / 'no.npz'), tmp_path)


def test_the_public_file_is_downloaded_once_and_checked(tmp_path, monkeypatch):
  there = tmp_path / 'there.pth'
  there.write_bytes(b'weights')
  told = hashlib.sha256(b'weights').hexdigest()
  cache = tmp_path / 'cache'

  def serve(start):
    known = start, there.as_uri()
    monkeypatch.setitem(
      inception_weights.KNOWN, inception_weights.DEFAULT, known
    )

  serve('0' * 8)
  with pytest.raises(DataError, match=f'{told} and should begin 00000000'):
    inception_weights.find('', cache)
  assert not list(cache.iterdir())
  serve(told[:8])
  path = inception_weights.find('', cache)
  assert path.read_bytes() == b'weights'
  assert [p.name for p in cache.iterdir()] == [inception_weights.DEFAULT]
  there.unlink()
  assert inception_weights.find('', cache) == path
  path.unlink()
  with pytest.raises(DataError, match=r'(?s)without\s+network.*`weights='):
    inception_weights.find('', cache)
  assert not list(cache.iterdir())


def test_strangers_are_not_taken_for_the_public_network(wanted):
  assert not inception_weights.is_public(wanted)
