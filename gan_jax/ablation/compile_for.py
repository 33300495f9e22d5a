"""The largest program of an ablation, compiled for devices not at hand."""

import dataclasses
from typing import Any

import jax

from gan_jax.ablation import folder
from gan_jax.ablation.plan import AblationPlan
from gan_jax.ablation.population_run import members_of_program
from gan_jax.runtime import topology
from gan_jax.runtime.cards import Target, parse_target
from gan_jax.training import compile_for
from gan_jax.training import setup as setup_lib
from gan_jax.training.population_program import PopulationProgram
from gan_jax.training.setup import Setup


def compile_plan(plan: AblationPlan, text: str, out: str = '') -> int:
  """Compiles the program that moves the most bytes, as the command does.

  Args:
    plan: of the ablation.
    text: of the target; of several hosts, each has a share of the runs.
    out: file of the JSON; empty for one in the workdir.

  Returns:
    0 if it fits, 1 if it does not.

  Raises:
    ArgumentError, DataError: naming what is of no use.
  """
  target = parse_target(text)
  place = compile_for.place_of(plan.base.workdir, target, out)
  topology.use_no_device()
  hosts = _devices_by_host(target)
  plan, devices = folder.decide_split(plan, len(hosts)), hosts[0]
  setups = {n: _build(plan, n) for n in plan.chosen_programs()}
  number = max(setups, key=lambda n: _weigh(plan, n, setups[n]))
  members = members_of_program(plan, number)
  layout = plan.options.layout
  program = PopulationProgram(setups[number], members, devices, layout)
  facts = compile_for.examine(
    lambda: compile_for.lower_population(program),
    target,
    setups[number].config,
  )
  labels = {plan.cells[m.cell].label for m in plan.programs[number]}
  facts |= {
    'program': number + 1,
    'programs': len(plan.programs),
    'cells': sorted(labels),
    'members': len(members),
    'layout': program.layout,
  }
  print(
    f'program {number + 1} of {len(plan.programs)}: {len(members)} runs'
    f' ({"; ".join(sorted(labels)) or "one cell"}), layout {program.layout}'
  )
  return compile_for.report(facts, place)


def _devices_by_host(target: Target) -> list[list[Any]]:
  """Those of each host, as a program has them."""
  hosts: dict[int, list[Any]] = {}
  for device in topology.make_mesh(target).devices.flat:
    hosts.setdefault(device.process_index, []).append(device)
  return [*hosts.values()]


def _build(plan: AblationPlan, number: int) -> Setup:
  spec = plan.spec_of(number)
  return setup_lib.build(
    dataclasses.replace(spec.config, devices=0),
    spec.objects,
    dataset=plan.load_dataset(spec.config),
    trainer=spec.trainer,
    devices=1,
  )


def _weigh(plan: AblationPlan, number: int, setup: Setup) -> float:
  """Bytes that one step of all members moves, before XLA has fused it."""
  real = setup.real_shapes()
  lowered = jax.jit(setup.trainer.step).lower(setup.shapes, real)
  cost: Any = lowered.cost_analysis()
  return len(plan.programs[number]) * float(cost['bytes accessed'])


__all__ = ['compile_plan']
