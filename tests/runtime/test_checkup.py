"""What the doctor finds out about the device."""

from types import SimpleNamespace

import pytest

from gan_jax.runtime import checkup


@pytest.mark.parametrize(
  ('kind', 'rate', 'told', 'remedy'),
  [
    ('NVIDIA H100 80GB HBM3', 247.5e12, '50% of the peak of NVIDIA H100', ''),
    ('NVIDIA H100 80GB HBM3', 20e12, '4% of the peak', 'nvidia-smi'),
    ('TPU v5 lite', 1e12, '1% of the peak of TPU v5e', 'uses the chip'),
    ('cpu', 1e9, '1 GFLOP/s on one device', ''),
  ],
)
def test_a_rate_is_held_against_the_data_sheet(
  kind, rate, told, remedy, monkeypatch
):
  device = SimpleNamespace(device_kind=kind)
  monkeypatch.setattr(checkup.jax, 'local_devices', lambda: [device])
  found = checkup._judge('matrix product', rate)
  assert told in found.told
  assert remedy in found.remedy and bool(remedy) == bool(found.remedy)
