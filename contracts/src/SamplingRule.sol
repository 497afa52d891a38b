// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Exponential} from "./Exponential.sol";

/// Whether a record agrees with itself: the sampler that it names can have drawn its token from the log-probabilities that it states.
/// Necessary conditions only, true of every honest record of every engine; where a record comes from they cannot say. Mirrored bit by
/// bit by `fabstir.protocol.sampling`.
library SamplingRule {
    /// Bytes of a record before its `top`, and of each of these.
    uint256 internal constant FIXED = 51;
    uint256 internal constant PAIR = 8;
    uint256 internal constant MAX_TOP = 20;

    uint256 private constant MILLION = 1_000_000;
    /// In millionths of probability, for the sum of a record's probabilities and for its nucleus: log-probabilities are rounded to
    /// micro-nats and come from a softmax in 32-bit floats, which together stay far below.
    uint256 private constant TOLERANCE = 1_000;
    /// Thousandths. Above it the nucleus of a sampler that tempers before it cuts is wider than that of the raw softmax.
    uint256 private constant WARMEST = 1_000;

    /// What the loop over `top` finds. Surprisals are log-probabilities with the sign changed: 0 is certain, more is less likely.
    struct Found {
        bool listed;
        uint256 first;
        uint256 last;
        uint256 total;
        uint256 above;
    }

    /// `record` = salt 32 | index u32 | token u32 | logprob i32 | temperature u16 | top_p u32 | k u8 | (token u32 | logprob i32) * k, and k
    /// is what its length says.
    function holds(bytes calldata record) internal pure returns (bool) {
        if (record.length < FIXED || record.length > FIXED + PAIR * MAX_TOP) return false;
        uint256 topP = _u32(record, 46);
        if (topP == 0 || topP > MILLION) return false;
        (bool negative, uint256 own) = _surprisal(record, 40);
        if (!negative) return false;
        (bool sound, Found memory found) = _scan(record, _u32(record, 36), own);
        if (!sound) return false;
        if (!found.listed) {
            if (own < found.last) return false; // it would have been listed
            found.total += Exponential.ofMinus(own);
        }
        if (found.total * MILLION > Exponential.ONE * (MILLION + TOLERANCE)) return false;
        uint256 temperature = _u32(record, 44) >> 16;
        if (temperature == 0) return record.length > FIXED && own == found.first;
        return temperature > WARMEST || found.above * MILLION < Exponential.ONE * (topP + TOLERANCE);
    }

    /// False where a log-probability is above 0, the list not sorted, a token twice in it, or the drawn token in it with another value.
    function _scan(bytes calldata record, uint256 token, uint256 own) private pure returns (bool, Found memory found) {
        for (uint256 offset = FIXED; offset < record.length; offset += PAIR) {
            uint256 id = _u32(record, offset);
            (bool negative, uint256 surprisal) = _surprisal(record, offset + 4);
            if (!negative || surprisal < found.last || _repeats(record, offset, id)) return (false, found);
            uint256 probability = Exponential.ofMinus(surprisal);
            found.total += probability;
            if (surprisal < own) found.above += probability;
            if (id == token) {
                if (surprisal != own) return (false, found);
                found.listed = true;
            }
            if (offset == FIXED) found.first = surprisal;
            found.last = surprisal;
        }
        return (true, found);
    }

    function _repeats(bytes calldata record, uint256 end, uint256 id) private pure returns (bool) {
        unchecked {
            for (uint256 offset = FIXED; offset < end; offset += PAIR) {
                if (_u32(record, offset) == id) return true;
            }
        }
        return false;
    }

    /// Of the log-probability at `offset`; false where it is above 0.
    function _surprisal(bytes calldata record, uint256 offset) private pure returns (bool, uint256) {
        int256 logprob = int32(uint32(_u32(record, offset)));
        return logprob > 0 ? (false, 0) : (true, uint256(-logprob));
    }

    /// The number at `offset`, which the caller knows to lie within the record: a slice would check it once more, 3,000 times in a proof.
    function _u32(bytes calldata record, uint256 offset) private pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(224, calldataload(add(record.offset, offset)))
        }
    }
}
