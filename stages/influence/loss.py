"""A student's loss on examples: (Σ nll, tokens) for each row, and the gradient of a weighted sum of rows.

The body runs once over a batch; logits exist only where labels are, some at a time (`head.py`). Sums are
kept, not means: every mean (per token, per row, the papers' batches of 8) follows from them.

Shapes: B rows, T tokens a row, L labels of a batch, D hidden size, R examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.contract.errors import ExitCode, StageError
from stages.influence.apart import Apart, ApartConsumer, apart
from stages.influence.attention import Attention, attention_arguments, require_varlen, use_packed_attention
from stages.influence.examples import Example
from stages.influence.head import HeadShape, cross_entropy, head_gradients, head_of
from stages.influence.lean import use_lean_layers
from stages.influence.matmul import Products, products_in
from stages.influence.packing import Batch, pack, pad
from stages.influence.ranks import Alone, Ranks
from stages.influence.scores import Floats

Consumer = Callable[[str, Tensor | None], None]

# Packed and plain losses of the check below differ by rounding; anything else differs by far more.
_CHECK_TOLERANCE = 1e-3


class StudentLoss:
    """Losses and gradients of a Hugging Face causal LM, whose weights may be exchanged between calls.

    Args:
        model: its parameters stay fp32 while gradients are taken; put into eval mode here (no dropout).
        attention: see attention.py. With `padded` the model's own attention is left in place.
        pack_tokens: tokens of a packed row, or of a padded batch.
        chunk: labels whose logits exist at once: chunk · vocabulary · 4 bytes, with a soft cap three times.
        products: how `sums` multiplies fp32 matrices; see matmul.py.
        gradient_checkpointing: less memory for gradients, a third more time.
        ranks: the processes that the weights are spread over; each has losses and gradients of its own batches.

    Raises:
        StageError: BAD_SETTINGS if the packed losses are not the model's own (foreign attention or head), or if
            `varlen` is asked for where there is no such kernel.
    """

    def __init__(
        self,
        model: Any,
        *,
        attention: Attention = "segments",
        pack_tokens: int = 1024,
        chunk: int = 256,
        products: Products = "fp32",
        gradient_checkpointing: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self.model = model.eval()
        self.ranks = ranks or Alone()
        self.attention = attention
        self.pack_tokens = pack_tokens
        self.chunk = chunk
        self.products: Products = "fp32"
        self.shape = HeadShape.of(model.config)
        self.device = next(model.parameters()).device
        self._consumer: ApartConsumer | None = None
        self._consumed: set[str] = set()
        if attention == "varlen":
            require_varlen(self.device)
        self._check_against_plain_model()
        self.products = products  # from here on: less precise products would differ from the model's own by themselves
        if gradient_checkpointing:
            _checkpoint_layers(model)
        # A row touches few of the vocabulary's embeddings: a dense gradient of them would be mostly zeros. On a GPU
        # these cost nothing, and a sparse one is of no fixed size.
        model.get_input_embeddings().sparse = self.device.type == "cpu"
        named = {id(parameter): name for name, parameter in model.named_parameters()}
        self._head_names = [named[id(parameter)] for parameter in head_of(model) if parameter is not None]
        self._embedding_name = named[id(model.get_input_embeddings().weight)]
        # What waits for the embedding's gradient, if the head is tied to it.
        self._of_head: dict[str, Sequence[Tensor]] = {}
        for name, parameter in model.named_parameters():
            parameter.register_post_accumulate_grad_hook(self._hook(name))

    def batches(
        self, examples: Sequence[Example], *, shuffle: int | None = None, tokens: int | None = None
    ) -> list[Batch]:
        """The examples arranged for this model; `shuffle` and `tokens` arrange the same losses otherwise."""
        arrange = pad if self.attention == "padded" else pack
        return [b.to(self.device) for b in arrange(examples, tokens or self.pack_tokens, shuffle=shuffle)]

    def sums(self, batches: Sequence[Batch], rows: int) -> Floats:
        """Σ nll of each of `rows` examples, float64 [R]; per-token losses are fp32, their sums float64."""
        found: Floats = self.sums_there(batches, rows).cpu().numpy()
        return found

    @torch.no_grad()
    def sums_there(self, batches: Sequence[Batch], rows: int) -> Tensor:
        """`sums`, yet on the model's device."""
        total = torch.zeros(rows, dtype=torch.float64, device=self.device)
        for batch in batches:
            with products_in(self.products, self.device):
                hidden_LD, head = self._hidden(batch), head_of(self.model)
                with self.ranks.gathered(*head):
                    nll_L = cross_entropy(hidden_LD, *head, batch.labels_L, chunk=self.chunk, shape=self.shape)
            total.index_add_(0, batch.row_L, nll_L.double())
        return total

    def gradient(self, batch: Batch, weights_R: Tensor, consume: Consumer) -> Tensor:
        """Gradient of Σ_r weights[r]·Σ nll_r over one batch, handed to `consume` as it appears; returns nll [L].

        `consume(name, gradient)` is called once for each parameter, with None for one that the batch did not
        reach; the gradient is the callee's to keep. So no full gradient exists unless the callee builds one.

        Products are fp32 whatever those of `sums` are: factors rounded to the nearest would take back what a warm-up
        has done to the weights of a released model (dither.py), and the gradient would be that of the model before it.
        """

        def whole(name: str, gradients: Sequence[Tensor | None]) -> None:
            (gradient,) = gradients
            consume(name, gradient)

        return self._backward(batch, weights_R, whole, None)

    def gradients(self, batch: Batch, weights_R: Tensor, consume: ApartConsumer) -> Tensor:
        """`gradient` for each example of a packed row, apart: `consume(name, gradients)` in the row's order.

        Where `apart` is there, and all in one batch. Gradients may be overwritten once `consume` has returned.
        """
        assert self.apart is not None and batch.segments is not None
        labels_E = batch.row_L.unique_consecutive(return_counts=True)[1].tolist()
        with self.apart.taking(batch.segments, self._take):
            return self._backward(batch, weights_R, consume, labels_E, self.apart.words(len(labels_E)))

    def _backward(
        self,
        batch: Batch,
        weights_R: Tensor,
        consume: ApartConsumer,
        labels_E: list[int] | None,
        words_EVD: Tensor | None = None,
    ) -> Tensor:
        self._consumer, self._consumed = consume, set()
        try:
            with torch.enable_grad(), products_in("fp32", self.device):
                hidden_LD = self._hidden(batch)
                head = head_of(self.model)
                with self.ranks.gathered(*head):
                    found = head_gradients(
                        hidden_LD,
                        *head,
                        batch.labels_L,
                        weights_R.to(self.device, torch.float32)[batch.row_L],
                        chunk=self.chunk,
                        shape=self.shape,
                        labels_E=labels_E,
                        into_EVD=words_EVD,
                    )
                nll_L, of_hidden_LD = found.nll_L, found.hidden_LD
                of_head = [list(found.weight_EVD), [] if found.bias_EV is None else list(found.bias_EV)]
                self._of_head = dict(zip(self._head_names, of_head, strict=False))
                del found, of_head
                for name in (name for name in self._head_names if name != self._embedding_name):
                    # At once, not after the body's: nothing is added to it, and it is as large as the embedding's.
                    self._consumed.add(name)
                    consume(name, self._of_head.pop(name))
                if words_EVD is not None:
                    self._of_head.clear()  # apart.py adds the embedding's to it where it lies
                hidden_LD.backward(of_hidden_LD)
                self.ranks.backward_done()
        finally:
            self._consumer = None
        none = [None] * (1 if labels_E is None else len(labels_E))
        for name, _ in self.model.named_parameters():
            if name not in self._consumed:
                consume(name, self._of_head.pop(name, none))
        return nll_L

    def _hidden(self, batch: Batch) -> Tensor:
        attention = self.attention
        if attention == "varlen" and next(self.model.parameters()).dtype == torch.float32:
            attention = "segments"  # the flash kernel has no fp32: gradients, and the check at the start
        hidden_BTD = self.model.base_model(
            input_ids=batch.ids_BT,
            position_ids=batch.positions_BT,
            use_cache=False,
            **attention_arguments(attention, batch.segments, self.device),
        ).last_hidden_state
        return hidden_BTD.flatten(0, 1)[batch.label_index_L]

    def _hook(self, name: str) -> Callable[[Tensor], None]:
        def hand_over(parameter: Tensor) -> None:
            if self._consumer is None:
                return
            gradient, parameter.grad = parameter.grad, None
            self._take(name, [gradient])

        return hand_over

    def _take(self, name: str, gradients: Sequence[Tensor | None]) -> None:
        assert self._consumer is not None
        self._consumed.add(name)
        if of_head := self._of_head.pop(name, None):
            gradients = [one.add_(other) for one, other in zip(of_head, gradients, strict=True)]
        self._consumer(name, [each.to_dense() if each is not None and each.is_sparse else each for each in gradients])

    @cached_property
    def apart(self) -> Apart | None:
        """What `gradients` needs: not over several ranks, nor on padded rows, nor for what apart.py does not know."""
        if self.ranks.count > 1 or self.attention == "padded":
            return None
        return apart(self.model, lambda: self.sums(self.batches(self._trial), len(self._trial)))

    @property
    def _trial(self) -> list[Example]:
        vocabulary = self.model.config.get_text_config().vocab_size
        ids = [(7 * index + 3) % vocabulary for index in range(24)]
        return [Example(tuple(ids[:9]), 2), Example(tuple(ids[9:]), 3)]

    @torch.no_grad()
    def _check_against_plain_model(self) -> None:
        examples = self._trial
        plain = []
        for example in examples:
            # On padded rows the model's own attention needs no arguments: this is the model as its authors
            # wrote it.
            logits_TV = (
                self.model(torch.tensor([example.ids[:-1]], device=self.device), use_cache=False).logits[0].float()
            )
            labels = torch.tensor(example.ids[1:], device=self.device)
            nll = torch.nn.functional.cross_entropy(logits_TV, labels, reduction="none")
            plain.append(nll[example.labels_from - 1 :].double().sum().item())
        if self.attention != "padded":
            use_packed_attention(self.model)
        use_lean_layers(self.model)
        ours = self.sums(self.batches(examples), len(examples))
        if not np.allclose(ours, plain, rtol=_CHECK_TOLERANCE, equal_nan=True):
            raise StageError(
                f"{type(self.model).__name__}: losses {ours.tolist()} are not the model's own {plain}",
                code=ExitCode.BAD_SETTINGS,
                hint="set attention: padded" if self.attention != "padded" else "this model's head is not supported",
            )


def _checkpoint_layers(model: Any) -> None:
    """Layers keep their inputs only and are computed again in the backward pass."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            # transformers checkpoints where `training` is set; the parts of the layer stay in eval mode (no dropout).
            module.training = True


def not_finite(row: int) -> StageError:
    """For a reference row whose loss at the checkpoint is NaN or infinite: no score could be finite."""
    return StageError(
        "the loss at the checkpoint is NaN or infinite",
        code=ExitCode.BAD_DATA,
        where=f"reference row at index {row}",
        hint="look at the warm-up's losses and learning rate",
    )
