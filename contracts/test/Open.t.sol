// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Earnings} from "../src/Earnings.sol";
import {JobLedger} from "../src/JobLedger.sol";
import {JobMarketplace} from "../src/JobMarketplace.sol";
import {JobView, Terms} from "../src/MarketTypes.sol";
import {TestUSDC} from "../src/TestUSDC.sol";
import {CallbackToken, FeeToken, MoodyToken} from "./Doubles.sol";
import {Fixture} from "./Fixture.sol";

contract OpenTest is Fixture {
    function authorization(uint256 key, Terms memory t, uint96 deposit, uint256 validBefore)
        internal
        view
        returns (bytes memory)
    {
        bytes32 hash = keccak256(
            abi.encode(
                usdc.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(),
                t.renter,
                address(market),
                uint256(deposit),
                uint256(0),
                validBefore,
                market.idOf(t)
            )
        );
        return sign(key, keccak256(abi.encodePacked("\x19\x01", usdc.DOMAIN_SEPARATOR(), hash)));
    }

    function refused(JobMarketplace.Term which, Terms memory t, uint96 deposit) internal {
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.BadTerms.selector, which));
        open(t, deposit);
    }

    function test_nativeDepositIsHeldAndRecorded() public {
        Terms memory t = terms(NATIVE, 0);
        vm.expectEmit(true, true, true, true);
        emit JobMarketplace.JobOpened(market.idOf(t), renter, host, t, DEPOSIT);
        bytes32 id = open(t, DEPOSIT);
        JobView memory job = market.jobs(id);
        eq(DEPOSIT, job.deposit, "deposit");
        eq(0, uint256(job.owed) + job.signed + job.proven + job.closingAt + job.pendingBlock, "all else is zero");
        eq(0, uint256(job.held) + job.heldTokens + job.heldUntil + uint8(job.stage), "no claim");
        ok(!job.closed, "open");
        eq(DEPOSIT, address(market).balance, "held");
    }

    function test_tokenDepositIsHeld() public {
        bytes32 id = open(terms(address(usdc), 0), DEPOSIT);
        eq(DEPOSIT, market.jobs(id).deposit, "deposit");
        eq(DEPOSIT, usdc.balanceOf(address(market)), "held");
    }

    function test_idIsTheHashOfThirteenWords() public view {
        Terms memory t = terms(NATIVE, 1);
        bytes memory first = abi.encode(t.renter, t.signer, t.host, t.token, t.arbiter, t.pricePerMTok, t.bond);
        bytes memory rest = abi.encode(t.expiresAt, t.challenge, t.exposure, t.policy, t.modelId, t.salt);
        ok(market.idOf(t) == keccak256(bytes.concat(first, rest)), "id");
    }

    /// The id is hashed from the raw calldata, so a second encoding of the same terms must not open a second job.
    function test_dirtyTermsAreRefused() public {
        Terms memory t = terms(NATIVE, 0);
        for (uint256 field; field < 11; ++field) {
            bytes memory data = abi.encodeCall(market.open, (t, DEPOSIT));
            data[4 + 32 * field] = 0x01;
            vm.prank(renter);
            (bool success,) = address(market).call{value: DEPOSIT}(data);
            ok(!success, "dirty");
        }
    }

    /// A stranger could take the id of a job that the renter is about to open, with a deposit of one unit.
    function test_strangersOpenNothing() public {
        Terms memory t = terms(NATIVE, 0);
        vm.deal(host, 2 * DEPOSIT);
        vm.prank(host);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.open{value: DEPOSIT}(t, DEPOSIT);
        t.salt = bytes32(uint256(uint160(host))); // at the wrong end
        vm.prank(host);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.open{value: DEPOSIT}(t, DEPOSIT);
        t.salt = bytes32(bytes20(address(0xBEEF))) | bytes32(uint256(type(uint32).max) << 64);
        vm.prank(host);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.open{value: DEPOSIT}(t, DEPOSIT);
    }

    function test_whoLeadsTheSaltOpensForTheRenter() public {
        address payer = address(0xBEEF);
        Terms memory t = terms(NATIVE, 1);
        t.salt = bytes32(bytes20(payer)) | bytes32(uint256(type(uint32).max) << 64 | 7);
        vm.deal(payer, DEPOSIT);
        vm.prank(payer);
        market.open{value: DEPOSIT}(t, DEPOSIT);
        eq(0, payer.balance, "the payer paid");
        uint256 before = renter.balance;
        vm.prank(host);
        market.closeByHost(unsigned(t));
        eq(before + DEPOSIT, renter.balance, "the renter gets the rest");
    }

    /// Else the renter of a prompt could take the id of the job that its host is about to open, and keep the answer.
    function test_aRenterMayNotOpenUnderAnothersSalt() public {
        Terms memory t = terms(NATIVE, 0);
        t.salt = bytes32(bytes20(address(0xBEEF))) | bytes32(uint256(type(uint32).max) << 64);
        vm.prank(renter);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.open{value: DEPOSIT}(t, DEPOSIT);
        t.token = address(usdc);
        vm.expectRevert(JobLedger.NotParty.selector);
        market.openWithAuthorization(t, DEPOSIT, block.timestamp + 1, "");
    }

    function test_eachTermIsChecked() public {
        refused(JobMarketplace.Term.Deposit, terms(NATIVE, 0), 0);
        Terms memory t = terms(NATIVE, 0);
        t.pricePerMTok = 0;
        refused(JobMarketplace.Term.Price, t, DEPOSIT);
        t = terms(NATIVE, 0);
        t.host = address(0);
        refused(JobMarketplace.Term.Host, t, DEPOSIT);
        t = terms(NATIVE, 0);
        t.signer = address(0);
        refused(JobMarketplace.Term.Signer, t, DEPOSIT);
        t = terms(NATIVE, 2);
        refused(JobMarketplace.Term.Policy, t, DEPOSIT);
        t = terms(NATIVE, 0);
        t.bond = 0;
        refused(JobMarketplace.Term.Bond, t, DEPOSIT);
    }

    function test_boundsOfTermsAreExact() public {
        Terms memory t = terms(NATIVE, 0);
        t.expiresAt = uint40(block.timestamp);
        refused(JobMarketplace.Term.Expiry, t, DEPOSIT);
        t.expiresAt += 1;
        t.challenge = 899;
        refused(JobMarketplace.Term.Challenge, t, DEPOSIT);
        t.challenge = 3 days + 1;
        refused(JobMarketplace.Term.Challenge, t, DEPOSIT);
        t.challenge = 3 days;
        open(t, DEPOSIT);
        t.challenge = 900;
        t.exposure = 0;
        refused(JobMarketplace.Term.Exposure, t, DEPOSIT);
        t.exposure = 4097;
        refused(JobMarketplace.Term.Exposure, t, DEPOSIT);
        t.exposure = 4096;
        open(t, DEPOSIT);
        t.exposure = 1;
        open(t, DEPOSIT);
    }

    /// A deposit is kept in 88 bits: one unit more must not wrap around.
    function test_depositStopsWhereItIsCounted() public {
        vm.deal(renter, uint256(type(uint88).max) + 1);
        refused(JobMarketplace.Term.Deposit, terms(NATIVE, 0), uint96(type(uint88).max) + 1);
        Terms memory t = terms(NATIVE, 0);
        open(t, type(uint88).max);
        eq(type(uint88).max, state(t).deposit, "to the last unit");
    }

    function test_sameTermsOpenOnce() public {
        Terms memory t = opened();
        vm.expectRevert(JobMarketplace.JobExists.selector);
        open(t, DEPOSIT);
    }

    function test_valueMustMatchTheDeposit() public {
        Terms memory t = terms(NATIVE, 0);
        vm.prank(renter);
        vm.expectRevert(abi.encodeWithSelector(JobLedger.BadValue.selector, DEPOSIT, DEPOSIT - 1));
        market.open{value: DEPOSIT - 1}(t, DEPOSIT);
        vm.prank(renter);
        vm.expectRevert(abi.encodeWithSelector(JobLedger.BadValue.selector, DEPOSIT, DEPOSIT + 1));
        market.open{value: DEPOSIT + 1}(t, DEPOSIT);
    }

    function test_noNativeCoinWithATokenDeposit() public {
        Terms memory t = terms(address(usdc), 0);
        vm.prank(renter);
        vm.expectRevert(abi.encodeWithSelector(JobLedger.BadValue.selector, 0, 1));
        market.open{value: 1}(t, DEPOSIT);
    }

    function test_feeOnTransferTokenIsRefused() public {
        FeeToken fee = new FeeToken();
        fee.mint(renter, DEPOSIT);
        vm.prank(renter);
        fee.approve(address(market), DEPOSIT);
        bytes memory reason = abi.encodeWithSelector(JobLedger.BadValue.selector, DEPOSIT, DEPOSIT - DEPOSIT / 100);
        vm.expectRevert(reason);
        open(terms(address(fee), 0), DEPOSIT);
        vm.expectRevert(reason);
        market.openWithAuthorization(terms(address(fee), 0), DEPOSIT, START + 60, "");
    }

    function test_tokenWithoutReturnValueIsAccepted() public {
        MoodyToken moody = new MoodyToken();
        moody.mint(renter, DEPOSIT);
        open(terms(address(moody), 0), DEPOSIT);
        eq(DEPOSIT, moody.balanceOf(address(market)), "held");
    }

    function test_tokenThatIsNoContractIsRefused() public {
        Terms memory t = terms(address(0xDEAD), 0);
        vm.expectRevert();
        open(t, DEPOSIT);
    }

    function test_tokenThatCallsBackFindsTheDoorShut() public {
        CallbackToken token = new CallbackToken();
        token.mint(renter, 2 * DEPOSIT);
        vm.prank(renter);
        token.approve(address(market), 2 * DEPOSIT);
        token.callWhenMoved(address(market), abi.encodeCall(market.withdraw, (address(token), address(1))));
        open(terms(address(token), 0), DEPOSIT);
        ok(!token.succeeded(), "reentered");
        ok(bytes4(token.seen()) == Earnings.Reentered.selector, "named");
    }

    function test_anyoneRelaysASignedDeposit() public {
        Terms memory t = terms(address(usdc), 0);
        bytes memory sig = authorization(RENTER, t, DEPOSIT, START + 60);
        vm.prank(address(0x4E1A));
        bytes32 id = market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
        ok(id == market.idOf(t), "id");
        eq(DEPOSIT, usdc.balanceOf(address(market)), "held");
    }

    function test_signedDepositFitsOneJobOnly() public {
        Terms memory t = terms(address(usdc), 0);
        bytes memory sig = authorization(RENTER, t, DEPOSIT, START + 60);
        t.salt = "other";
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
        t.salt = "salt";
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.openWithAuthorization(t, DEPOSIT + 1, START + 60, sig);
        market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
        vm.expectRevert(JobMarketplace.JobExists.selector);
        market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
    }

    function test_signedDepositIsByTheRenter() public {
        Terms memory t = terms(address(usdc), 0);
        bytes memory sig = authorization(SIGNER, t, DEPOSIT, START + 60);
        vm.expectRevert(TestUSDC.SignatureInvalid.selector);
        market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
    }

    function test_nativeCoinHasNoSignedDeposit() public {
        Terms memory t = terms(NATIVE, 0);
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.BadTerms.selector, JobMarketplace.Term.Token));
        market.openWithAuthorization(t, DEPOSIT, START + 60, "");
    }

    function test_signedDepositChecksTheTermsToo() public {
        Terms memory t = terms(address(usdc), 0);
        t.challenge = 1;
        bytes memory sig = authorization(RENTER, t, DEPOSIT, START + 60);
        vm.expectRevert(abi.encodeWithSelector(JobMarketplace.BadTerms.selector, JobMarketplace.Term.Challenge));
        market.openWithAuthorization(t, DEPOSIT, START + 60, sig);
    }

    function test_treasuryMustExist() public {
        vm.expectRevert(Earnings.BadRecipient.selector);
        new JobMarketplace(address(0), proofs, stakes, epochs);
    }
}
