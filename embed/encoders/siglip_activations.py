"""Lay a SigLIP tower's activations out as its matrix products read them; they stay what they are.

transformers hands on two tensors that are transposed views. Everything after them pays for it:

    embeddings     [n, tokens, dim], dim not adjacent in memory. Sums keep that layout, so every layer norm
                   of every layer copies its input first, and the residual sums read across memory.
    pooling head   nn.MultiheadAttention takes [tokens, n, dim]; its projection of keys and values then
                   runs as many small products.

The pooled output differs in its last digits, because its products sum in another order.

SigLIP2-base on two CPU cores: 1.09 times as many images/s, a small tower 1.04 (docs/log.md).
"""

from torch import nn
from transformers.models.siglip.modeling_siglip import (
    SiglipMultiheadAttentionPoolingHead,
    SiglipVisionEmbeddings,
)


def lay_out_activations(tower: nn.Module) -> None:
    """Copy both tensors once, where they arise; other towers than SigLIP's stay as they are."""
    # Lambdas: torch.compile does not see through the shape checks that the tests put around functions.
    for module in tower.modules():
        if isinstance(module, SiglipVisionEmbeddings):
            module.register_forward_hook(lambda _module, _inputs, embeddings: embeddings.contiguous())
        elif isinstance(module, SiglipMultiheadAttentionPoolingHead):
            module.register_forward_pre_hook(
                lambda _module, inputs: inputs[0].transpose(0, 1).contiguous().transpose(0, 1)
            )
