// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Opening, Terms, Turn} from "./MarketTypes.sol";

/// The running hash of what was served. Mirrored bit by bit by `fabstir.protocol.transcript`, which has the theory:
///     head_0  = SHA-256("fabstir/job/1"   | chain u64 | market | job | host | model)
///     head   := SHA-256("fabstir/turn/1"  | head | message_index u32 | tokens u32 | request)    at the start of each answer
///     head   := SHA-256("fabstir/token/1" | head | record)                                      for each token
library Transcript {
    /// The opening has not one record for each token, or its turns are out of order.
    error OpeningMalformed();

    /// The head before the first token of a job of the calling market.
    function start(bytes32 id, Terms calldata t) internal view returns (bytes32) {
        return sha256(abi.encodePacked("fabstir/job/1", uint64(block.chainid), address(this), id, t.host, t.modelId));
    }

    /// The head after the opening's records, beginning from `head` at `o.from` tokens.
    function extend(bytes32 head, Opening calldata o) internal pure returns (bytes32) {
        if (o.from > o.tokens || o.records.length != o.tokens - o.from) revert OpeningMalformed();
        uint256 turn = 0;
        for (uint256 position = o.from; position <= o.tokens; ++position) {
            while (turn < o.turns.length && o.turns[turn].tokens == position) {
                Turn calldata began = o.turns[turn++];
                head = sha256(abi.encodePacked("fabstir/turn/1", head, began.messageIndex, began.tokens, began.request));
            }
            if (position < o.tokens) {
                head = sha256(abi.encodePacked("fabstir/token/1", head, o.records[position - o.from]));
            }
        }
        if (turn != o.turns.length) revert OpeningMalformed();
        return head;
    }
}
