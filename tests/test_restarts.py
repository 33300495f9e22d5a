"""The rule by which jobs go back, and what it reads and keeps."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / 'launch'))
import restarts  # noqa: E402

SCRIPT = ROOT / 'launch' / 'restarts.py'


def judge(attempts, crashes=2, stalls=2):
  """Exit codes of attempts, each with the progress at its end: what comes."""
  history, said = restarts.History(job='1'), []
  for code, progress in attempts:
    history, verdict = restarts.begin(history, stalls)
    if verdict.again:
      seen = history.seen(progress)
      history, verdict = restarts.end(seen, code, crashes, stalls)
    said.append(verdict.code)
  return said


@pytest.mark.parametrize('code', [0, 2, 3])
def test_what_is_final_never_goes_back(code):
  assert judge([(code, 'a')]) == [code]


def test_saved_goes_back_uncounted_while_there_is_progress():
  attempts = [(75, str(i)) for i in range(50)]
  assert judge(attempts) == [75] * 50


def test_crashes_are_counted_though_there_is_progress():
  assert judge([(137, '1'), (75, '2'), (1, '3'), (134, '4')]) == [
    75,
    75,
    75,
    134,
  ]


def test_so_many_restarts_without_a_checkpoint_end():
  assert judge([(75, 'a'), (75, 'a'), (75, 'a'), (75, 'a')]) == [75, 75, 75, 4]
  # A checkpoint makes all well again.
  again = [(75, 'a'), (75, 'a'), (75, 'a'), (75, 'b'), (75, 'b'), (75, 'b')]
  assert judge(again) == [75] * 5 + [75]
  text = restarts.describe_stall(2)
  assert 'time limit' in text and 'compilation cache' in text and '2 ' in text


def test_attempts_that_nobody_judged_count_where_they_stalled():
  """A machine that was lost, or a job that the scheduler killed."""
  history = restarts.History(job='1')
  for _ in range(3):
    history, verdict = restarts.begin(history, 2)
    assert verdict.again
  _, verdict = restarts.begin(history, 2)
  assert (verdict.again, verdict.code) == (False, restarts.STALLED)
  assert restarts.begin(history.seen('more'), 2)[1].again


def saved(folder, *steps):
  for step in steps:
    (folder / 'checkpoints' / f'{step:09d}').mkdir(parents=True)


def test_progress_is_that_of_the_own_share(tmp_path):
  def progress(only=''):
    return restarts.read_progress(tmp_path, only)

  assert progress() == progress('1/2') == ''
  saved(tmp_path, 10)
  one = progress()
  saved(tmp_path, 20)
  (tmp_path / 'checkpoints' / '30.orbax-checkpoint-tmp').mkdir()
  assert progress() != one and '30' not in progress()
  (tmp_path / 'checkpoints' / '000000010').rmdir()  # old ones go
  assert '20' in progress()
  both = progress('1/2'), progress('2/2')
  saved(tmp_path / 'programs' / '001', 5)
  assert progress('1/2') == both[0] and progress('2/2') != both[1]
  both = progress('1/2'), progress('2/2')
  (tmp_path / 'programs' / '000').mkdir()
  (tmp_path / 'programs' / '000' / 'results.json').touch()
  assert progress('1/2') != both[0] and progress('2/2') == both[1]


def test_the_workdir_may_be_in_the_flagfile(tmp_path):
  flagfile = tmp_path / 'a.flags'
  flagfile.write_text('# mine\n--steps=3\n --workdir=w x\n')
  words = [f'--flagfile={flagfile}', '--steps=4']
  assert restarts.flag('workdir', words) == 'w x'
  assert restarts.flag('workdir', [*words, '--workdir', 'v']) == 'v'
  assert restarts.flag('only', words) == ''


def test_the_history_is_of_one_job_and_one_share(tmp_path):
  words = [f'--workdir={tmp_path}/w', '--only=2/3']
  job = restarts.Job('7_2', words)
  history = dataclasses.replace(job.read(), crashes=2)
  job.write(history)
  assert job.path == tmp_path / 'w.restarts-2-of-3.json'
  assert restarts.Job('7_2', words).read() == history
  assert restarts.Job('8_2', words).read().crashes == 0
  assert restarts.Job('7_2', words[:1]).read().crashes == 0
  job.path.write_text('{"crashes"')  # cut short
  assert restarts.Job('7_2', words).read().crashes == 0


def test_of_a_workdir_in_a_store(tmp_path):
  """A local store, as fsspec has one."""
  url = f'local://{tmp_path}/w'
  words = [f'--workdir={url}', '--only=2/3']
  job = restarts.Job('7', words)
  before = job.read()
  for number, step in ((0, 10), (1, 20), (1, 30)):
    folder = tmp_path / 'w' / 'programs' / f'{number:03d}' / 'checkpoints'
    (folder / f'{step:09d}').mkdir(parents=True)
    (folder / f'{step:09d}' / 'd').touch()
    if step < 30:  # which is not whole yet
      (folder / f'{step:09d}.manifest.json').touch()
  history = dataclasses.replace(job.read(), crashes=2)
  assert history.progress == '001:20:0' != before.progress
  job.write(history)
  assert (tmp_path / 'w.restarts-2-of-3.json').is_file()
  assert restarts.Job('7', words).read() == history
  assert restarts.Job('8', words).read().crashes == 0
  assert '000:10:0' in restarts.read_progress(url)


def container(tmp_path, script, *words):
  command = [
    sys.executable,
    str(SCRIPT),
    'run',
    '--job=1',
    '--stalls=1',
    *words,
  ]
  run = [sys.executable, '-c', script, f'--workdir={tmp_path}/w']
  return subprocess.Popen(
    [*command, '--', *run],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_in_a_container_it_hands_on_signals_codes_and_words(tmp_path):
  """Crashes are counted by who starts the container."""
  script = (
    'import os, signal, sys, time\n'
    'signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))\n'
    'print("ready", flush=True)\n'
    'time.sleep(30)\n'
  )
  codes = []
  for _ in range(3):
    process = container(tmp_path, script)
    if process.stdout.readline() == 'ready\n':
      process.send_signal(signal.SIGUSR2)
    codes.append((process.wait(20), process.communicate()[0]))
  assert [code for code, _ in codes] == [75, 4, 4]
  assert 'time limit' in codes[1][1]
  crash = 'import os; os.kill(os.getpid(), 9)'
  (tmp_path / 'w').mkdir()
  saved(tmp_path / 'w', 1)
  process = container(tmp_path, crash)
  assert process.wait(20) == 137
  process.communicate()


def test_of_several_containers_the_first_counts():
  def judges(*words, **environ):
    return restarts.judges(environ, words)

  assert judges() and judges(JOB_COMPLETION_INDEX='0', JOB_INDEX='0')
  assert not judges(JOB_COMPLETION_INDEX='1')
  assert not judges(JOB_COMPLETION_INDEX='0', JOB_INDEX='1')
  # But each task of an ablation is a job of its own.
  assert judges('--only=3/4', JOB_COMPLETION_INDEX='2')


def test_a_job_without_a_workdir_is_refused():
  words = [sys.executable, SCRIPT, 'begin', '--job=1', '--', '--steps=3']
  done = subprocess.run(words, capture_output=True, text=True, env=os.environ)
  assert done.returncode == 2 and '--workdir' in done.stderr
