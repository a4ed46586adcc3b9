"""Models: the base class, and reference models. Needs only torch, which is imported at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PLACES = {
    "FTTransformer": "ft_transformer",
    "GrowingEmbedding": "growing_embedding",
    "MLP": "mlp",
    "RenateModule": "module",
    "RenateWrapper": "module",
    "ResNet18": "resnet",
    "SmallCNN": "cnn",
    "TabularMLP": "tabular_mlp",
    "TextCNN": "text_cnn",
    "TextGRU": "text_gru",
    "TextTransformer": "text_transformer",
    "unwrap": "module",
    "use_continual_norm": "continual_norm",
}
__all__ = [*_PLACES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from renate_stages.models.cnn import SmallCNN as SmallCNN
    from renate_stages.models.continual_norm import use_continual_norm as use_continual_norm
    from renate_stages.models.ft_transformer import FTTransformer as FTTransformer
    from renate_stages.models.growing_embedding import GrowingEmbedding as GrowingEmbedding
    from renate_stages.models.mlp import MLP as MLP
    from renate_stages.models.module import RenateModule as RenateModule
    from renate_stages.models.module import RenateWrapper as RenateWrapper
    from renate_stages.models.module import unwrap as unwrap
    from renate_stages.models.resnet import ResNet18 as ResNet18
    from renate_stages.models.tabular_mlp import TabularMLP as TabularMLP
    from renate_stages.models.text_cnn import TextCNN as TextCNN
    from renate_stages.models.text_gru import TextGRU as TextGRU
    from renate_stages.models.text_transformer import TextTransformer as TextTransformer


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
