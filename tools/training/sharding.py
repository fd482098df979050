"""A base that is divided among the processes which train together (FSDP2), for one that no device holds whole."""

from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from agent.errors import BadInput


def shard(base: PreTrainedModel, device: str) -> None:
    """Divide the base's weights, layer by layer: each process keeps its part of every weight, on its device.

    A layer is whole there only while it is run, forward or backward; embeddings and head are so from the first pass
    on. All processes have to run every pass together. Adapters that are attached later stay whole.

    Args:
        base: in the host's memory. What safetensors have read, processes of one machine share there; where weights were
            brought to another type than the file's, each has a copy until it has taken its parts.
        device: cpu or cuda.

    Raises:
        BadInput: the model does not say what its layers are.
    """
    kinds = set(base._no_split_modules or ())
    layers = [module for module in base.modules() if type(module).__name__ in kinds]
    if not layers:
        raise BadInput(f"shard: {type(base).__name__} does not say what its layers are; set shard: false")
    base.requires_grad_(False)  # before: peft would freeze only the weights that are whole at that moment
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    for layer in reversed(layers):  # one that stands inside another comes first
        fully_shard(layer, mesh=mesh)
    fully_shard(base, mesh=mesh)
