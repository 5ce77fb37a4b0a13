"""Prediction network and joint, fused as NeMo exports them (`decoder_joint`), with raw logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemoport.errors import CheckpointError
from nemoport.export.layers import MatMul, Weights
from nemoport.spec import DecodingSpec


class DecoderJoint(nn.Module):
    """Prediction network and joint: one call scores every given encoder frame with every given prefix.

    The graph returns raw logits; NeMo's own joint returns log-probabilities on a CPU and logits on a GPU. The last row of the
    embedding is blank's and is zero, which makes blank the first target of a stream. Raises CheckpointError if it is not.
    """

    def __init__(self, tensors: dict[str, Tensor], spec: DecodingSpec):
        super().__init__()
        predictor, joint = Weights(tensors, "decoder.prediction."), Weights(tensors, "joint.")
        table = predictor.take("embed.weight")
        if table.shape[0] != spec.vocab_size + 1 or table[spec.blank_id].abs().max() > 0:
            raise CheckpointError(
                "The prediction network does not start from blank.",
                expected=f"{spec.vocab_size + 1} embeddings, the last of them zero",
                found=f"{table.shape[0]} embeddings, largest value in the last {table[-1].abs().max():.3g}",
                todo="report this checkpoint; decoding it needs another first target",
            )
        self.embed = nn.Embedding.from_pretrained(table)
        self.lstm = nn.LSTM(table.shape[1], spec.pred_hidden, spec.pred_layers)
        self.lstm.load_state_dict({name: predictor.take(f"dec_rnn.lstm.{name}") for name in self.lstm.state_dict()})
        self.pred = MatMul(joint, "pred")
        self.enc = MatMul(joint, "enc")
        # NeMo puts a dropout between activation and head only if the checkpoint was trained with one.
        head = "joint_net.2" if joint.get("joint_net.2.weight") is not None else "joint_net.1"
        self.head = MatMul(joint, head)
        self.unused = predictor.unused + joint.unused
        self.eval()

    def forward(self, encoder_outputs, targets, target_length, input_states_1, input_states_2):
        """encoder_outputs f32 [B, d, T], targets i32 [B, U], target_length i32 [B], states f32 [layers, B, hidden] ->
        outputs f32 [B, T, U, spec.n_scores], prednet_lengths i32 [B], output_states_1, output_states_2."""
        embedded = self.embed(targets.to(torch.int64)).transpose(0, 1)
        predicted, (hidden, cell) = self.lstm(embedded, (input_states_1, input_states_2))
        encoded = self.enc(encoder_outputs.transpose(1, 2)).unsqueeze(2)
        joined = F.relu(encoded + self.pred(predicted.transpose(0, 1)).unsqueeze(1))
        return self.head(joined), target_length, hidden, cell
