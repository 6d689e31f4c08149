"""Mode plan: whether a config compiles and fits, here or on chips that are not here."""

from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log, memory
from refinenet_jax.assembly.planning import (
    evaluation_programs,
    network_of,
    search,
    step_program,
)
from refinenet_jax.models import count_parameters
from refinenet_jax.planning import targets
from refinenet_jax.planning.page import page
from refinenet_jax.planning.program import plan
from refinenet_jax.planning.search import estimate
from refinenet_jax.provenance import provenance


def run(config: ConfigDict, workdir: epath.Path, topology: str | None) -> None:
    """Prints a page and writes plan.json.

    Args:
        config: what is planned.
        workdir: where plan.json goes.
        topology: chips that are not attached; None: those that are.

    Raises:
        UserError: the chips or their compiler are not there, the devices cannot share
            the batch, or the compiler refuses a program.
    """
    # The seconds that compiling takes are told.
    jax.config.update("jax_enable_compilation_cache", False)
    target = (
        targets.attached(memory.device_bytes())
        if topology is None
        else targets.open_topology(targets.parse(topology))
    )
    files.make_folder(workdir, "--workdir")
    network = network_of(config)
    step = plan(step_program(config, network, target), target, log.waiting)
    # Less than 1 where config.train.row_shards divides pictures.
    batch = config.train.batch_size / len(target.devices)
    evaluation = [
        plan(program, target, log.waiting)
        for program in evaluation_programs(config, network, target)
    ]
    rows = search(config, network, target, log.waiting) if config.plan.search else []
    found: dict[str, Any] = {
        "variant": config.model.variant,
        "dtype": config.model.dtype,
        "parameters": count_parameters(network),
        "platform": target.platform,
        "topology": target.topology,
        "device": target.devices[0].device_kind,
        "devices": len(target.devices),
        "batch_per_device": batch,
        "collective_bytes_per_step": None,
        **step,
        "about_largest_batch_per_device": estimate(step, batch),
        "search": rows,
        "evaluation": evaluation,
        "chip": None if target.chip is None else vars(target.chip),
        "provenance": provenance(),
    }
    log.say(page(found))
    if jax.process_index() == 0:
        files.write_json(workdir / "plan.json", found)
    log.say(f"{workdir / 'plan.json'} holds the same")
