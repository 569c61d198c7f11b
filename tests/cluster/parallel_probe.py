"""What a worker of vLLM says of itself: loaded into each of them by `worker_extension_cls`."""

from typing import Any


class Probe:
    """Methods that a worker has beside its own."""

    model_runner: Any

    def lora_operators(self) -> str:
        """The class of the LoRA operators that its layers have."""
        found = {type(one.punica_wrapper).__name__ for one in self._layers()}
        return " ".join(sorted(found))

    def lora_shapes(self) -> dict[str, list[list[int]]]:
        """Of the first layer of each kind: what of an adapter's two matrices this worker holds."""
        shapes: dict[str, list[list[int]]] = {}
        for one in self._layers():
            name = type(one.base_layer).__name__
            matrices = (*one.lora_a_stacked, *one.lora_b_stacked)
            shapes.setdefault(name, [list(each.shape[2:]) for each in matrices])
        return shapes

    def _layers(self) -> list[Any]:
        modules = self.model_runner.model.modules()
        return [one for one in modules if getattr(one, "lora_a_stacked", None)]
