"""softmax(Q K^T) V by torch's fused attention, which wants query, key and value of one width: the value is cut into
C / D heads that share query and key. Q K^T is computed once a head, so this pays where products are cheap: on GPUs in
half precision. Not timed on a GPU yet; on a CPU `tiled` is faster (docs/log.md).
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def fits(query: Tensor, value: Tensor) -> bool:
    """Whether the fused kernels take these widths."""
    return query.shape[2] % 8 == 0 and query.shape[2] <= 256 and value.shape[2] % query.shape[2] == 0


def fused(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Widths must be such that `fits`; raises RuntimeError where no kernel without the N x M map takes them."""
    heads = value.shape[2] // query.shape[2]
    query, key = (x[:, None].expand(-1, heads, -1, -1) for x in (query, key))  # B,h,N,D
    value = value.unflatten(2, (heads, -1)).transpose(1, 2)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out.transpose(1, 2).flatten(2)
