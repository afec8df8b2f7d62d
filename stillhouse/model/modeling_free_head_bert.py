# SPDX-License-Identifier: Apache-2.0
"""BERT whose attention is as wide as it likes: heads × head size need not be the hidden size.

This file is complete in itself. It travels in every checkpoint that needs it, and loads there with
`trust_remote_code=True` without the package that wrote it. Parameters have the names and meanings
of transformers' BERT, and with heads × head size = hidden size the outputs are BERT's.

There is no buffer in it: transformers builds models without memory, and a buffer that is in no
checkpoint would come back as garbage. Positions are computed where they are used.

Letters in names: B batch, T tokens, D hidden, H heads, K head size, C classes, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class FreeHeadBertConfig(PretrainedConfig):  # type: ignore[misc]  # untyped in transformers
    """BERT's configuration and the size of a head.

    Args:
        head_size: Width of one attention head.
        position_offset: Position of the first token; 0 for BERT, `pad_token_id + 1` for RoBERTa.

    All other arguments are those of `BertConfig`.
    """

    model_type = "free_head_bert"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        head_size: int = 64,
        intermediate_size: int = 3072,
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
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.head_size = head_size
        self.intermediate_size = intermediate_size
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


class FreeHeadBertEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.position_offset = config.position_offset
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
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
        if token_type_ids is None:
            token_type_ids = torch.zeros((1, tokens), dtype=torch.long, device=device)
        summed_BTD = (
            inputs_embeds
            + self.token_type_embeddings(token_type_ids)
            + self.position_embeddings(position_ids)
        )
        return self.dropout(self.LayerNorm(summed_BTD))


class FreeHeadBertHeads(nn.Module):
    """Attention over heads × head size features, whatever the hidden size.

    It is PyTorch's own, plain products (`eager`), or any function that was registered with
    transformers' `AttentionInterface` under another name. Attention weights are appended to
    `attentions` where the caller gives a list; PyTorch's own has none, so plain products stand in.

    Neither this class nor its wrapper has "Attention" in its name: transformers would take that for
    a promise to use its own attention functions under all names, and not let one be chosen.
    """

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.config = config
        self.head_size = config.head_size
        width = config.num_attention_heads * config.head_size
        self.query = nn.Linear(config.hidden_size, width)
        self.key = nn.Linear(config.hidden_size, width)
        self.value = nn.Linear(config.hidden_size, width)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self,
        hidden_BTD: Tensor,
        mask_B11T: Tensor | None,
        attentions: list[Tensor] | None,
    ) -> Tensor:
        query_BHTK, key_BHTK, value_BHTK = (
            project(hidden_BTD).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        heads = query_BHTK, key_BHTK, value_BHTK
        dropout = self.dropout.p if self.training else 0.0
        name = self.config._attn_implementation
        if name not in ("eager", "sdpa"):
            context_BTHK, attention_BHTT = ALL_ATTENTION_FUNCTIONS[name](
                self,
                *heads,
                _added(mask_B11T, hidden_BTD.dtype),
                dropout=dropout,
                scaling=self.head_size**-0.5,
            )
        elif attentions is not None or name == "eager":
            context_BTHK, attention_BHTT = _plain_attention(*heads, mask_B11T, dropout)
        else:
            context_BHTK = F.scaled_dot_product_attention(
                *heads, attn_mask=mask_B11T, dropout_p=dropout
            )
            return context_BHTK.transpose(1, 2).flatten(2)
        if attentions is not None:
            attentions.append(attention_BHTT)
        return context_BTHK.flatten(2)


def _plain_attention(
    query_BHTK: Tensor,
    key_BHTK: Tensor,
    value_BHTK: Tensor,
    mask_B11T: Tensor | None,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Returns context `[B, T, H, K]` and attention weights `[B, H, T, T]`."""
    scores_BHTT = query_BHTK @ key_BHTK.transpose(-1, -2) * query_BHTK.shape[-1] ** -0.5
    if mask_B11T is not None:
        scores_BHTT = scores_BHTT.masked_fill(~mask_B11T, torch.finfo(scores_BHTT.dtype).min)
    attention_BHTT = scores_BHTT.softmax(dim=-1)
    context_BHTK = F.dropout(attention_BHTT, dropout) @ value_BHTK
    return context_BHTK.transpose(1, 2), attention_BHTT


def _added(mask_B11T: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Makes what is added to scores of a mask of what may be read."""
    if mask_B11T is None:
        return None
    zero_B11T = torch.zeros_like(mask_B11T, dtype=dtype)
    return zero_B11T.masked_fill(~mask_B11T, torch.finfo(dtype).min)


class FreeHeadBertResidual(nn.Module):
    """A projection back to the hidden size, added to the residual stream and normalised."""

    def __init__(self, width: int, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner: Tensor, residual_BTD: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(inner)) + residual_BTD)


class FreeHeadBertMixing(nn.Module):
    """Self-attention and its way back into the residual stream."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.self = FreeHeadBertHeads(config)
        self.output = FreeHeadBertResidual(config.num_attention_heads * config.head_size, config)

    def forward(
        self,
        hidden_BTD: Tensor,
        mask_B11T: Tensor | None,
        attentions: list[Tensor] | None,
    ) -> Tensor:
        return self.output(self.self(hidden_BTD, mask_B11T, attentions), hidden_BTD)


class FreeHeadBertIntermediate(nn.Module):
    """First half of the feed-forward block."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.activation(self.dense(hidden_BTD))


class FreeHeadBertLayer(nn.Module):
    """One encoder layer."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.attention = FreeHeadBertMixing(config)
        self.intermediate = FreeHeadBertIntermediate(config)
        self.output = FreeHeadBertResidual(config.intermediate_size, config)

    def forward(
        self,
        hidden_BTD: Tensor,
        mask_B11T: Tensor | None = None,
        attentions: list[Tensor] | None = None,
    ) -> Tensor:
        attended_BTD = self.attention(hidden_BTD, mask_B11T, attentions)
        return self.output(self.intermediate(attended_BTD), attended_BTD)


class FreeHeadBertEncoder(nn.Module):
    """All encoder layers."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        layers = [FreeHeadBertLayer(config) for _ in range(config.num_hidden_layers)]
        self.layer = nn.ModuleList(layers)


class FreeHeadBertPooler(nn.Module):
    """The first token's state, projected."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden_BTD[:, 0]))


class FreeHeadBertPreTrainedModel(PreTrainedModel):
    """What all models of this file share."""

    config_class = FreeHeadBertConfig
    base_model_prefix = "bert"
    _supports_sdpa = True
    _no_split_modules = ["FreeHeadBertEmbeddings", "FreeHeadBertLayer"]  # noqa: RUF012  its type there


@dataclass
class _Asked:
    """What a caller wants back beside the last hidden state."""

    hidden_states: bool
    attentions: bool
    as_dict: bool


class FreeHeadBertModel(FreeHeadBertPreTrainedModel):
    """The bare encoder with its pooler."""

    def __init__(
        self,
        config: FreeHeadBertConfig,
        add_pooling_layer: bool = True,
    ) -> None:
        super().__init__(config)
        self.embeddings = FreeHeadBertEmbeddings(config)
        self.encoder = FreeHeadBertEncoder(config)
        self.pooler = FreeHeadBertPooler(config) if add_pooling_layer else None
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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: object,
    ) -> BaseModelOutputWithPooling | tuple[Tensor, ...]:
        """Encodes; masks are `[B, T]` with 1 at tokens."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        asked = self._asked(output_hidden_states, output_attentions, return_dict)
        hidden_BTD = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        mask_B11T = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        states = [hidden_BTD]
        attentions: list[Tensor] | None = [] if asked.attentions else None
        for layer in self.encoder.layer:
            hidden_BTD = layer(hidden_BTD, mask_B11T, attentions)
            states.append(hidden_BTD)
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden_BTD,
            pooler_output=None if self.pooler is None else self.pooler(hidden_BTD),
            hidden_states=tuple(states) if asked.hidden_states else None,
            attentions=None if attentions is None else tuple(attentions),
        )
        return output if asked.as_dict else output.to_tuple()

    def _asked(
        self, hidden_states: bool | None, attentions: bool | None, as_dict: bool | None
    ) -> _Asked:
        config = self.config
        return _Asked(
            hidden_states=bool(
                config.output_hidden_states if hidden_states is None else hidden_states
            ),
            attentions=bool(config.output_attentions if attentions is None else attentions),
            as_dict=bool(config.return_dict if as_dict is None else as_dict),
        )


class _WithHead(FreeHeadBertPreTrainedModel):
    """A bare encoder and what stands on it."""

    pools = False

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__(config)
        self.bert = FreeHeadBertModel(config, add_pooling_layer=self.pools)

    def _encode(
        self, return_dict: bool | None, inputs: dict[str, object]
    ) -> tuple[BaseModelOutputWithPooling, bool]:
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return self.bert(return_dict=True, **inputs), bool(as_dict)


def _classifier(config: FreeHeadBertConfig) -> tuple[nn.Dropout, nn.Linear]:
    probability = config.classifier_dropout
    probability = config.hidden_dropout_prob if probability is None else probability
    return nn.Dropout(probability), nn.Linear(config.hidden_size, config.num_labels or 1)


class FreeHeadBertForSequenceClassification(_WithHead):
    """Classes, sets of classes or a score of a text or a pair."""

    pools = True

    def __init__(self, config: FreeHeadBertConfig) -> None:
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
            attentions=encoded.attentions,
        )
        return output if as_dict else output.to_tuple()

    def _loss(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        kind = self.config.problem_type
        if kind == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits_BC, labels.to(logits_BC.dtype))
        if kind == "regression" or (kind is None and self.num_labels == 1):
            return F.mse_loss(logits_BC.squeeze(-1), labels.to(logits_BC.dtype))
        return F.cross_entropy(logits_BC, labels)


class FreeHeadBertForTokenClassification(_WithHead):
    """A class for every token."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
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
            attentions=encoded.attentions,
        )
        return output if as_dict else output.to_tuple()


class FreeHeadBertForQuestionAnswering(_WithHead):
    """Start and end of an answer in a text."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
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
            attentions=encoded.attentions,
        )
        return output if as_dict else output.to_tuple()


class FreeHeadBertTransform(nn.Module):
    """What stands between the last hidden state and the vocabulary."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden_BTD)))


class FreeHeadBertPredictions(nn.Module):
    """Scores of every word of the vocabulary."""

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__()
        self.transform = FreeHeadBertTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden_BTD))


class FreeHeadBertForMaskedLM(_WithHead):
    """Masked words; the decoder is tied to the word embeddings."""

    _tied_weights_keys = {  # noqa: RUF012  transformers' name and type
        "predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: FreeHeadBertConfig) -> None:
        super().__init__(config)
        self.predictions = FreeHeadBertPredictions(config)
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
            attentions=encoded.attentions,
        )
        return output if as_dict else output.to_tuple()
