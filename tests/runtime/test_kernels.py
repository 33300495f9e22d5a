"""Kernels are counted in texts that XLA printed: see `hlo/make.py`."""

import pathlib

import pytest

from gan_jax.runtime import cards, hlo, kernels
from gan_jax.runtime.errors import ArgumentError

TEXTS = pathlib.Path(__file__).with_name('hlo')
# Of the program of make.py, by hand: a convolution and the gradient of its
# kernel, of 16 images; a product and its two gradients.
CONVOLUTION = 2 * (16 * 4 * 4 * 8) * (4 * 4 * 3)
PRODUCT = 2 * 16 * 128 * 5
SLICE = 16 * 8 * 8 * 3 * 4  # bytes of one step's images, of six


def read(name):
  return hlo.parse((TEXTS / f'{name}.txt').read_text())


def of_kind(found, kind):
  return [kernel for kernel in found if kernel.kind == kind]


@pytest.mark.parametrize(
  ('name', 'devices'), [('h100', 1), ('h100_2x4', 8), ('v5e_2x4', 8)]
)
def test_operations_are_those_of_the_mathematics(name, devices):
  found = kernels.count(read(name))
  convolutions = of_kind(found, 'convolution')
  products = of_kind(found, 'matrix product')
  assert len(convolutions) == 2 and len(products) == 3
  flops = [k.count * k.flops for k in convolutions]
  assert flops == pytest.approx([CONVOLUTION / devices] * 2, rel=0.1)
  total = kernels.total(products, 'flops')
  assert total == pytest.approx(3 * PRODUCT / devices, rel=0.1)


def test_every_instruction_of_the_body_that_does_something_is_a_kernel():
  module = read('h100')
  body, times = module.find_step()
  assert times == 1
  found = {k.name for k in kernels.count(module)}
  for one in module.computations[body].values():
    runs = one.opcode in ('fusion', 'custom-call', 'copy', 'all-reduce-start')
    assert (one.name in found) == runs, one


def test_only_what_is_sliced_is_read():
  found = kernels.count(read('h100'))
  assert max(k.bytes for k in found) < 2.1 * SLICE


def test_an_inner_loop_counts_as_often_as_it_turns():
  found = kernels.count(read('h100'))
  sorts = [k for k in found if k.what == 'sort']
  assert [k.count for k in sorts] == [3, 3]


def test_collectives_are_those_of_several_devices():
  assert not of_kind(kernels.count(read('h100')), 'collective')
  for name in ('h100_2x4', 'v5e_2x4'):
    found = of_kind(kernels.count(read(name)), 'collective')
    assert {k.what for k in found} == {'all-reduce'}
    # The gradient of the kernel, the mean, the sum of squares; of the product.
    moved = 4 * (4 * 4 * 3 * 8 + 128 * 5)
    total = kernels.total(found, 'bytes')
    assert total == pytest.approx(2 * moved, rel=0.05)


def test_a_tpu_tells_its_cycles():
  found = kernels.count(read('v5e_2x4'))
  assert kernels.total(found, 'cycles') > 10_000
  assert not kernels.total(kernels.count(read('h100')), 'cycles')


def test_members_one_after_another_count_each():
  # A loop of three turns around the loop of steps, whose turns nobody knows.
  text = """HloModule members

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %y = f32[8]{0} sine(%x)
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %y)
}

%member (q: (s32[], f32[8])) -> (s32[], f32[8]) {
  %q = (s32[], f32[8]{0}) parameter(0)
  ROOT %w = (s32[], f32[8]{0}) while(%q), condition=%c, body=%body
}

ENTRY %main (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[], f32[8]{0}) parameter(0)
  ROOT %all = (s32[], f32[8]{0}) while(%a), condition=%c, body=%member, \
backend_config={"known_trip_count":{"n":"3"}}
}
"""
  (kernel,) = kernels.count(hlo.parse(text))
  assert (kernel.kind, kernel.count, kernel.bytes) == ('element-wise', 3, 64)


BRANCHES = """HloModule lazy

%due (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p, %p), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}, operand_precision={highest,highest}
}

%not_due (q: f32[8,8]) -> f32[8,8] {
  %q = f32[8,8]{1,0} parameter(0)
  %c = f32[8,8]{1,0} copy(%q)
  ROOT %e = f32[8,8]{1,0} copy(%c)
}

ENTRY %main (i: s32[], a: f32[8,8]) -> f32[8,8] {
  %i = s32[] parameter(0)
  %a = f32[8,8]{1,0} parameter(1)
  ROOT %b = f32[8,8]{1,0} conditional(%i, %a, %a), \
branch_computations={%not_due, %due}
}
"""


def test_of_a_branch_the_dearer_arm_counts():
  (kernel,) = kernels.count(hlo.parse(BRANCHES))
  assert kernel.kind == 'matrix product'
  assert kernel.flops == 2 * 8**3
  assert kernel.exact


ODD = """HloModule odd

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %s = f32[] add(%x, %y)
}

ENTRY %main (a: f32[8], i: s32[3,1], u: f32[3]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %i = s32[3,1]{1,0} parameter(1)
  %u = f32[3]{0} parameter(2)
  ODDITY
}
"""


def odd(line):
  return hlo.parse(ODD.replace('ODDITY', f'ROOT %it = f32[8]{{0}} {line}'))


@pytest.mark.parametrize(
  'line',
  [
    'scatter(%a, %i, %u), unique_indices=false, to_apply=%add',
    'select-and-scatter(%a, %u, %u), select=%ge, scatter=%add',
  ],
)
def test_scatters_that_add_in_any_order_are_found(line):
  assert kernels.find_scatters(odd(line)) == ['it']


def test_a_scatter_to_places_of_its_own_is_none_of_them():
  line = 'scatter(%a, %i, %u), unique_indices=true, to_apply=%add'
  assert not kernels.find_scatters(odd(line))


@pytest.mark.parametrize(
  'line',
  [
    'custom-call(%a), custom_call_target="xla_ffi_python_gpu_callback"',
    'infeed(%a)',
    'send(%a), channel_id=1, is_host_transfer=true',
  ],
)
def test_transfers_to_the_host_are_found(line):
  assert kernels.find_host_transfers(odd(line)) == ['it']


def test_the_host_is_left_alone_otherwise():
  for name in ('h100', 'h100_2x4', 'v5e_2x4'):
    assert not kernels.find_host_transfers(read(name))
    assert not kernels.find_scatters(read(name))


def test_what_is_no_text_of_a_program_is_refused():
  with pytest.raises(ValueError, match='ENTRY'):
    hlo.parse('module @jit_f {\n}\n')


# Cards.


def kernel(**given):
  base = dict(name='k', kind='element-wise', what='', count=1, bytes=0, flops=0)
  return kernels.Kernel(**(base | given))


def test_a_kernel_takes_what_it_waits_for_longest_and_its_launch():
  card = cards.CARDS['h100']
  moved = kernel(bytes=3352320000, flops=10**6)  # a thousandth of a second's
  assert kernels.seconds(moved, card) == pytest.approx(1e-3 + card.launch)
  works = kernel(kind='convolution', flops=495 * 10**9, bytes=8)
  assert kernels.seconds(works, card) == pytest.approx(1e-3 + card.launch)


def test_peaks_are_those_of_the_type_and_the_precision():
  card = cards.CARDS['a100']
  assert card.peak('bf16', product=True) == 312e12
  assert card.peak('f32', product=True) == 156e12
  assert card.peak('f32', product=True, exact=True) == 19.5e12
  assert card.peak('f32', product=False) == 19.5e12
  assert card.peak('bf16', product=False) == 19.5e12


def test_a_collective_goes_at_the_speed_of_what_it_crosses():
  card, sent = cards.CARDS['h100'], kernel(kind='collective', bytes=45 * 10**8)
  assert kernels.seconds(sent, card) == pytest.approx(1e-2, rel=0.01)
  assert kernels.seconds(sent, card, hosts=2) == pytest.approx(9e-2, rel=0.01)


@pytest.mark.parametrize(
  ('text', 'shape', 'hosts'),
  [
    ('h100', (1, 1), 1),
    ('l4:4', (1, 4), 1),
    ('h200:2x4', (2, 4), 2),
    ('v5e', (1, 1), 1),
    ('v5p:2x2x4', (2, 2, 4), 1),
  ],
)
def test_a_target_is_hosts_and_cards_or_a_slice(text, shape, hosts):
  target = cards.parse_target(text)
  assert (target.shape, target.hosts) == (shape, hosts)


@pytest.mark.parametrize(
  ('text', 'hint'),
  [
    ('h10', 'h100'),
    ('h100:', 'h100:2x4'),
    ('h100:0', 'h100:2x4'),
    ('h100:2x', 'h100:2x4'),
    ('a100:1x2x4', 'hosts x cards'),
    ('v5e:2*4', 'v5e:2x4'),
  ],
)
def test_another_target_is_refused_in_words(text, hint):
  with pytest.raises(ArgumentError, match='compile_for') as refused:
    cards.parse_target(text)
  assert hint in str(refused.value)
