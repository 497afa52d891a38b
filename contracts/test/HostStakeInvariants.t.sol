// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {HostStake} from "../src/HostStake.sol";
import {TestBase} from "./Base.sol";
import {MoodyToken} from "./Doubles.sol";
import {AnyMarket} from "./HostStake.t.sol";

/// Does anything that hosts, markets, the treasury and time may do, and keeps its own books.
contract StakeHandler is TestBase {
    struct Books {
        uint256 staked;
        uint256 requestedAt;
        uint256 lockedUntil;
    }

    uint96 internal constant SLASH = 300;
    uint96 internal constant COMPENSATION = 200;
    MoodyToken public token = new MoodyToken();
    HostStake public stakes =
        new HostStake(address(this), IERC20(address(token)), address(0x7EA), 1000, SLASH, COMPENSATION);
    address[3] internal hosts = [address(0xA1), address(0xA2), address(0xA3)];
    address[4] internal creditors = [address(0x7EA), address(0xB1), address(0xB2), address(0xA1)];
    address[2] internal markets = [address(new AnyMarket()), address(new AnyMarket())];
    mapping(address host => Books) public books;
    mapping(address account => uint256) public received; // by push
    uint256 public paidIn;
    uint256 public paidOut;
    string public broken; // the first promise that did not hold

    constructor() {
        vm.warp(1_800_000_000);
        stakes.announce(markets[0]);
    }

    // -- what the fuzzer does

    function stake(uint256 who, uint96 amount, bool other) external {
        address host = hosts[who % 3];
        amount = uint96(bound(amount, 1, 2500));
        address payer = other ? address(0xD) : host;
        token.mint(payer, amount);
        vm.prank(payer);
        stakes.stakeFor(host, amount);
        books[host].staked += amount;
        paidIn += amount;
    }

    function requestUnstake(uint256 who, uint96 amount) external {
        address host = hosts[who % 3];
        amount = uint96(bound(amount, 0, books[host].staked + 1));
        vm.prank(host);
        stakes.requestUnstake(amount);
        if (amount > books[host].staked) breaks("asked for more than is there");
        books[host].requestedAt = block.timestamp;
    }

    function withdraw(uint256 who) external {
        address host = hosts[who % 3];
        Books storage b = books[host];
        (, uint96 unstaking,,) = stakes.stakeOf(host);
        vm.prank(host);
        uint256 amount = stakes.withdraw(address(0xFEED));
        if (amount != unstaking) breaks("withdrew something else than the request");
        if (block.timestamp < b.requestedAt + 14 days) breaks("withdrew before the delay");
        if (block.timestamp <= b.lockedUntil) breaks("withdrew under a lock");
        if (amount > b.staked) breaks("withdrew more than was staked");
        b.staked -= amount;
        paidOut += amount;
    }

    function lock(uint256 who, uint256 by, uint256 until) external {
        address host = hosts[who % 3];
        until = block.timestamp + bound(until, 0, 9 days);
        act(markets[by % 2], abi.encodeCall(stakes.lock, (host, uint40(until))));
        if (books[host].staked < SLASH) breaks("locked less than a slash");
        if (until > books[host].lockedUntil) books[host].lockedUntil = until;
    }

    function slash(uint256 who, uint256 by, uint256 harmedBy) external {
        address host = hosts[who % 3];
        address harmed = creditors[harmedBy % 4]; // the treasury and a host among them
        uint256 before = token.balanceOf(harmed) + stakes.owed(harmed);
        uint256 pushed = token.balanceOf(harmed);
        bytes memory result = act(markets[by % 2], abi.encodeCall(stakes.slash, (host, harmed)));
        (uint96 slashed, uint96 compensated) = abi.decode(result, (uint96, uint96));
        if (slashed > SLASH || slashed > books[host].staked) breaks("slashed too much");
        if (slashed < SLASH && slashed != books[host].staked) breaks("slashed too little");
        if (compensated != (slashed < COMPENSATION ? slashed : COMPENSATION)) breaks("not the harmed first");
        uint256 gain = compensated + (harmed == creditors[0] ? slashed - compensated : 0);
        if (token.balanceOf(harmed) + stakes.owed(harmed) - before != gain) breaks("compensation lost");
        books[host].staked -= slashed;
        paidOut += token.balanceOf(harmed) - pushed;
    }

    function collect(uint256 who) external {
        vm.prank(creditors[who % 4]);
        paidOut += stakes.collect(address(0xFEED));
    }

    function setBlocked(uint256 who, bool blocked) external {
        token.setBlocked(creditors[who % 4], blocked);
    }

    function announce(uint256 which) external {
        stakes.announce(markets[which % 2]);
    }

    /// In the name of a market, announced or not, at its time or before.
    function act(address market, bytes memory data) internal returns (bytes memory) {
        uint256 from = stakes.authorizedFrom(market);
        vm.prank(market);
        (bool success, bytes memory result) = address(stakes).call(data);
        require(success, "refused");
        if (from == 0 || block.timestamp < from) breaks("a market acted before its time");
        return result;
    }

    function warp(uint256 by) external {
        uint256[5] memory steps = [uint256(1), 9 days, 14 days - 1, 14 days, 15 days];
        vm.warp(block.timestamp + steps[by % 5]);
    }

    function breaks(string memory what) internal {
        if (bytes(broken).length == 0) broken = what;
    }

    // -- what the judge asks

    function theHosts() external view returns (address[3] memory) {
        return hosts;
    }

    function theCreditors() external view returns (address[4] memory) {
        return creditors;
    }
}

contract HostStakeInvariantsTest is TestBase {
    StakeHandler private _handler;

    function setUp() public {
        _handler = new StakeHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    struct Selectors {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() public view returns (Selectors[] memory targets) {
        bytes4[14] memory all = [
            StakeHandler.stake.selector,
            StakeHandler.stake.selector,
            StakeHandler.requestUnstake.selector,
            StakeHandler.withdraw.selector,
            StakeHandler.withdraw.selector,
            StakeHandler.lock.selector,
            StakeHandler.slash.selector,
            StakeHandler.collect.selector,
            StakeHandler.slash.selector,
            StakeHandler.announce.selector,
            StakeHandler.setBlocked.selector,
            StakeHandler.warp.selector,
            StakeHandler.warp.selector,
            StakeHandler.warp.selector
        ];
        targets = new Selectors[](1);
        targets[0] = Selectors(address(_handler), new bytes4[](all.length));
        for (uint256 i; i < all.length; ++i) {
            targets[0].selectors[i] = all[i];
        }
    }

    /// No call did what it must not: nobody out before delay and lock, no slash above its amount, the harmed first.
    function invariant_noPromiseBroken() public view {
        string memory broken = _handler.broken();
        ok(bytes(broken).length == 0, broken);
    }

    /// What the contract holds is the sum of stakes and ledger, to the last unit; what went in is what came out and what is there.
    function invariant_solvent() public view {
        HostStake stakes = _handler.stakes();
        address[3] memory hosts = _handler.theHosts();
        address[4] memory creditors = _handler.theCreditors();
        uint256 owing;
        for (uint256 i; i < 3; ++i) {
            (uint96 staked,,,) = stakes.stakeOf(hosts[i]);
            owing += staked;
        }
        for (uint256 i; i < 4; ++i) {
            owing += stakes.owed(creditors[i]);
        }
        uint256 held = _handler.token().balanceOf(address(stakes));
        eq(owing, held, "stakes + ledger");
        eq(_handler.paidIn(), held + _handler.paidOut(), "conserved");
    }

    /// Every host's record is what the books say, and never lets more leave than is there.
    function invariant_recordsAreTheBooks() public view {
        HostStake stakes = _handler.stakes();
        address[3] memory hosts = _handler.theHosts();
        for (uint256 i; i < 3; ++i) {
            (uint96 staked, uint96 unstaking,, uint40 lockedUntil) = stakes.stakeOf(hosts[i]);
            (uint256 expected,, uint256 locked) = _handler.books(hosts[i]);
            eq(expected, staked, "staked");
            eq(locked, lockedUntil, "lockedUntil");
            ok(unstaking <= staked, "unstaking <= staked");
            ok(stakes.isStaked(hosts[i]) == (staked - unstaking >= stakes.minimum()), "isStaked");
        }
    }
}
