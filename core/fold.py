"""A network for eval mode alone: its batch norms are folded into the convolutions before them, the same function up to rounding."""

import copy
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.taps import Tapped

_MEMO: WeakKeyDictionary[Tapped, tuple[list[tuple[int, int]], Tapped | None]] = WeakKeyDictionary()


def folded(tapped: Tapped) -> Tapped:
    """The same network in eval mode and without its taps, for whoever asks it often: it answers the same but for rounding, and sooner.

    Made once, and anew where a parameter or a buffer has changed since. A network that `torch.fx` cannot trace, because its course depends
    on values, is given back as it is.
    """
    mark = [(tensor.data_ptr(), tensor._version) for tensor in (*tapped.parameters(), *tapped.buffers())]
    if tapped not in _MEMO or _MEMO[tapped][0] != mark:
        _MEMO[tapped] = mark, _fold(tapped)
    return _MEMO[tapped][1] or tapped


def _fold(tapped: Tapped) -> Tapped | None:
    network = copy.deepcopy(tapped.network).eval().requires_grad_(False)
    for module in network.modules():
        # The hooks of the taps, which would now keep what a fused convolution gives.
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    try:
        traced = fx.symbolic_trace(network)
    except (TraceError, TypeError):
        return None
    modules = dict(traced.named_modules())
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    for before, node in ((source, call) for call in calls for source in call.all_input_nodes if source in calls):
        if len(before.users) > 1 or sum(call.target == before.target for call in calls) > 1:
            continue  # what the convolution gives is wanted elsewhere too, or it is called again
        conv, norm = modules[before.target], modules[node.target]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
            traced.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    # Images come with their channels last; weights that lie so are not turned at every call.
    traced.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own stubs forget it
    made = Tapped(traced).requires_grad_(False).eval()
    made.mean, made.std, made.outputs = tapped.mean, tapped.std, tapped.outputs
    return made
