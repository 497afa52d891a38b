// SPDX-License-Identifier: MIT

// Made by tools/build_circuit.py from the verification key of circuit spot-v1. Not edited by hand.
pragma solidity 0.8.37;

contract Halo2SpotVerifier {
    uint256 internal constant    DELTA = 4131629893567559867359510883348571134090853742863529169391034518566172092834;
    uint256 internal constant        R = 21888242871839275222246405745257275088548364400416034343698204186575808495617;

    uint256 internal constant FIRST_QUOTIENT_X_CPTR = 0x0664;
    uint256 internal constant  LAST_QUOTIENT_X_CPTR = 0x0764;

    uint256 internal constant                VK_MPTR = 0x07c0;
    uint256 internal constant         VK_DIGEST_MPTR = 0x07c0;
    uint256 internal constant     NUM_INSTANCES_MPTR = 0x07e0;
    uint256 internal constant                 K_MPTR = 0x0800;
    uint256 internal constant             N_INV_MPTR = 0x0820;
    uint256 internal constant             OMEGA_MPTR = 0x0840;
    uint256 internal constant         OMEGA_INV_MPTR = 0x0860;
    uint256 internal constant    OMEGA_INV_TO_L_MPTR = 0x0880;
    uint256 internal constant   HAS_ACCUMULATOR_MPTR = 0x08a0;
    uint256 internal constant        ACC_OFFSET_MPTR = 0x08c0;
    uint256 internal constant     NUM_ACC_LIMBS_MPTR = 0x08e0;
    uint256 internal constant NUM_ACC_LIMB_BITS_MPTR = 0x0900;
    uint256 internal constant              G1_X_MPTR = 0x0920;
    uint256 internal constant              G1_Y_MPTR = 0x0940;
    uint256 internal constant            G2_X_1_MPTR = 0x0960;
    uint256 internal constant            G2_X_2_MPTR = 0x0980;
    uint256 internal constant            G2_Y_1_MPTR = 0x09a0;
    uint256 internal constant            G2_Y_2_MPTR = 0x09c0;
    uint256 internal constant      NEG_S_G2_X_1_MPTR = 0x09e0;
    uint256 internal constant      NEG_S_G2_X_2_MPTR = 0x0a00;
    uint256 internal constant      NEG_S_G2_Y_1_MPTR = 0x0a20;
    uint256 internal constant      NEG_S_G2_Y_2_MPTR = 0x0a40;

    uint256 internal constant CHALLENGE_MPTR = 0x1120;

    uint256 internal constant THETA_MPTR = 0x1120;
    uint256 internal constant  BETA_MPTR = 0x1140;
    uint256 internal constant GAMMA_MPTR = 0x1160;
    uint256 internal constant     Y_MPTR = 0x1180;
    uint256 internal constant     X_MPTR = 0x11a0;
    uint256 internal constant  ZETA_MPTR = 0x11c0;
    uint256 internal constant    NU_MPTR = 0x11e0;
    uint256 internal constant    MU_MPTR = 0x1200;

    uint256 internal constant       ACC_LHS_X_MPTR = 0x1220;
    uint256 internal constant       ACC_LHS_Y_MPTR = 0x1240;
    uint256 internal constant       ACC_RHS_X_MPTR = 0x1260;
    uint256 internal constant       ACC_RHS_Y_MPTR = 0x1280;
    uint256 internal constant             X_N_MPTR = 0x12a0;
    uint256 internal constant X_N_MINUS_1_INV_MPTR = 0x12c0;
    uint256 internal constant          L_LAST_MPTR = 0x12e0;
    uint256 internal constant         L_BLIND_MPTR = 0x1300;
    uint256 internal constant             L_0_MPTR = 0x1320;
    uint256 internal constant   INSTANCE_EVAL_MPTR = 0x1340;
    uint256 internal constant   QUOTIENT_EVAL_MPTR = 0x1360;
    uint256 internal constant      QUOTIENT_X_MPTR = 0x1380;
    uint256 internal constant      QUOTIENT_Y_MPTR = 0x13a0;
    uint256 internal constant          R_EVAL_MPTR = 0x13c0;
    uint256 internal constant   PAIRING_LHS_X_MPTR = 0x13e0;
    uint256 internal constant   PAIRING_LHS_Y_MPTR = 0x1400;
    uint256 internal constant   PAIRING_RHS_X_MPTR = 0x1420;
    uint256 internal constant   PAIRING_RHS_Y_MPTR = 0x1440;

    function verifyProof(
        bytes calldata proof,
        uint256[] calldata instances
    ) public view returns (bool) {
        assembly {
            // Read EC point (x, y) at (proof_cptr, proof_cptr + 0x20),
            // and check if the point is on affine plane,
            // and store them in (hash_mptr, hash_mptr + 0x20).
            // Return updated (success, proof_cptr, hash_mptr).
            function read_ec_point(success, proof_cptr, hash_mptr, q) -> ret0, ret1, ret2 {
                let x := calldataload(proof_cptr)
                let y := calldataload(add(proof_cptr, 0x20))
                ret0 := and(success, lt(x, q))
                ret0 := and(ret0, lt(y, q))
                ret0 := and(ret0, eq(mulmod(y, y, q), addmod(mulmod(x, mulmod(x, x, q), q), 3, q)))
                mstore(hash_mptr, x)
                mstore(add(hash_mptr, 0x20), y)
                ret1 := add(proof_cptr, 0x40)
                ret2 := add(hash_mptr, 0x40)
            }

            // Squeeze challenge by keccak256(memory[0..hash_mptr]),
            // and store hash mod r as challenge in challenge_mptr,
            // and push back hash in 0x00 as the first input for next squeeze.
            // Return updated (challenge_mptr, hash_mptr).
            function squeeze_challenge(challenge_mptr, hash_mptr, r) -> ret0, ret1 {
                let hash := keccak256(0x00, hash_mptr)
                mstore(challenge_mptr, mod(hash, r))
                mstore(0x00, hash)
                ret0 := add(challenge_mptr, 0x20)
                ret1 := 0x20
            }

            // Squeeze challenge without absorbing new input from calldata,
            // by putting an extra 0x01 in memory[0x20] and squeeze by keccak256(memory[0..21]),
            // and store hash mod r as challenge in challenge_mptr,
            // and push back hash in 0x00 as the first input for next squeeze.
            // Return updated (challenge_mptr).
            function squeeze_challenge_cont(challenge_mptr, r) -> ret {
                mstore8(0x20, 0x01)
                let hash := keccak256(0x00, 0x21)
                mstore(challenge_mptr, mod(hash, r))
                mstore(0x00, hash)
                ret := add(challenge_mptr, 0x20)
            }

            // Batch invert values in memory[mptr_start..mptr_end] in place.
            // Return updated (success).
            function batch_invert(success, mptr_start, mptr_end) -> ret {
                let gp_mptr := mptr_end
                let gp := mload(mptr_start)
                let mptr := add(mptr_start, 0x20)
                for
                    {}
                    lt(mptr, sub(mptr_end, 0x20))
                    {}
                {
                    gp := mulmod(gp, mload(mptr), R)
                    mstore(gp_mptr, gp)
                    mptr := add(mptr, 0x20)
                    gp_mptr := add(gp_mptr, 0x20)
                }
                gp := mulmod(gp, mload(mptr), R)

                mstore(gp_mptr, 0x20)
                mstore(add(gp_mptr, 0x20), 0x20)
                mstore(add(gp_mptr, 0x40), 0x20)
                mstore(add(gp_mptr, 0x60), gp)
                mstore(add(gp_mptr, 0x80), sub(R, 2))
                mstore(add(gp_mptr, 0xa0), R)
                ret := and(success, staticcall(gas(), 0x05, gp_mptr, 0xc0, gp_mptr, 0x20))
                let all_inv := mload(gp_mptr)

                let first_mptr := mptr_start
                let second_mptr := add(first_mptr, 0x20)
                gp_mptr := sub(gp_mptr, 0x20)
                for
                    {}
                    lt(second_mptr, mptr)
                    {}
                {
                    let inv := mulmod(all_inv, mload(gp_mptr), R)
                    all_inv := mulmod(all_inv, mload(mptr), R)
                    mstore(mptr, inv)
                    mptr := sub(mptr, 0x20)
                    gp_mptr := sub(gp_mptr, 0x20)
                }
                let inv_first := mulmod(all_inv, mload(second_mptr), R)
                let inv_second := mulmod(all_inv, mload(first_mptr), R)
                mstore(first_mptr, inv_first)
                mstore(second_mptr, inv_second)
            }

            // Add (x, y) into point at (0x00, 0x20).
            // Return updated (success).
            function ec_add_acc(success, x, y) -> ret {
                mstore(0x40, x)
                mstore(0x60, y)
                ret := and(success, staticcall(gas(), 0x06, 0x00, 0x80, 0x00, 0x40))
            }

            // Scale point at (0x00, 0x20) by scalar.
            function ec_mul_acc(success, scalar) -> ret {
                mstore(0x40, scalar)
                ret := and(success, staticcall(gas(), 0x07, 0x00, 0x60, 0x00, 0x40))
            }

            // Add (x, y) into point at (0x80, 0xa0).
            // Return updated (success).
            function ec_add_tmp(success, x, y) -> ret {
                mstore(0xc0, x)
                mstore(0xe0, y)
                ret := and(success, staticcall(gas(), 0x06, 0x80, 0x80, 0x80, 0x40))
            }

            // Scale point at (0x80, 0xa0) by scalar.
            // Return updated (success).
            function ec_mul_tmp(success, scalar) -> ret {
                mstore(0xc0, scalar)
                ret := and(success, staticcall(gas(), 0x07, 0x80, 0x60, 0x80, 0x40))
            }

            // Perform pairing check.
            // Return updated (success).
            function ec_pairing(success, lhs_x, lhs_y, rhs_x, rhs_y) -> ret {
                mstore(0x00, lhs_x)
                mstore(0x20, lhs_y)
                mstore(0x40, mload(G2_X_1_MPTR))
                mstore(0x60, mload(G2_X_2_MPTR))
                mstore(0x80, mload(G2_Y_1_MPTR))
                mstore(0xa0, mload(G2_Y_2_MPTR))
                mstore(0xc0, rhs_x)
                mstore(0xe0, rhs_y)
                mstore(0x100, mload(NEG_S_G2_X_1_MPTR))
                mstore(0x120, mload(NEG_S_G2_X_2_MPTR))
                mstore(0x140, mload(NEG_S_G2_Y_1_MPTR))
                mstore(0x160, mload(NEG_S_G2_Y_2_MPTR))
                ret := and(success, staticcall(gas(), 0x08, 0x00, 0x180, 0x00, 0x20))
                ret := and(ret, mload(0x00))
            }

            // Modulus
            let q := 21888242871839275222246405745257275088696311157297823662689037894645226208583 // BN254 base field
            let r := 21888242871839275222246405745257275088548364400416034343698204186575808495617 // BN254 scalar field

            // Initialize success as true
            let success := true

            {
                // Load vk_digest and num_instances of vk into memory
                mstore(0x07c0, 0x1317a117a60863e78f370c892dac80712b93e107825f3359745d4ad5ce882140) // vk_digest
                mstore(0x07e0, 0x0000000000000000000000000000000000000000000000000000000000000008) // num_instances

                // Check valid length of proof
                success := and(success, eq(0x0f60, proof.length))

                // Check valid length of instances
                let num_instances := mload(NUM_INSTANCES_MPTR)
                success := and(success, eq(num_instances, instances.length))

                // Absorb vk diegst
                mstore(0x00, mload(VK_DIGEST_MPTR))

                // Read instances and witness commitments and generate challenges
                let hash_mptr := 0x20
                let instance_cptr := instances.offset
                for
                    { let instance_cptr_end := add(instance_cptr, mul(0x20, num_instances)) }
                    lt(instance_cptr, instance_cptr_end)
                    {}
                {
                    let instance := calldataload(instance_cptr)
                    success := and(success, lt(instance, r))
                    mstore(hash_mptr, instance)
                    instance_cptr := add(instance_cptr, 0x20)
                    hash_mptr := add(hash_mptr, 0x20)
                }

                let proof_cptr := proof.offset
                let challenge_mptr := CHALLENGE_MPTR

                // Phase 1
                for
                    { let proof_cptr_end := add(proof_cptr, 0x0480) }
                    lt(proof_cptr, proof_cptr_end)
                    {}
                {
                    success, proof_cptr, hash_mptr := read_ec_point(success, proof_cptr, hash_mptr, q)
                }

                challenge_mptr, hash_mptr := squeeze_challenge(challenge_mptr, hash_mptr, r)
                challenge_mptr := squeeze_challenge_cont(challenge_mptr, r)
                challenge_mptr := squeeze_challenge_cont(challenge_mptr, r)

                // Phase 2
                for
                    { let proof_cptr_end := add(proof_cptr, 0x0180) }
                    lt(proof_cptr, proof_cptr_end)
                    {}
                {
                    success, proof_cptr, hash_mptr := read_ec_point(success, proof_cptr, hash_mptr, q)
                }

                challenge_mptr, hash_mptr := squeeze_challenge(challenge_mptr, hash_mptr, r)

                // Phase 3
                for
                    { let proof_cptr_end := add(proof_cptr, 0x0140) }
                    lt(proof_cptr, proof_cptr_end)
                    {}
                {
                    success, proof_cptr, hash_mptr := read_ec_point(success, proof_cptr, hash_mptr, q)
                }

                challenge_mptr, hash_mptr := squeeze_challenge(challenge_mptr, hash_mptr, r)

                // Read evaluations
                for
                    { let proof_cptr_end := add(proof_cptr, 0x07a0) }
                    lt(proof_cptr, proof_cptr_end)
                    {}
                {
                    let eval := calldataload(proof_cptr)
                    success := and(success, lt(eval, r))
                    mstore(hash_mptr, eval)
                    proof_cptr := add(proof_cptr, 0x20)
                    hash_mptr := add(hash_mptr, 0x20)
                }

                // Read batch opening proof and generate challenges
                challenge_mptr, hash_mptr := squeeze_challenge(challenge_mptr, hash_mptr, r)       // zeta
                challenge_mptr := squeeze_challenge_cont(challenge_mptr, r)                        // nu

                success, proof_cptr, hash_mptr := read_ec_point(success, proof_cptr, hash_mptr, q) // W

                challenge_mptr, hash_mptr := squeeze_challenge(challenge_mptr, hash_mptr, r)       // mu

                success, proof_cptr, hash_mptr := read_ec_point(success, proof_cptr, hash_mptr, q) // W'

                // Load full vk into memory
                mstore(0x07c0, 0x1317a117a60863e78f370c892dac80712b93e107825f3359745d4ad5ce882140) // vk_digest
                mstore(0x07e0, 0x0000000000000000000000000000000000000000000000000000000000000008) // num_instances
                mstore(0x0800, 0x000000000000000000000000000000000000000000000000000000000000000b) // k
                mstore(0x0820, 0x305e41e912d579f5b3193badcab128321c8ee1cb70aa396331b979553d820001) // n_inv
                mstore(0x0840, 0x14c60185e75885d674db4b3f7d4a5694fa6c01aa0f53557b060bc04a4172705f) // omega
                mstore(0x0860, 0x2afd4e77273f1cb3434a4a667929058c156b21573c3f1efc882e708597d7161a) // omega_inv
                mstore(0x0880, 0x22b55603586d5fc42c6c14c2fc27a028c207da8b2c71cb33d549fa4a2be5d302) // omega_inv_to_l
                mstore(0x08a0, 0x0000000000000000000000000000000000000000000000000000000000000000) // has_accumulator
                mstore(0x08c0, 0x0000000000000000000000000000000000000000000000000000000000000000) // acc_offset
                mstore(0x08e0, 0x0000000000000000000000000000000000000000000000000000000000000000) // num_acc_limbs
                mstore(0x0900, 0x0000000000000000000000000000000000000000000000000000000000000000) // num_acc_limb_bits
                mstore(0x0920, 0x0000000000000000000000000000000000000000000000000000000000000001) // g1_x
                mstore(0x0940, 0x0000000000000000000000000000000000000000000000000000000000000002) // g1_y
                mstore(0x0960, 0x198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2) // g2_x_1
                mstore(0x0980, 0x1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed) // g2_x_2
                mstore(0x09a0, 0x090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b) // g2_y_1
                mstore(0x09c0, 0x12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa) // g2_y_2
                mstore(0x09e0, 0x2ea8f160b9c059fb889f53d089acad8fb6b800e8e55acd9e869f53c42398fddb) // neg_s_g2_x_1
                mstore(0x0a00, 0x03b97225eb18aa8a482a918da204ac4513d1ce0df2fb8561bacd9fdca8260bd7) // neg_s_g2_x_2
                mstore(0x0a20, 0x2d719e3942c1f794743b3d6406d53ae6a4639aa68920ecd7ad1c65059942952b) // neg_s_g2_y_1
                mstore(0x0a40, 0x2b54951582eae5809b288f57f322d60c4c32207a24602be68127465e1e609e13) // neg_s_g2_y_2
                mstore(0x0a60, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[0].x
                mstore(0x0a80, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[0].y
                mstore(0x0aa0, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[1].x
                mstore(0x0ac0, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[1].y
                mstore(0x0ae0, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[2].x
                mstore(0x0b00, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[2].y
                mstore(0x0b20, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[3].x
                mstore(0x0b40, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[3].y
                mstore(0x0b60, 0x2a646174ced72ae94669b2067d20f52a539274c950f4a8715702e0ca5667e832) // fixed_comms[4].x
                mstore(0x0b80, 0x07fb454efe52767384662bd5a4923ff40047fb204ce5e7c122f75ce85935ccae) // fixed_comms[4].y
                mstore(0x0ba0, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[5].x
                mstore(0x0bc0, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[5].y
                mstore(0x0be0, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[6].x
                mstore(0x0c00, 0x0000000000000000000000000000000000000000000000000000000000000000) // fixed_comms[6].y
                mstore(0x0c20, 0x2ebddaa19fd24f99cff5628edfe4389b91de211ddb3cb8ce20a9cdda0d4c6737) // permutation_comms[0].x
                mstore(0x0c40, 0x133df802debdb3d430464d50846bceb752222c847a8dfc64545821e078b66532) // permutation_comms[0].y
                mstore(0x0c60, 0x18f9059309524bc2aa23667b79d861887d25b71e7963dc65c6c0c3bc78b421d1) // permutation_comms[1].x
                mstore(0x0c80, 0x0a2dc15780ae81f60ae29a30fc76c7c9be7acbcc9808fed95b401742e5814efa) // permutation_comms[1].y
                mstore(0x0ca0, 0x28594f2f64d5ee62f5de12cf54d1608cc94f8165846b11e8b18bef805596e235) // permutation_comms[2].x
                mstore(0x0cc0, 0x07e1ae8e0d7ddf4c647c8898f9bf448f09abacbefdd5988e81e8f0cb13b5d839) // permutation_comms[2].y
                mstore(0x0ce0, 0x185bbca89b6d0767162d185d602499b0c36077f95d083a0ff9ef3439ba092c13) // permutation_comms[3].x
                mstore(0x0d00, 0x082670d02861a229a63c7ff1c6d15ced959fe757b506948f5229f5c3f0a4d355) // permutation_comms[3].y
                mstore(0x0d20, 0x2c778cce89dbb491ec43a165410f6c7a7c383a6972f7727e1bac463eed664944) // permutation_comms[4].x
                mstore(0x0d40, 0x2b710ae56b26f18cb55d418e52b400f21634534ff6e7bdec9528ee9eb9b91542) // permutation_comms[4].y
                mstore(0x0d60, 0x186e58f1c531a57523ae6edee94c1a6d9c2bd3f6517d1dae02c8d89603eaca2f) // permutation_comms[5].x
                mstore(0x0d80, 0x04c554fdf9d2f536418b29c49126bb466c6c13b94fc8b06992078b58f56311f7) // permutation_comms[5].y
                mstore(0x0da0, 0x0b1a4ec412eea11254b6e54d186b552b0ec5e96e672d054b526bf6a1cc2a9712) // permutation_comms[6].x
                mstore(0x0dc0, 0x0a80e843a2445b074dbdaa039ac2b523bb18c5697fd2648cb2b59fffa0972535) // permutation_comms[6].y
                mstore(0x0de0, 0x176efbd8e140d3246fcd8ac027a2cb6b0c93d3ac17c9ca883988d07ff3c6dfe0) // permutation_comms[7].x
                mstore(0x0e00, 0x24318bf279ba824f4ba7e331c245961bdcbb9c5c6a010d9637123e440327d28f) // permutation_comms[7].y
                mstore(0x0e20, 0x2fb0e1d1c3c4fab411aa15a9e9eff5e1614018c8fa30ce18b003e3093cbf3946) // permutation_comms[8].x
                mstore(0x0e40, 0x258f734c9d7b9f3635cf8c82e41f0533e967fa1871f6a168fc67d2cd03168a70) // permutation_comms[8].y
                mstore(0x0e60, 0x234ac1aa397f108ca1df440a4c6e1ba38c38a896a13b192a60af74d2ca78e405) // permutation_comms[9].x
                mstore(0x0e80, 0x0a84be4b3a166e576dfd3d4a2c083ec167b7c72291ba5a75a6eea4d34322c7e4) // permutation_comms[9].y
                mstore(0x0ea0, 0x08dee101cd9e50127dbf88acc88986014ff692dbd4a16cef69ebec50363fd03d) // permutation_comms[10].x
                mstore(0x0ec0, 0x088ee74cf959c18979c3eff9db36842aa45daf9e56d5f2adf4b02caad6268e6f) // permutation_comms[10].y
                mstore(0x0ee0, 0x015c219755634401d05d4cbcf01e154ef4b5b994ca8ae0a7aeb0848ca1ff3d06) // permutation_comms[11].x
                mstore(0x0f00, 0x0fc61f752f05a5f00309d941e6a18d6e5ab4d7583413416aa0cb85ab367b5c16) // permutation_comms[11].y
                mstore(0x0f20, 0x097e99104d4ffeb874d5205f7c102fa8c847b394b4dbe4dbd7ef311ab452e18a) // permutation_comms[12].x
                mstore(0x0f40, 0x23a0078519ddddcdf8f12000bbc7467e7e5fda1559252bc127e626b61f94cb0f) // permutation_comms[12].y
                mstore(0x0f60, 0x292b3cc793a1d50def781f948ea155859103437b4ebefd7d0d0997c348675982) // permutation_comms[13].x
                mstore(0x0f80, 0x03b2037a05db584cf63d89d1df3b3a15d1f0bfa1abfe515ecea19ad4e012e8d3) // permutation_comms[13].y
                mstore(0x0fa0, 0x0b0e64c41196eb36d297eb6c0b9a356901925333642d96e7bdab286616413c58) // permutation_comms[14].x
                mstore(0x0fc0, 0x1301fca207d0e10171e2ebcc5fe25cb64d6465a5aa57eb8664fe7d20056c39e3) // permutation_comms[14].y
                mstore(0x0fe0, 0x10c4b7ad656f0dbc8f3cad7a8667fbae5355c3c7c49e89b4378505d964dc8281) // permutation_comms[15].x
                mstore(0x1000, 0x2390bdcc5cb9132b83a2af4370bda4f65650f52ff1131cd7686ea73fad528b52) // permutation_comms[15].y
                mstore(0x1020, 0x205ae141e28cfccbb5191b4768d4df0d12c88181d4de58b6ae4839e4e11ed3ad) // permutation_comms[16].x
                mstore(0x1040, 0x1bbdb161e5c9c805cf88d0d3c42b0b68f74325bde2e8d320b4388c454a0cc897) // permutation_comms[16].y
                mstore(0x1060, 0x13aa99ae2dbfcb5b14f3a1af900a76f9d16191a6b2b2ca0a91c9e015202d4a61) // permutation_comms[17].x
                mstore(0x1080, 0x041fb97d16668a4b18726cc88e91d01e566321fdd0a5a279cddb780021969dd2) // permutation_comms[17].y
                mstore(0x10a0, 0x1d397fd455212a5ad80910bc957f291712aeff1ac62b74f61edc0e8c2839e132) // permutation_comms[18].x
                mstore(0x10c0, 0x2a6d5122592d155432c039038f851bbe6a13224463a8d4b3a6790df70594a73d) // permutation_comms[18].y
                mstore(0x10e0, 0x1371d11e8a1e6f85865ed4c64fd965d62e5d337ec942bb19b6d5caf0df29a902) // permutation_comms[19].x
                mstore(0x1100, 0x23112a10ddd234545b9eaa2f7717593b0aa62ec21658827e12ea96eec23ce875) // permutation_comms[19].y

                // Read accumulator from instances
                if mload(HAS_ACCUMULATOR_MPTR) {
                    let num_limbs := mload(NUM_ACC_LIMBS_MPTR)
                    let num_limb_bits := mload(NUM_ACC_LIMB_BITS_MPTR)

                    let cptr := add(instances.offset, mul(mload(ACC_OFFSET_MPTR), 0x20))
                    let lhs_y_off := mul(num_limbs, 0x20)
                    let rhs_x_off := mul(lhs_y_off, 2)
                    let rhs_y_off := mul(lhs_y_off, 3)
                    let lhs_x := calldataload(cptr)
                    let lhs_y := calldataload(add(cptr, lhs_y_off))
                    let rhs_x := calldataload(add(cptr, rhs_x_off))
                    let rhs_y := calldataload(add(cptr, rhs_y_off))
                    for
                        {
                            let cptr_end := add(cptr, mul(0x20, num_limbs))
                            let shift := num_limb_bits
                        }
                        lt(cptr, cptr_end)
                        {}
                    {
                        cptr := add(cptr, 0x20)
                        lhs_x := add(lhs_x, shl(shift, calldataload(cptr)))
                        lhs_y := add(lhs_y, shl(shift, calldataload(add(cptr, lhs_y_off))))
                        rhs_x := add(rhs_x, shl(shift, calldataload(add(cptr, rhs_x_off))))
                        rhs_y := add(rhs_y, shl(shift, calldataload(add(cptr, rhs_y_off))))
                        shift := add(shift, num_limb_bits)
                    }

                    success := and(success, eq(mulmod(lhs_y, lhs_y, q), addmod(mulmod(lhs_x, mulmod(lhs_x, lhs_x, q), q), 3, q)))
                    success := and(success, eq(mulmod(rhs_y, rhs_y, q), addmod(mulmod(rhs_x, mulmod(rhs_x, rhs_x, q), q), 3, q)))

                    mstore(ACC_LHS_X_MPTR, lhs_x)
                    mstore(ACC_LHS_Y_MPTR, lhs_y)
                    mstore(ACC_RHS_X_MPTR, rhs_x)
                    mstore(ACC_RHS_Y_MPTR, rhs_y)
                }

                pop(q)
            }

            // Revert earlier if anything from calldata is invalid
            if iszero(success) {
                revert(0, 0)
            }

            // Compute lagrange evaluations and instance evaluation
            {
                let k := mload(K_MPTR)
                let x := mload(X_MPTR)
                let x_n := x
                for
                    { let idx := 0 }
                    lt(idx, k)
                    { idx := add(idx, 1) }
                {
                    x_n := mulmod(x_n, x_n, r)
                }

                let omega := mload(OMEGA_MPTR)

                let mptr := X_N_MPTR
                let mptr_end := add(mptr, mul(0x20, add(mload(NUM_INSTANCES_MPTR), 6)))
                if iszero(mload(NUM_INSTANCES_MPTR)) {
                    mptr_end := add(mptr_end, 0x20)
                }
                for
                    { let pow_of_omega := mload(OMEGA_INV_TO_L_MPTR) }
                    lt(mptr, mptr_end)
                    { mptr := add(mptr, 0x20) }
                {
                    mstore(mptr, addmod(x, sub(r, pow_of_omega), r))
                    pow_of_omega := mulmod(pow_of_omega, omega, r)
                }
                let x_n_minus_1 := addmod(x_n, sub(r, 1), r)
                mstore(mptr_end, x_n_minus_1)
                success := batch_invert(success, X_N_MPTR, add(mptr_end, 0x20))

                mptr := X_N_MPTR
                let l_i_common := mulmod(x_n_minus_1, mload(N_INV_MPTR), r)
                for
                    { let pow_of_omega := mload(OMEGA_INV_TO_L_MPTR) }
                    lt(mptr, mptr_end)
                    { mptr := add(mptr, 0x20) }
                {
                    mstore(mptr, mulmod(l_i_common, mulmod(mload(mptr), pow_of_omega, r), r))
                    pow_of_omega := mulmod(pow_of_omega, omega, r)
                }

                let l_blind := mload(add(X_N_MPTR, 0x20))
                let l_i_cptr := add(X_N_MPTR, 0x40)
                for
                    { let l_i_cptr_end := add(X_N_MPTR, 0xc0) }
                    lt(l_i_cptr, l_i_cptr_end)
                    { l_i_cptr := add(l_i_cptr, 0x20) }
                {
                    l_blind := addmod(l_blind, mload(l_i_cptr), r)
                }

                let instance_eval := 0
                for
                    {
                        let instance_cptr := instances.offset
                        let instance_cptr_end := add(instance_cptr, mul(0x20, mload(NUM_INSTANCES_MPTR)))
                    }
                    lt(instance_cptr, instance_cptr_end)
                    {
                        instance_cptr := add(instance_cptr, 0x20)
                        l_i_cptr := add(l_i_cptr, 0x20)
                    }
                {
                    instance_eval := addmod(instance_eval, mulmod(mload(l_i_cptr), calldataload(instance_cptr), r), r)
                }

                let x_n_minus_1_inv := mload(mptr_end)
                let l_last := mload(X_N_MPTR)
                let l_0 := mload(add(X_N_MPTR, 0xc0))

                mstore(X_N_MPTR, x_n)
                mstore(X_N_MINUS_1_INV_MPTR, x_n_minus_1_inv)
                mstore(L_LAST_MPTR, l_last)
                mstore(L_BLIND_MPTR, l_blind)
                mstore(L_0_MPTR, l_0)
                mstore(INSTANCE_EVAL_MPTR, instance_eval)
            }

            // Compute quotient evavluation
            {
                let quotient_eval_numer
                let y := mload(Y_MPTR)
                {
                    let f_1 := calldataload(0x0a24)
                    let var0 := 0x2
                    let var1 := sub(R, f_1)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_1, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let a_6 := calldataload(0x0864)
                    let a_10 := calldataload(0x08e4)
                    let var10 := addmod(a_6, a_10, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_14, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := var13
                }
                {
                    let f_1 := calldataload(0x0a24)
                    let var0 := 0x1
                    let var1 := sub(R, f_1)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_1, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x3
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_15 := calldataload(0x0984)
                    let a_7 := calldataload(0x0884)
                    let a_11 := calldataload(0x0904)
                    let var10 := addmod(a_7, a_11, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_15, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_2 := calldataload(0x0a44)
                    let var0 := 0x1
                    let var1 := sub(R, f_2)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_2, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_16 := calldataload(0x09a4)
                    let a_8 := calldataload(0x08a4)
                    let a_12 := calldataload(0x0924)
                    let var10 := addmod(a_8, a_12, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_16, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_3 := calldataload(0x0a64)
                    let var0 := 0x1
                    let var1 := sub(R, f_3)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_3, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_17 := calldataload(0x09c4)
                    let a_9 := calldataload(0x08c4)
                    let a_13 := calldataload(0x0944)
                    let var10 := addmod(a_9, a_13, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_17, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_1 := calldataload(0x0a24)
                    let var0 := 0x1
                    let var1 := sub(R, f_1)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_1, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let a_6 := calldataload(0x0864)
                    let a_10 := calldataload(0x08e4)
                    let var10 := mulmod(a_6, a_10, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_14, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_2 := calldataload(0x0a44)
                    let var0 := 0x1
                    let var1 := sub(R, f_2)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_2, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_15 := calldataload(0x0984)
                    let a_7 := calldataload(0x0884)
                    let a_11 := calldataload(0x0904)
                    let var10 := mulmod(a_7, a_11, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_15, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_3 := calldataload(0x0a64)
                    let var0 := 0x2
                    let var1 := sub(R, f_3)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_3, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_16 := calldataload(0x09a4)
                    let a_8 := calldataload(0x08a4)
                    let a_12 := calldataload(0x0924)
                    let var10 := mulmod(a_8, a_12, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_16, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_3 := calldataload(0x0a64)
                    let var0 := 0x1
                    let var1 := sub(R, f_3)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_3, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x3
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_17 := calldataload(0x09c4)
                    let a_9 := calldataload(0x08c4)
                    let a_13 := calldataload(0x0944)
                    let var10 := mulmod(a_9, a_13, R)
                    let var11 := sub(R, var10)
                    let var12 := addmod(a_17, var11, R)
                    let var13 := mulmod(var9, var12, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var13, r)
                }
                {
                    let f_1 := calldataload(0x0a24)
                    let var0 := 0x1
                    let var1 := sub(R, f_1)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_1, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let a_6 := calldataload(0x0864)
                    let a_10 := calldataload(0x08e4)
                    let var10 := sub(R, a_10)
                    let var11 := addmod(a_6, var10, R)
                    let var12 := sub(R, var11)
                    let var13 := addmod(a_14, var12, R)
                    let var14 := mulmod(var9, var13, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var14, r)
                }
                {
                    let f_2 := calldataload(0x0a44)
                    let var0 := 0x2
                    let var1 := sub(R, f_2)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_2, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_15 := calldataload(0x0984)
                    let a_7 := calldataload(0x0884)
                    let a_11 := calldataload(0x0904)
                    let var10 := sub(R, a_11)
                    let var11 := addmod(a_7, var10, R)
                    let var12 := sub(R, var11)
                    let var13 := addmod(a_15, var12, R)
                    let var14 := mulmod(var9, var13, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var14, r)
                }
                {
                    let f_2 := calldataload(0x0a44)
                    let var0 := 0x1
                    let var1 := sub(R, f_2)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_2, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x3
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_16 := calldataload(0x09a4)
                    let a_8 := calldataload(0x08a4)
                    let a_12 := calldataload(0x0924)
                    let var10 := sub(R, a_12)
                    let var11 := addmod(a_8, var10, R)
                    let var12 := sub(R, var11)
                    let var13 := addmod(a_16, var12, R)
                    let var14 := mulmod(var9, var13, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var14, r)
                }
                {
                    let f_3 := calldataload(0x0a64)
                    let var0 := 0x1
                    let var1 := sub(R, f_3)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_3, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_17 := calldataload(0x09c4)
                    let a_9 := calldataload(0x08c4)
                    let a_13 := calldataload(0x0944)
                    let var10 := sub(R, a_13)
                    let var11 := addmod(a_9, var10, R)
                    let var12 := sub(R, var11)
                    let var13 := addmod(a_17, var12, R)
                    let var14 := mulmod(var9, var13, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var14, r)
                }
                {
                    let f_4 := calldataload(0x0a84)
                    let var0 := 0x1
                    let var1 := sub(R, f_4)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_4, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let a_14_prev_1 := calldataload(0x09e4)
                    let var10 := 0x0
                    let a_6 := calldataload(0x0864)
                    let a_10 := calldataload(0x08e4)
                    let var11 := mulmod(a_6, a_10, R)
                    let var12 := addmod(var10, var11, R)
                    let a_7 := calldataload(0x0884)
                    let a_11 := calldataload(0x0904)
                    let var13 := mulmod(a_7, a_11, R)
                    let var14 := addmod(var12, var13, R)
                    let a_8 := calldataload(0x08a4)
                    let a_12 := calldataload(0x0924)
                    let var15 := mulmod(a_8, a_12, R)
                    let var16 := addmod(var14, var15, R)
                    let a_9 := calldataload(0x08c4)
                    let a_13 := calldataload(0x0944)
                    let var17 := mulmod(a_9, a_13, R)
                    let var18 := addmod(var16, var17, R)
                    let var19 := addmod(a_14_prev_1, var18, R)
                    let var20 := sub(R, var19)
                    let var21 := addmod(a_14, var20, R)
                    let var22 := mulmod(var9, var21, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var22, r)
                }
                {
                    let f_4 := calldataload(0x0a84)
                    let var0 := 0x2
                    let var1 := sub(R, f_4)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_4, var2, R)
                    let var4 := 0x3
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let var10 := 0x0
                    let a_6 := calldataload(0x0864)
                    let a_10 := calldataload(0x08e4)
                    let var11 := mulmod(a_6, a_10, R)
                    let var12 := addmod(var10, var11, R)
                    let a_7 := calldataload(0x0884)
                    let a_11 := calldataload(0x0904)
                    let var13 := mulmod(a_7, a_11, R)
                    let var14 := addmod(var12, var13, R)
                    let a_8 := calldataload(0x08a4)
                    let a_12 := calldataload(0x0924)
                    let var15 := mulmod(a_8, a_12, R)
                    let var16 := addmod(var14, var15, R)
                    let a_9 := calldataload(0x08c4)
                    let a_13 := calldataload(0x0944)
                    let var17 := mulmod(a_9, a_13, R)
                    let var18 := addmod(var16, var17, R)
                    let var19 := sub(R, var18)
                    let var20 := addmod(a_14, var19, R)
                    let var21 := mulmod(var9, var20, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var21, r)
                }
                {
                    let f_6 := calldataload(0x0ac4)
                    let a_14 := calldataload(0x0964)
                    let var0 := 0x1
                    let a_10 := calldataload(0x08e4)
                    let var1 := mulmod(var0, a_10, R)
                    let a_11 := calldataload(0x0904)
                    let var2 := mulmod(var1, a_11, R)
                    let a_12 := calldataload(0x0924)
                    let var3 := mulmod(var2, a_12, R)
                    let a_13 := calldataload(0x0944)
                    let var4 := mulmod(var3, a_13, R)
                    let var5 := sub(R, var4)
                    let var6 := addmod(a_14, var5, R)
                    let var7 := mulmod(f_6, var6, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var7, r)
                }
                {
                    let f_5 := calldataload(0x0aa4)
                    let a_14 := calldataload(0x0964)
                    let a_14_prev_1 := calldataload(0x09e4)
                    let var0 := 0x1
                    let a_10 := calldataload(0x08e4)
                    let var1 := mulmod(var0, a_10, R)
                    let a_11 := calldataload(0x0904)
                    let var2 := mulmod(var1, a_11, R)
                    let a_12 := calldataload(0x0924)
                    let var3 := mulmod(var2, a_12, R)
                    let a_13 := calldataload(0x0944)
                    let var4 := mulmod(var3, a_13, R)
                    let var5 := mulmod(a_14_prev_1, var4, R)
                    let var6 := sub(R, var5)
                    let var7 := addmod(a_14, var6, R)
                    let var8 := mulmod(f_5, var7, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var8, r)
                }
                {
                    let f_4 := calldataload(0x0a84)
                    let var0 := 0x1
                    let var1 := sub(R, f_4)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_4, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x3
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let var10 := 0x0
                    let a_10 := calldataload(0x08e4)
                    let var11 := addmod(var10, a_10, R)
                    let a_11 := calldataload(0x0904)
                    let var12 := addmod(var11, a_11, R)
                    let a_12 := calldataload(0x0924)
                    let var13 := addmod(var12, a_12, R)
                    let a_13 := calldataload(0x0944)
                    let var14 := addmod(var13, a_13, R)
                    let var15 := sub(R, var14)
                    let var16 := addmod(a_14, var15, R)
                    let var17 := mulmod(var9, var16, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var17, r)
                }
                {
                    let f_4 := calldataload(0x0a84)
                    let var0 := 0x1
                    let var1 := sub(R, f_4)
                    let var2 := addmod(var0, var1, R)
                    let var3 := mulmod(f_4, var2, R)
                    let var4 := 0x2
                    let var5 := addmod(var4, var1, R)
                    let var6 := mulmod(var3, var5, R)
                    let var7 := 0x4
                    let var8 := addmod(var7, var1, R)
                    let var9 := mulmod(var6, var8, R)
                    let a_14 := calldataload(0x0964)
                    let a_14_prev_1 := calldataload(0x09e4)
                    let var10 := 0x0
                    let a_10 := calldataload(0x08e4)
                    let var11 := addmod(var10, a_10, R)
                    let a_11 := calldataload(0x0904)
                    let var12 := addmod(var11, a_11, R)
                    let a_12 := calldataload(0x0924)
                    let var13 := addmod(var12, a_12, R)
                    let a_13 := calldataload(0x0944)
                    let var14 := addmod(var13, a_13, R)
                    let var15 := addmod(a_14_prev_1, var14, R)
                    let var16 := sub(R, var15)
                    let var17 := addmod(a_14, var16, R)
                    let var18 := mulmod(var9, var17, R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), var18, r)
                }
                {
                    let l_0 := mload(L_0_MPTR)
                    let eval := addmod(l_0, sub(R, mulmod(l_0, calldataload(0x0d84), R)), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let perm_z_last := calldataload(0x0f04)
                    let eval := mulmod(mload(L_LAST_MPTR), addmod(mulmod(perm_z_last, perm_z_last, R), sub(R, perm_z_last), R), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let eval := mulmod(mload(L_0_MPTR), addmod(calldataload(0x0de4), sub(R, calldataload(0x0dc4)), R), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let eval := mulmod(mload(L_0_MPTR), addmod(calldataload(0x0e44), sub(R, calldataload(0x0e24)), R), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let eval := mulmod(mload(L_0_MPTR), addmod(calldataload(0x0ea4), sub(R, calldataload(0x0e84)), R), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let eval := mulmod(mload(L_0_MPTR), addmod(calldataload(0x0f04), sub(R, calldataload(0x0ee4)), R), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let gamma := mload(GAMMA_MPTR)
                    let beta := mload(BETA_MPTR)
                    let lhs := calldataload(0x0da4)
                    let rhs := calldataload(0x0d84)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x07a4), mulmod(beta, calldataload(0x0b04), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x07c4), mulmod(beta, calldataload(0x0b24), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x07e4), mulmod(beta, calldataload(0x0b44), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0804), mulmod(beta, calldataload(0x0b64), R), R), gamma, R), R)
                    mstore(0x00, mulmod(beta, mload(X_MPTR), R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x07a4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x07c4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x07e4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0804), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    let left_sub_right := addmod(lhs, sub(R, rhs), R)
                    let eval := addmod(left_sub_right, sub(R, mulmod(left_sub_right, addmod(mload(L_LAST_MPTR), mload(L_BLIND_MPTR), R), R)), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let gamma := mload(GAMMA_MPTR)
                    let beta := mload(BETA_MPTR)
                    let lhs := calldataload(0x0e04)
                    let rhs := calldataload(0x0de4)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0824), mulmod(beta, calldataload(0x0b84), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0844), mulmod(beta, calldataload(0x0ba4), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0864), mulmod(beta, calldataload(0x0bc4), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0884), mulmod(beta, calldataload(0x0be4), R), R), gamma, R), R)
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0824), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0844), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0864), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0884), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    let left_sub_right := addmod(lhs, sub(R, rhs), R)
                    let eval := addmod(left_sub_right, sub(R, mulmod(left_sub_right, addmod(mload(L_LAST_MPTR), mload(L_BLIND_MPTR), R), R)), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let gamma := mload(GAMMA_MPTR)
                    let beta := mload(BETA_MPTR)
                    let lhs := calldataload(0x0e64)
                    let rhs := calldataload(0x0e44)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x08a4), mulmod(beta, calldataload(0x0c04), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x08c4), mulmod(beta, calldataload(0x0c24), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x08e4), mulmod(beta, calldataload(0x0c44), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0904), mulmod(beta, calldataload(0x0c64), R), R), gamma, R), R)
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x08a4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x08c4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x08e4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0904), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    let left_sub_right := addmod(lhs, sub(R, rhs), R)
                    let eval := addmod(left_sub_right, sub(R, mulmod(left_sub_right, addmod(mload(L_LAST_MPTR), mload(L_BLIND_MPTR), R), R)), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let gamma := mload(GAMMA_MPTR)
                    let beta := mload(BETA_MPTR)
                    let lhs := calldataload(0x0ec4)
                    let rhs := calldataload(0x0ea4)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0924), mulmod(beta, calldataload(0x0c84), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0944), mulmod(beta, calldataload(0x0ca4), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0964), mulmod(beta, calldataload(0x0cc4), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0984), mulmod(beta, calldataload(0x0ce4), R), R), gamma, R), R)
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0924), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0944), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0964), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0984), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    let left_sub_right := addmod(lhs, sub(R, rhs), R)
                    let eval := addmod(left_sub_right, sub(R, mulmod(left_sub_right, addmod(mload(L_LAST_MPTR), mload(L_BLIND_MPTR), R), R)), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }
                {
                    let gamma := mload(GAMMA_MPTR)
                    let beta := mload(BETA_MPTR)
                    let lhs := calldataload(0x0f24)
                    let rhs := calldataload(0x0f04)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x09a4), mulmod(beta, calldataload(0x0d04), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x09c4), mulmod(beta, calldataload(0x0d24), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(calldataload(0x0a04), mulmod(beta, calldataload(0x0d44), R), R), gamma, R), R)
                    lhs := mulmod(lhs, addmod(addmod(mload(INSTANCE_EVAL_MPTR), mulmod(beta, calldataload(0x0d64), R), R), gamma, R), R)
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x09a4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x09c4), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(calldataload(0x0a04), mload(0x00), R), gamma, R), R)
                    mstore(0x00, mulmod(mload(0x00), DELTA, R))
                    rhs := mulmod(rhs, addmod(addmod(mload(INSTANCE_EVAL_MPTR), mload(0x00), R), gamma, R), R)
                    let left_sub_right := addmod(lhs, sub(R, rhs), R)
                    let eval := addmod(left_sub_right, sub(R, mulmod(left_sub_right, addmod(mload(L_LAST_MPTR), mload(L_BLIND_MPTR), R), R)), R)
                    quotient_eval_numer := addmod(mulmod(quotient_eval_numer, y, r), eval, r)
                }

                pop(y)

                let quotient_eval := mulmod(quotient_eval_numer, mload(X_N_MINUS_1_INV_MPTR), r)
                mstore(QUOTIENT_EVAL_MPTR, quotient_eval)
            }

            // Compute quotient commitment
            {
                mstore(0x00, calldataload(LAST_QUOTIENT_X_CPTR))
                mstore(0x20, calldataload(add(LAST_QUOTIENT_X_CPTR, 0x20)))
                let x_n := mload(X_N_MPTR)
                for
                    {
                        let cptr := sub(LAST_QUOTIENT_X_CPTR, 0x40)
                        let cptr_end := sub(FIRST_QUOTIENT_X_CPTR, 0x40)
                    }
                    lt(cptr_end, cptr)
                    {}
                {
                    success := ec_mul_acc(success, x_n)
                    success := ec_add_acc(success, calldataload(cptr), calldataload(add(cptr, 0x20)))
                    cptr := sub(cptr, 0x40)
                }
                mstore(QUOTIENT_X_MPTR, mload(0x00))
                mstore(QUOTIENT_Y_MPTR, mload(0x20))
            }

            // Compute pairing lhs and rhs
            {
                {
                    let x := mload(X_MPTR)
                    let omega := mload(OMEGA_MPTR)
                    let omega_inv := mload(OMEGA_INV_MPTR)
                    let x_pow_of_omega := mulmod(x, omega, R)
                    mstore(0x0360, x_pow_of_omega)
                    mstore(0x0340, x)
                    x_pow_of_omega := mulmod(x, omega_inv, R)
                    mstore(0x0320, x_pow_of_omega)
                    x_pow_of_omega := mulmod(x_pow_of_omega, omega_inv, R)
                    x_pow_of_omega := mulmod(x_pow_of_omega, omega_inv, R)
                    x_pow_of_omega := mulmod(x_pow_of_omega, omega_inv, R)
                    x_pow_of_omega := mulmod(x_pow_of_omega, omega_inv, R)
                    x_pow_of_omega := mulmod(x_pow_of_omega, omega_inv, R)
                    mstore(0x0300, x_pow_of_omega)
                }
                {
                    let mu := mload(MU_MPTR)
                    for
                        {
                            let mptr := 0x0380
                            let mptr_end := 0x0400
                            let point_mptr := 0x0300
                        }
                        lt(mptr, mptr_end)
                        {
                            mptr := add(mptr, 0x20)
                            point_mptr := add(point_mptr, 0x20)
                        }
                    {
                        mstore(mptr, addmod(mu, sub(R, mload(point_mptr)), R))
                    }
                    let s
                    s := mload(0x03c0)
                    mstore(0x0400, s)
                    let diff
                    diff := mload(0x0380)
                    diff := mulmod(diff, mload(0x03a0), R)
                    diff := mulmod(diff, mload(0x03e0), R)
                    mstore(0x0420, diff)
                    mstore(0x00, diff)
                    diff := mload(0x0380)
                    diff := mulmod(diff, mload(0x03e0), R)
                    mstore(0x0440, diff)
                    diff := mload(0x03a0)
                    mstore(0x0460, diff)
                    diff := mload(0x0380)
                    diff := mulmod(diff, mload(0x03a0), R)
                    mstore(0x0480, diff)
                }
                {
                    let point_2 := mload(0x0340)
                    let coeff
                    coeff := 1
                    coeff := mulmod(coeff, mload(0x03c0), R)
                    mstore(0x20, coeff)
                }
                {
                    let point_1 := mload(0x0320)
                    let point_2 := mload(0x0340)
                    let coeff
                    coeff := addmod(point_1, sub(R, point_2), R)
                    coeff := mulmod(coeff, mload(0x03a0), R)
                    mstore(0x40, coeff)
                    coeff := addmod(point_2, sub(R, point_1), R)
                    coeff := mulmod(coeff, mload(0x03c0), R)
                    mstore(0x60, coeff)
                }
                {
                    let point_0 := mload(0x0300)
                    let point_2 := mload(0x0340)
                    let point_3 := mload(0x0360)
                    let coeff
                    coeff := addmod(point_0, sub(R, point_2), R)
                    coeff := mulmod(coeff, addmod(point_0, sub(R, point_3), R), R)
                    coeff := mulmod(coeff, mload(0x0380), R)
                    mstore(0x80, coeff)
                    coeff := addmod(point_2, sub(R, point_0), R)
                    coeff := mulmod(coeff, addmod(point_2, sub(R, point_3), R), R)
                    coeff := mulmod(coeff, mload(0x03c0), R)
                    mstore(0xa0, coeff)
                    coeff := addmod(point_3, sub(R, point_0), R)
                    coeff := mulmod(coeff, addmod(point_3, sub(R, point_2), R), R)
                    coeff := mulmod(coeff, mload(0x03e0), R)
                    mstore(0xc0, coeff)
                }
                {
                    let point_2 := mload(0x0340)
                    let point_3 := mload(0x0360)
                    let coeff
                    coeff := addmod(point_2, sub(R, point_3), R)
                    coeff := mulmod(coeff, mload(0x03c0), R)
                    mstore(0xe0, coeff)
                    coeff := addmod(point_3, sub(R, point_2), R)
                    coeff := mulmod(coeff, mload(0x03e0), R)
                    mstore(0x0100, coeff)
                }
                {
                    success := batch_invert(success, 0, 0x0120)
                    let diff_0_inv := mload(0x00)
                    mstore(0x0420, diff_0_inv)
                    for
                        {
                            let mptr := 0x0440
                            let mptr_end := 0x04a0
                        }
                        lt(mptr, mptr_end)
                        { mptr := add(mptr, 0x20) }
                    {
                        mstore(mptr, mulmod(mload(mptr), diff_0_inv, R))
                    }
                }
                {
                    let coeff := mload(0x20)
                    let zeta := mload(ZETA_MPTR)
                    let r_eval := 0
                    r_eval := addmod(r_eval, mulmod(coeff, calldataload(0x0ae4), R), R)
                    r_eval := mulmod(r_eval, zeta, R)
                    r_eval := addmod(r_eval, mulmod(coeff, mload(QUOTIENT_EVAL_MPTR), R), R)
                    for
                        {
                            let mptr := 0x0d64
                            let mptr_end := 0x0ae4
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x20) }
                    {
                        r_eval := addmod(mulmod(r_eval, zeta, R), mulmod(coeff, calldataload(mptr), R), R)
                    }
                    for
                        {
                            let mptr := 0x0ac4
                            let mptr_end := 0x09e4
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x20) }
                    {
                        r_eval := addmod(mulmod(r_eval, zeta, R), mulmod(coeff, calldataload(mptr), R), R)
                    }
                    for
                        {
                            let mptr := 0x09c4
                            let mptr_end := 0x0964
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x20) }
                    {
                        r_eval := addmod(mulmod(r_eval, zeta, R), mulmod(coeff, calldataload(mptr), R), R)
                    }
                    for
                        {
                            let mptr := 0x0944
                            let mptr_end := 0x0784
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x20) }
                    {
                        r_eval := addmod(mulmod(r_eval, zeta, R), mulmod(coeff, calldataload(mptr), R), R)
                    }
                    mstore(0x04a0, r_eval)
                }
                {
                    let zeta := mload(ZETA_MPTR)
                    let r_eval := 0
                    r_eval := addmod(r_eval, mulmod(mload(0x40), calldataload(0x09e4), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0x60), calldataload(0x0964), R), R)
                    r_eval := mulmod(r_eval, mload(0x0440), R)
                    mstore(0x04c0, r_eval)
                }
                {
                    let zeta := mload(ZETA_MPTR)
                    let r_eval := 0
                    r_eval := addmod(r_eval, mulmod(mload(0x80), calldataload(0x0ee4), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xa0), calldataload(0x0ea4), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xc0), calldataload(0x0ec4), R), R)
                    r_eval := mulmod(r_eval, zeta, R)
                    r_eval := addmod(r_eval, mulmod(mload(0x80), calldataload(0x0e84), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xa0), calldataload(0x0e44), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xc0), calldataload(0x0e64), R), R)
                    r_eval := mulmod(r_eval, zeta, R)
                    r_eval := addmod(r_eval, mulmod(mload(0x80), calldataload(0x0e24), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xa0), calldataload(0x0de4), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xc0), calldataload(0x0e04), R), R)
                    r_eval := mulmod(r_eval, zeta, R)
                    r_eval := addmod(r_eval, mulmod(mload(0x80), calldataload(0x0dc4), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xa0), calldataload(0x0d84), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0xc0), calldataload(0x0da4), R), R)
                    r_eval := mulmod(r_eval, mload(0x0460), R)
                    mstore(0x04e0, r_eval)
                }
                {
                    let zeta := mload(ZETA_MPTR)
                    let r_eval := 0
                    r_eval := addmod(r_eval, mulmod(mload(0xe0), calldataload(0x0f04), R), R)
                    r_eval := addmod(r_eval, mulmod(mload(0x0100), calldataload(0x0f24), R), R)
                    r_eval := mulmod(r_eval, mload(0x0480), R)
                    mstore(0x0500, r_eval)
                }
                {
                    let sum := mload(0x20)
                    mstore(0x0520, sum)
                }
                {
                    let sum := mload(0x40)
                    sum := addmod(sum, mload(0x60), R)
                    mstore(0x0540, sum)
                }
                {
                    let sum := mload(0x80)
                    sum := addmod(sum, mload(0xa0), R)
                    sum := addmod(sum, mload(0xc0), R)
                    mstore(0x0560, sum)
                }
                {
                    let sum := mload(0xe0)
                    sum := addmod(sum, mload(0x0100), R)
                    mstore(0x0580, sum)
                }
                {
                    for
                        {
                            let mptr := 0x00
                            let mptr_end := 0x80
                            let sum_mptr := 0x0520
                        }
                        lt(mptr, mptr_end)
                        {
                            mptr := add(mptr, 0x20)
                            sum_mptr := add(sum_mptr, 0x20)
                        }
                    {
                        mstore(mptr, mload(sum_mptr))
                    }
                    success := batch_invert(success, 0, 0x80)
                    let r_eval := mulmod(mload(0x60), mload(0x0500), R)
                    for
                        {
                            let sum_inv_mptr := 0x40
                            let sum_inv_mptr_end := 0x80
                            let r_eval_mptr := 0x04e0
                        }
                        lt(sum_inv_mptr, sum_inv_mptr_end)
                        {
                            sum_inv_mptr := sub(sum_inv_mptr, 0x20)
                            r_eval_mptr := sub(r_eval_mptr, 0x20)
                        }
                    {
                        r_eval := mulmod(r_eval, mload(NU_MPTR), R)
                        r_eval := addmod(r_eval, mulmod(mload(sum_inv_mptr), mload(r_eval_mptr), R), R)
                    }
                    mstore(R_EVAL_MPTR, r_eval)
                }
                {
                    let nu := mload(NU_MPTR)
                    mstore(0x00, calldataload(0x0624))
                    mstore(0x20, calldataload(0x0644))
                    success := ec_mul_acc(success, mload(ZETA_MPTR))
                    success := ec_add_acc(success, mload(QUOTIENT_X_MPTR), mload(QUOTIENT_Y_MPTR))
                    for
                        {
                            let mptr := 0x10e0
                            let mptr_end := 0x0a20
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x40) }
                    {
                        success := ec_mul_acc(success, mload(ZETA_MPTR))
                        success := ec_add_acc(success, mload(mptr), mload(add(mptr, 0x20)))
                    }
                    for
                        {
                            let mptr := 0x04a4
                            let mptr_end := 0x03e4
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x40) }
                    {
                        success := ec_mul_acc(success, mload(ZETA_MPTR))
                        success := ec_add_acc(success, calldataload(mptr), calldataload(add(mptr, 0x20)))
                    }
                    for
                        {
                            let mptr := 0x03a4
                            let mptr_end := 0x24
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x40) }
                    {
                        success := ec_mul_acc(success, mload(ZETA_MPTR))
                        success := ec_add_acc(success, calldataload(mptr), calldataload(add(mptr, 0x20)))
                    }
                    mstore(0x80, calldataload(0x03e4))
                    mstore(0xa0, calldataload(0x0404))
                    success := ec_mul_tmp(success, mulmod(nu, mload(0x0440), R))
                    success := ec_add_acc(success, mload(0x80), mload(0xa0))
                    nu := mulmod(nu, mload(NU_MPTR), R)
                    mstore(0x80, calldataload(0x05a4))
                    mstore(0xa0, calldataload(0x05c4))
                    for
                        {
                            let mptr := 0x0564
                            let mptr_end := 0x04a4
                        }
                        lt(mptr_end, mptr)
                        { mptr := sub(mptr, 0x40) }
                    {
                        success := ec_mul_tmp(success, mload(ZETA_MPTR))
                        success := ec_add_tmp(success, calldataload(mptr), calldataload(add(mptr, 0x20)))
                    }
                    success := ec_mul_tmp(success, mulmod(nu, mload(0x0460), R))
                    success := ec_add_acc(success, mload(0x80), mload(0xa0))
                    nu := mulmod(nu, mload(NU_MPTR), R)
                    mstore(0x80, calldataload(0x05e4))
                    mstore(0xa0, calldataload(0x0604))
                    success := ec_mul_tmp(success, mulmod(nu, mload(0x0480), R))
                    success := ec_add_acc(success, mload(0x80), mload(0xa0))
                    mstore(0x80, mload(G1_X_MPTR))
                    mstore(0xa0, mload(G1_Y_MPTR))
                    success := ec_mul_tmp(success, sub(R, mload(R_EVAL_MPTR)))
                    success := ec_add_acc(success, mload(0x80), mload(0xa0))
                    mstore(0x80, calldataload(0x0f44))
                    mstore(0xa0, calldataload(0x0f64))
                    success := ec_mul_tmp(success, sub(R, mload(0x0400)))
                    success := ec_add_acc(success, mload(0x80), mload(0xa0))
                    mstore(0x80, calldataload(0x0f84))
                    mstore(0xa0, calldataload(0x0fa4))
                    success := ec_mul_tmp(success, mload(MU_MPTR))
                    success := ec_add_acc(success, mload(0x80), mload(0xa0))
                    mstore(PAIRING_LHS_X_MPTR, mload(0x00))
                    mstore(PAIRING_LHS_Y_MPTR, mload(0x20))
                    mstore(PAIRING_RHS_X_MPTR, calldataload(0x0f84))
                    mstore(PAIRING_RHS_Y_MPTR, calldataload(0x0fa4))
                }
            }

            // Random linear combine with accumulator
            if mload(HAS_ACCUMULATOR_MPTR) {
                mstore(0x00, mload(ACC_LHS_X_MPTR))
                mstore(0x20, mload(ACC_LHS_Y_MPTR))
                mstore(0x40, mload(ACC_RHS_X_MPTR))
                mstore(0x60, mload(ACC_RHS_Y_MPTR))
                mstore(0x80, mload(PAIRING_LHS_X_MPTR))
                mstore(0xa0, mload(PAIRING_LHS_Y_MPTR))
                mstore(0xc0, mload(PAIRING_RHS_X_MPTR))
                mstore(0xe0, mload(PAIRING_RHS_Y_MPTR))
                let challenge := mod(keccak256(0x00, 0x100), r)

                // [pairing_lhs] += challenge * [acc_lhs]
                success := ec_mul_acc(success, challenge)
                success := ec_add_acc(success, mload(PAIRING_LHS_X_MPTR), mload(PAIRING_LHS_Y_MPTR))
                mstore(PAIRING_LHS_X_MPTR, mload(0x00))
                mstore(PAIRING_LHS_Y_MPTR, mload(0x20))

                // [pairing_rhs] += challenge * [acc_rhs]
                mstore(0x00, mload(ACC_RHS_X_MPTR))
                mstore(0x20, mload(ACC_RHS_Y_MPTR))
                success := ec_mul_acc(success, challenge)
                success := ec_add_acc(success, mload(PAIRING_RHS_X_MPTR), mload(PAIRING_RHS_Y_MPTR))
                mstore(PAIRING_RHS_X_MPTR, mload(0x00))
                mstore(PAIRING_RHS_Y_MPTR, mload(0x20))
            }

            // Perform pairing
            success := ec_pairing(
                success,
                mload(PAIRING_LHS_X_MPTR),
                mload(PAIRING_LHS_Y_MPTR),
                mload(PAIRING_RHS_X_MPTR),
                mload(PAIRING_RHS_Y_MPTR)
            )

            // Revert if anything fails
            if iszero(success) {
                revert(0x00, 0x00)
            }

            // Return 1 as result if everything succeeds
            mstore(0x00, 1)
            return(0x00, 0x20)
        }
    }
}
