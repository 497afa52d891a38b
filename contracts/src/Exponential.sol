// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// exp(-x) in fixed point. x is whole micro-nats; each of its bits that is set multiplies in the constant floor(exp(-2^bit / 10^6) * 2^128).
/// Never above the true value and, below 2^25 micro-nats, less than 2^-122 under it: a step adds at most one unit of 2^-128 for the
/// constant and one for its own rounding to the error so far, and there are 25. From 2^25 micro-nats on, where the true value is
/// below 3 * 10^-15, the answer is 0. Mirrored by `fabstir.protocol.sampling.exp_of_minus`.
library Exponential {
    uint256 internal constant ONE = 1 << 128;

    function ofMinus(uint256 microNats) internal pure returns (uint256 r) {
        if (microNats >> 25 != 0) return 0;
        r = ONE;
        unchecked {
            // neither factor is above 2^128, and both are it only before the first step
            if (microNats & 0x1 != 0) r = (r * 0xffffef3908ec06db692905ada44e97d7) >> 128;
            if (microNats & 0x2 != 0) r = (r * 0xffffde7212f1873c72d38f23056c2027) >> 128;
            if (microNats & 0x4 != 0) r = (r * 0xffffbce42a48f4459e3e5c8084a52fe5) >> 128;
            if (microNats & 0x8 != 0) r = (r * 0xffff79c866297d6fd3a6dde2ef652043) >> 128;
            if (microNats & 0x10 != 0) r = (r * 0xfffef39112b13bffae9adff51d70c46e) >> 128;
            if (microNats & 0x20 != 0) r = (r * 0xfffde7233edae8ed1341c9c085d7302a) >> 128;
            if (microNats & 0x40 != 0) r = (r * 0xfffbce4ae392f902009b6d8eac4911b1) >> 128;
            if (microNats & 0x80 != 0) r = (r * 0xfff79ca75e75aa6f2b27fd2814bd9710) >> 128;
            if (microNats & 0x100 != 0) r = (r * 0xffef39951903192422956a624625826c) >> 128;
            if (microNats & 0x200 != 0) r = (r * 0xffde7443992c9bd86f9d3355de9d5fa3) >> 128;
            if (microNats & 0x400 != 0) r = (r * 0xffbcecec8531dc816ff8d369a3ea61b5) >> 128;
            if (microNats & 0x800 != 0) r = (r * 0xff79eb6c0801e69f82f83890d61a62b7) >> 128;
            if (microNats & 0x1000 != 0) r = (r * 0xfef41d119c92df8808f7decdd1ee2517) >> 128;
            if (microNats & 0x2000 != 0) r = (r * 0xfde952765f92ea3b7f06cd6c039992a4) >> 128;
            if (microNats & 0x4000 != 0) r = (r * 0xfbd701a52ef2685e568d16cb0e0f6d8c) >> 128;
            if (microNats & 0x8000 != 0) r = (r * 0xf7bf51cdad86e8c7be15550286b3f69e) >> 128;
            if (microNats & 0x10000 != 0) r = (r * 0xefc2bed60fe7118f89d9a1c623587d54) >> 128;
            if (microNats & 0x20000 != 0) r = (r * 0xe08d34797c63ff9a36509b222eb0085d) >> 128;
            if (microNats & 0x40000 != 0) r = (r * 0xc4f769b7724399a4e1bc30cbe1acb38f) >> 128;
            if (microNats & 0x80000 != 0) r = (r * 0x978bc8fe129e00e6f982f57617a334ce) >> 128;
            if (microNats & 0x100000 != 0) r = (r * 0x59b6336f9bac95e54978bba135bb075d) >> 128;
            if (microNats & 0x200000 != 0) r = (r * 0x1f703170c745024db128341a1ce10496) >> 128;
            if (microNats & 0x400000 != 0) r = (r * 0x03dc5d249c7d70e83742ddc7584aa8ed) >> 128;
            if (microNats & 0x800000 != 0) r = (r * 0x000ee7df147b872f076424a8728e2f15) >> 128;
            if (microNats & 0x1000000 != 0) r = (r * 0x000000de2e6a96de67f4baf424c7c626) >> 128;
        }
    }
}
