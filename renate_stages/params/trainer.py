"""The block `trainer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from renate_stages.params.blocks import Block


class TrainerParams(Block):
    """Length of the training, hardware, and data loading."""

    max_epochs: int | None = Field(default=50, ge=1, description="passes over the new data")
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="optimizer steps; training ends at the first limit that is reached",
    )
    threads: int = Field(
        default=1, ge=1, description="CPU threads; another number changes results slightly"
    )
    accelerator: str = Field(default="cpu", description="the accelerator of Lightning's Trainer")
    devices: int = Field(
        default=1,
        ge=1,
        description="devices, with a process each; not `auto`, because the number changes results",
    )
    num_nodes: int = Field(default=1, ge=1, description="machines, each with `devices` devices")
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = Field(
        default="auto", description="Lightning's strategy for several devices; auto: ddp"
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = Field(
        default="32-true",
        description="mixed: the weights stay float32; 64-true: trains in float64; the state is "
        "float32 in any case",
    )
    accumulate_grad_batches: int = Field(
        default=1, ge=1, description="batches whose gradients are averaged for one step"
    )
    gradient_clip_val: float | None = Field(
        default=None, gt=0, description="largest gradient norm, or value, of a step"
    )
    gradient_clip_algorithm: Literal["norm", "value"] = Field(
        default="norm", description="value: gradient_clip_val limits each element of the gradient"
    )
    compile: bool = Field(default=False, description="train with torch.compile")
    deterministic: bool = Field(
        default=True, description="refuse kernels that differ from run to run"
    )
    num_workers: int = Field(default=0, ge=0, description="worker processes that load batches")
    prefetch: int | None = Field(
        default=None,
        ge=0,
        description="steps that a thread loads ahead; none: 2 on a GPU, else 0; results are equal",
    )
    data_on_device: bool = Field(
        default=False, description="store new data and memory on the device during training"
    )
    keep: Literal["last", "best", "auto"] = Field(
        default="last",
        description="epoch whose model is kept; best: the best one on the validation data; auto: "
        "best if there is validation data",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="epochs without a better result on the validation data that end the training",
    )

    @property
    def num_processes(self) -> int:
        """Number of training processes."""
        return self.devices * self.num_nodes

    def on_one_device(self) -> TrainerParams:
        """Return the settings for one process that takes the same steps on whole batches."""
        return self.model_copy(update={"devices": 1, "num_nodes": 1, "strategy": "auto"})

    @field_validator("strategy", mode="before")
    @classmethod
    def _weights_are_whole(cls, strategy: Any) -> Any:
        if str(strategy).startswith(("fsdp", "deepspeed", "model_parallel")):
            raise ValueError(
                f"{strategy} splits the weights among processes, but learners need all weights, "
                "for example for averages, importances and teachers; use ddp"
            )
        return strategy

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerParams:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("max_epochs and max_steps are both null; set at least one of them")
        return self

    @model_validator(mode="after")
    def _reads_in_one_way(self) -> TrainerParams:
        ways = {
            "num_workers": self.num_workers,
            "prefetch": self.prefetch,
            "data_on_device": self.data_on_device,
        }
        given = [f"{name} {str(value).lower()}" for name, value in ways.items() if value]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are mutually exclusive; set only one")
        return self
