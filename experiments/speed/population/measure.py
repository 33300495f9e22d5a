"""An ablation of `ring` as populations, against a process for each run.

Each part runs commands as a user would and adds the CPU and wall seconds of
their processes, start and compilation included, to `results.json`:

  calm     6 objectives x 3 rates x 16 seeds, by one command
  killed   the same, killed twice (SIGKILL) on the way, and gone on with
  trainer  a process of gan_jax.train for a sample of the runs
  torch    a process of torch_loop.py for a sample of the runs

  python experiments/speed/population/measure.py --part=calm --work=DIR
  python experiments/speed/population/measure.py --part=torch --python=PYTHON
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
FLAGFILE = ROOT / 'experiments' / 'mode_coverage' / 'ring.flags'
OBJECTIVES = (
  'minimax',
  'non_saturating',
  'least_squares',
  'hinge',
  'relativistic',
  'relativistic_average',
)
RATES = ('2e-4', '5e-4', '2e-3')
SEEDS = 16
RUNS = len(OBJECTIVES) * len(RATES) * SEEDS
KILL_AFTER = (48, 144)  # rows of results.csv


def ablation(work: pathlib.Path) -> list[str]:
  """The one command."""
  return [
    sys.executable,
    '-m',
    'gan_jax.ablate',
    f'--workdir={work}',
    f'--flagfile={FLAGFILE}',
    f'--vary=objective={",".join(OBJECTIVES)}',
    f'--vary=lr_g+lr_d={",".join(RATES)}',
    f'--seeds={SEEDS}',
    f'--compilation_cache={work}.xla',
  ]


def finished(process: subprocess.Popen[Any]) -> dict[str, float]:
  """Waits; seconds of CPU of a process, and its exit code."""
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  return {
    'cpu_sec': round(usage.ru_utime + usage.ru_stime, 2),
    'exit': process.returncode,
  }


def timed(words: list[str], environ: dict[str, str]) -> dict[str, float]:
  """Seconds of a command, from start to end."""
  started = time.perf_counter()
  process = subprocess.Popen(words, cwd=ROOT, env=os.environ | environ)
  found = finished(process)
  assert found['exit'] == 0, words
  return found | {'wall_sec': round(time.perf_counter() - started, 2)}


def digest(work: pathlib.Path) -> str:
  """Of results.csv."""
  return hashlib.sha256((work / 'results.csv').read_bytes()).hexdigest()


def calm(work: pathlib.Path) -> dict[str, Any]:
  """Undisturbed, nothing compiled before."""
  found = timed(ablation(work), {})
  return {'runs': RUNS, **found, 'results_sha256': digest(work)}


def rows(work: pathlib.Path) -> int:
  """Runs that have ended."""
  path = work / 'results.csv'
  return path.read_text().count('\n') - 1 if path.is_file() else 0


def killed(work: pathlib.Path) -> dict[str, Any]:
  """SIGKILL in the middle of a program, twice."""
  kills, cpu = [], 0.0
  for after in KILL_AFTER:
    process = subprocess.Popen(ablation(work), cwd=ROOT)
    while rows(work) < after:
      assert process.poll() is None
      time.sleep(0.2)
    program = work / 'programs' / f'{after // 48:03d}' / 'checkpoints'
    while not list(program.glob('?????????')):
      time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    ended = finished(process)
    kills.append({'rows': rows(work), **ended})
    cpu += ended['cpu_sec']
  last = timed(ablation(work), {})
  return {
    'runs': RUNS,
    'kills': kills,
    'cpu_sec': round(cpu + last['cpu_sec'], 2),
    'results_sha256': digest(work),
  }


def sample() -> list[tuple[str, str, int]]:
  """One run of each objective, with rates in turn."""
  return [(o, RATES[i % 3], i) for i, o in enumerate(OBJECTIVES)]


def trainer(work: pathlib.Path) -> list[dict[str, Any]]:
  """A process of our own trainer for each run of the sample, and its scores."""
  found = []
  for objective, rate, seed in sample():
    words = [
      *(sys.executable, '-m', 'gan_jax.train', f'--flagfile={FLAGFILE}'),
      f'--workdir={work}/{objective}',
      f'--objective={objective}',
      f'--lr_g={rate}',
      f'--lr_d={rate}',
      f'--seed={seed}',
      f'--compilation_cache={work}.xla',
      '--noreport',
      '--sample_every=1000000',
    ]
    took = timed(words, {})
    found.append({'objective': objective, 'rate': rate, 'seed': seed, **took})
  return found


def torch(python: str) -> list[dict[str, Any]]:
  """A process of the PyTorch loop for each run of the sample, one thread."""
  found = []
  for objective, rate, seed in sample():
    words = [python, str(HERE / 'torch_loop.py'), objective, rate, str(seed)]
    took = timed(words, {'OMP_NUM_THREADS': '1'})
    found.append({'objective': objective, 'rate': rate, 'seed': seed, **took})
  return found


def main() -> None:
  """Measures one part."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--part', required=True)
  parser.add_argument('--work', type=pathlib.Path)
  parser.add_argument('--python', default=sys.executable)
  options = parser.parse_args()
  parts = {'calm': calm, 'killed': killed, 'trainer': trainer}
  if options.part == 'torch':
    found: Any = torch(options.python)
  else:
    found = parts[options.part](options.work.absolute())
  path = HERE / 'results.json'
  told = json.loads(path.read_text()) if path.is_file() else {}
  told[options.part] = found
  told['cores'] = len(os.sched_getaffinity(0))
  told['platform'] = f'{platform.system()} {platform.machine()}'
  path.write_text(json.dumps(told, indent=2) + '\n')


if __name__ == '__main__':
  main()
