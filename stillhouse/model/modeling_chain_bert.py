# SPDX-License-Identifier: Apache-2.0
"""BERT as a chain of operations: every layer is attention, feed-forward or a separable convolution.

This file is complete in itself. It travels in every checkpoint that needs it, and loads there with
`trust_remote_code=True` without the package that wrote it.

A chain is made of blocks. All operations of a block have one hidden size; linear bridges lead from
one width to the next. Every operation adds to the residual stream and normalises the sum. Padding
reaches no token: attention does not look at it, and convolutions read zeros in its place.

There is no buffer in it: transformers builds models without memory, and a buffer that is in no
checkpoint would come back as garbage. No class has "Attention" in its name: transformers would take
that for a promise to use its own attention interface.

Letters in names: B batch, T tokens, D hidden, H heads, K head size, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

KERNELS = {"S3": 3, "S5": 5, "S7": 7}
"""Tokens that a separable convolution of each name spans."""

OPERATIONS = ("M", "F", *KERNELS)
"""Attention (many heads), feed-forward, convolutions."""


class ChainBertConfig(PretrainedConfig):  # type: ignore[misc]  # untyped in transformers
    """What a chain is made of.

    Args:
        embedding_size: Width of the embeddings, and of the masked-word head before its decoder.
        blocks: `hidden_size` and names of the `operations` of each block, first to last.
        head_size: Width of one attention head; it divides the width of blocks with attention.
        ffn_ratio: Width inside feed-forward operations in multiples of the hidden size.
        position_offset: Position of the first token; 0 for BERT, `pad_token_id + 1` for RoBERTa.
        type_vocab_size: Kinds of segments; 0 for none.

    All other arguments are those of `BertConfig`.

    Raises:
        ValueError: If there is no block, a block has no operation, an operation is unknown, or a
            width with attention is no multiple of the head size.
    """

    model_type = "chain_bert"

    def __init__(
        self,
        vocab_size: int = 30522,
        embedding_size: int = 128,
        blocks: Sequence[Mapping[str, Any]] = ({"hidden_size": 256, "operations": ["M", "F"]},),
        head_size: int = 64,
        ffn_ratio: int = 4,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int | None = 0,
        classifier_dropout: float | None = None,
        position_offset: int = 0,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        """Keeps the arguments; unknown ones go to transformers."""
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.blocks = _checked(blocks, head_size)
        self.head_size = head_size
        self.ffn_ratio = ffn_ratio
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.classifier_dropout = classifier_dropout
        self.position_offset = position_offset
        shared = {"pad_token_id": pad_token_id, "tie_word_embeddings": tie_word_embeddings}
        super().__init__(**{**shared, **kwargs})

    @property
    def hidden_size(self) -> int:
        """Width of the last block, and so of the output."""
        size: int = self.blocks[-1]["hidden_size"]
        return size

    @property
    def num_hidden_layers(self) -> int:
        """Operations of all blocks together."""
        return sum(len(block["operations"]) for block in self.blocks)


def _checked(blocks: Sequence[Mapping[str, Any]], head_size: int) -> list[dict[str, Any]]:
    """Returns the blocks as plain data if a model can be built of them."""
    if not blocks:
        raise ValueError("a chain has at least one block, got none")
    for block in blocks:
        width, operations = block["hidden_size"], block["operations"]
        if not operations or not set(operations) <= set(OPERATIONS):
            raise ValueError(
                f"a block is made of one or more of {', '.join(OPERATIONS)}, got {operations!r}"
            )
        if "M" in operations and width % head_size:
            raise ValueError(
                f"the width of a block with attention is a multiple of the head size {head_size}, "
                f"got {width}"
            )
    return [
        {"hidden_size": block["hidden_size"], "operations": list(block["operations"])}
        for block in blocks
    ]


class ChainBertEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__()
        width, types = config.embedding_size, config.type_vocab_size
        self.position_offset = config.position_offset
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(types, width) if types else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        tokens, device = inputs_embeds.shape[1], inputs_embeds.device
        if position_ids is None:
            position_ids = torch.arange(tokens, device=device)[None] + self.position_offset
        summed_BTD = inputs_embeds + self.position_embeddings(position_ids)
        if self.token_type_embeddings is not None:
            if token_type_ids is None:
                token_type_ids = torch.zeros((1, tokens), dtype=torch.long, device=device)
            summed_BTD = summed_BTD + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(summed_BTD))


class ChainMixing(nn.Module):
    """Self-attention; heads × head size is the hidden size."""

    def __init__(self, hidden_size: int, config: ChainBertConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        query_BHTK, key_BHTK, value_BHTK = (
            project(hidden_BTD).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        context_BHTK = F.scaled_dot_product_attention(
            query_BHTK,
            key_BHTK,
            value_BHTK,
            attn_mask=None if mask_BT is None else mask_BT[:, None, None, :].bool(),
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self.output(context_BHTK.transpose(1, 2).flatten(2))


class ChainFeedForward(nn.Module):
    """Each token by itself, through a wider layer."""

    def __init__(self, hidden_size: int, config: ChainBertConfig) -> None:
        super().__init__()
        self.intermediate = nn.Linear(hidden_size, config.ffn_ratio * hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(config.ffn_ratio * hidden_size, hidden_size)

    def forward(self, hidden_BTD: Tensor, _mask_BT: Tensor | None) -> Tensor:
        return self.output(self.activation(self.intermediate(hidden_BTD)))


class ChainDepthwise(nn.Conv1d):
    """One kernel per feature along the tokens, over `[B, T, D]`."""

    def __init__(self, hidden_size: int, kernel: int) -> None:
        super().__init__(
            hidden_size, hidden_size, kernel, padding=kernel // 2, groups=hidden_size, bias=False
        )

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        # As an image of height 1 with the features last, nothing is copied: on a CPU this takes a
        # fifth to two thirds of the time of `conv1d` between two transpositions.
        image_BD1T = hidden_BTD.unsqueeze(1).permute(0, 3, 1, 2)
        summed_BD1T = F.conv2d(
            image_BD1T, self.weight.unsqueeze(2), padding=(0, *self.padding), groups=self.groups
        )
        return summed_BD1T.permute(0, 2, 3, 1).squeeze(1)


class ChainConvolution(nn.Module):
    """ReLU, a convolution of each feature by itself, and a projection that mixes the features."""

    def __init__(self, hidden_size: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = ChainDepthwise(hidden_size, kernel)
        self.pointwise = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        active_BTD = F.relu(hidden_BTD)
        if mask_BT is not None:
            active_BTD = active_BTD.masked_fill(~mask_BT[:, :, None].bool(), 0.0)
        return self.pointwise(self.depthwise(active_BTD))


class ChainConvolutions(nn.Module):
    """Two separable convolutions with a normalisation between them."""

    def __init__(self, hidden_size: int, kernel: int, config: ChainBertConfig) -> None:
        super().__init__()
        self.first = ChainConvolution(hidden_size, kernel)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.second = ChainConvolution(hidden_size, kernel)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        return self.second(self.LayerNorm(self.first(hidden_BTD, mask_BT)), mask_BT)


class ChainOperation(nn.Module):
    """One layer of a chain: an operation, its way back into the residual stream, and the norm.

    Args:
        operation: `"M"`, `"F"`, `"S3"`, `"S5"` or `"S7"`.
        hidden_size: Width before and after.
        config: Head size, feed-forward ratio, activation, dropouts and epsilon; its blocks and
            widths play no part.
    """

    def __init__(self, operation: str, hidden_size: int, config: ChainBertConfig) -> None:
        super().__init__()
        self.inner = _inner(operation, hidden_size, config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Transforms hidden states; the mask is 1 (true) at tokens, 0 at padding."""
        return self.LayerNorm(hidden_BTD + self.dropout(self.inner(hidden_BTD, mask_BT)))


def _inner(operation: str, hidden_size: int, config: ChainBertConfig) -> nn.Module:
    _checked([{"hidden_size": hidden_size, "operations": [operation]}], config.head_size)
    if operation == "M":
        return ChainMixing(hidden_size, config)
    if operation == "F":
        return ChainFeedForward(hidden_size, config)
    return ChainConvolutions(hidden_size, KERNELS[operation], config)


class ChainBertBlock(nn.Module):
    """Operations of one width, behind a bridge where what comes in has another."""

    def __init__(
        self, input_size: int, hidden_size: int, operations: Sequence[str], config: ChainBertConfig
    ) -> None:
        super().__init__()
        is_bridged = input_size != hidden_size
        self.bridge = nn.Linear(input_size, hidden_size) if is_bridged else None
        self.operation = nn.ModuleList(
            ChainOperation(operation, hidden_size, config) for operation in operations
        )

    def forward(
        self, hidden_BTD: Tensor, mask_BT: Tensor | None = None, states: list[Tensor] | None = None
    ) -> Tensor:
        """Transforms hidden states; what each operation gives is appended to `states`."""
        if self.bridge is not None:
            hidden_BTD = self.bridge(hidden_BTD)
        for operation in self.operation:
            hidden_BTD = operation(hidden_BTD, mask_BT)
            if states is not None:
                states.append(hidden_BTD)
        return hidden_BTD


class ChainBertEncoder(nn.Module):
    """All blocks."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__()
        widths = [block["hidden_size"] for block in config.blocks]
        self.block = nn.ModuleList(
            ChainBertBlock(before, block["hidden_size"], block["operations"], config)
            for before, block in zip([config.embedding_size, *widths], config.blocks, strict=False)
        )


class ChainBertPooler(nn.Module):
    """The first token's state, projected."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden_BTD[:, 0]))


class ChainBertPreTrainedModel(PreTrainedModel):
    """What all models of this file share."""

    config_class = ChainBertConfig
    base_model_prefix = "bert"
    _supports_sdpa = True
    _no_split_modules = ["ChainBertEmbeddings", "ChainOperation"]  # noqa: RUF012  its type there

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ChainDepthwise):  # few inputs each: keep the size of what they add
            nn.init.normal_(module.weight, std=module.kernel_size[0] ** -0.5)


class ChainBertModel(ChainBertPreTrainedModel):
    """The bare encoder with its pooler."""

    def __init__(self, config: ChainBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = ChainBertEmbeddings(config)
        self.encoder = ChainBertEncoder(config)
        self.pooler = ChainBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = value  # type: ignore[assignment]  # always an Embedding

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: object,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Encodes; masks are `[B, T]` with 1 at tokens. Attention weights are never given back."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        config = self.config
        with_states = (
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        as_dict = config.return_dict if return_dict is None else return_dict
        hidden_BTD = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        states = [hidden_BTD] if with_states else None
        for block in self.encoder.block:
            hidden_BTD = block(hidden_BTD, attention_mask, states)
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden_BTD,
            pooler_output=None if self.pooler is None else self.pooler(hidden_BTD),
            hidden_states=None if states is None else tuple(states),
        )
        return output if as_dict else output.to_tuple()


class _WithHead(ChainBertPreTrainedModel):
    """A bare encoder and what stands on it."""

    pools = False

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__(config)
        self.bert = ChainBertModel(config, add_pooling_layer=self.pools)

    def _encode(
        self, return_dict: bool | None, inputs: dict[str, object]
    ) -> tuple[BaseModelOutputWithPooling, bool]:
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return self.bert(return_dict=True, **inputs), bool(as_dict)


def _classifier(config: ChainBertConfig) -> tuple[nn.Dropout, nn.Linear]:
    probability = config.classifier_dropout
    probability = config.hidden_dropout_prob if probability is None else probability
    return nn.Dropout(probability), nn.Linear(config.hidden_size, config.num_labels or 1)


class ChainBertForSequenceClassification(_WithHead):
    """Classes, sets of classes or a score of a text or a pair."""

    pools = True

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.dropout, self.classifier = _classifier(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Classifies; `labels` are classes `[B]`, sets `[B, C]` or scores `[B]`."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            **kwargs,
        }
        encoded, as_dict = self._encode(return_dict, inputs)
        logits_BC = self.classifier(self.dropout(encoded.pooler_output))
        output = SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits_BC, labels),
            logits=logits_BC,
            hidden_states=encoded.hidden_states,
        )
        return output if as_dict else output.to_tuple()

    def _loss(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        kind = self.config.problem_type
        if kind == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits_BC, labels.to(logits_BC.dtype))
        if kind == "regression" or (kind is None and self.num_labels == 1):
            return F.mse_loss(logits_BC.squeeze(-1), labels.to(logits_BC.dtype))
        return F.cross_entropy(logits_BC, labels)


class ChainBertForTokenClassification(_WithHead):
    """A class for every token."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.dropout, self.classifier = _classifier(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Classifies tokens; `labels` are `[B, T]`, −100 where there is none."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            **kwargs,
        }
        encoded, as_dict = self._encode(return_dict, inputs)
        logits_BTC = self.classifier(self.dropout(encoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None
            if labels is None
            else F.cross_entropy(logits_BTC.flatten(0, 1), labels.flatten()),
            logits=logits_BTC,
            hidden_states=encoded.hidden_states,
        )
        return output if as_dict else output.to_tuple()


class ChainBertForQuestionAnswering(_WithHead):
    """Start and end of an answer in a text."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Finds answers; positions `[B]` beyond the text do not count."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            **kwargs,
        }
        encoded, as_dict = self._encode(return_dict, inputs)
        start_BT, end_BT = self.qa_outputs(encoded.last_hidden_state).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            beyond = start_BT.shape[1]
            loss = (
                F.cross_entropy(start_BT, start_positions.clamp(0, beyond), ignore_index=beyond)
                + F.cross_entropy(end_BT, end_positions.clamp(0, beyond), ignore_index=beyond)
            ) / 2
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_BT.contiguous(),
            end_logits=end_BT.contiguous(),
            hidden_states=encoded.hidden_states,
        )
        return output if as_dict else output.to_tuple()


class ChainBertTransform(nn.Module):
    """From the last hidden state back to the width of the embeddings."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden_BTD)))


class ChainBertPredictions(nn.Module):
    """Scores of every word of the vocabulary."""

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__()
        self.transform = ChainBertTransform(config)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden_BTD))


class ChainBertForMaskedLM(_WithHead):
    """Masked words; the decoder is tied to the word embeddings."""

    _tied_weights_keys = {  # noqa: RUF012  transformers' name and type
        "predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: ChainBertConfig) -> None:
        super().__init__(config)
        self.predictions = ChainBertPredictions(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.predictions.decoder = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: object,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Scores words; `labels` are `[B, T]`, −100 where nothing is masked."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            **kwargs,
        }
        encoded, as_dict = self._encode(return_dict, inputs)
        logits_BTV = self.predictions(encoded.last_hidden_state)
        output = MaskedLMOutput(
            loss=None
            if labels is None
            else F.cross_entropy(logits_BTV.flatten(0, 1), labels.flatten()),
            logits=logits_BTV,
            hidden_states=encoded.hidden_states,
        )
        return output if as_dict else output.to_tuple()
