// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {HostStake} from "../src/HostStake.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {TestBase} from "./Base.sol";
import {MoodyToken} from "./Doubles.sol";

contract ModelRegistryTest is TestBase {
    ModelRegistry private _models = new ModelRegistry(address(this));
    bytes32 private constant SUM = "sha256";
    bytes32 private constant WORDS = "tokenizer";
    bytes32 private constant CHAT = "template";
    ModelRegistry.Head private _none;
    ModelRegistry.Head private _head = ModelRegistry.Head("root", 1000, 896, 16);

    function test_idIsWhatTheModelIs() public view {
        ok(
            _models.idOf("org/model", "q8.gguf", SUM, WORDS, CHAT)
                == keccak256(abi.encode("org/model", "q8.gguf", SUM, WORDS, CHAT)),
            "id"
        );
        ok(
            _models.idOf("ab", "c", SUM, WORDS, CHAT) != _models.idOf("a", "bc", SUM, WORDS, CHAT),
            "names do not run together"
        );
    }

    function test_anyoneProposesOnce() public {
        bytes32 expected = _models.idOf("org/model", "q8.gguf", SUM, WORDS, CHAT);
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.ModelProposed(
            expected,
            address(0xA),
            ModelRegistry.Model("org/model", "q8.gguf", SUM, WORDS, CHAT, _none, ModelRegistry.Status.Proposed)
        );
        vm.prank(address(0xA));
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _none);
        ModelRegistry.Model memory m = _models.model(id);
        ok(m.status == ModelRegistry.Status.Proposed && m.sha256Hash == SUM, "kept");
        ok(m.tokenizerHash == WORDS && m.templateHash == CHAT, "whole");
        ok(!_models.isApproved(id), "not by itself");
        _models.approve(id, _none);
        vm.expectRevert(ModelRegistry.ModelKnown.selector);
        _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _none);
    }

    function test_otherWordsOrAnotherTemplateAreAnotherModel() public view {
        bytes32 id = _models.idOf("org/model", "q8.gguf", SUM, WORDS, CHAT);
        ok(id != _models.idOf("org/model", "q8.gguf", SUM, "other", CHAT), "tokenizer");
        ok(id != _models.idOf("org/model", "q8.gguf", SUM, WORDS, "other"), "template");
    }

    function test_aWrongHeadKeepsNobodyOut() public {
        vm.prank(address(0xBAD));
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, ModelRegistry.Head("bad", 1, 1, 1));
        _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _head);
        vm.expectRevert(ModelRegistry.HeadDiffers.selector);
        _models.approve(id, ModelRegistry.Head("bad", 1, 1, 1));
        eq(0, _models.headOf(id).rows, "nothing is known before");
        _models.approve(id, _head);
        ModelRegistry.Head memory head = _models.headOf(id);
        ok(head.root == "root" && head.rows == 1000 && head.width == 896 && head.scale == 16, "kept");
        (bytes32[] memory ids,,) = _models.models(0, 9);
        eq(1, ids.length, "listed once");
        vm.prank(address(0xBAD));
        vm.expectRevert(ModelRegistry.ModelKnown.selector);
        _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, ModelRegistry.Head("bad", 1, 1, 1));
        _models.deprecate(id);
        eq(1000, _models.headOf(id).rows, "running jobs go on");
    }

    function test_aHeadIsAddedOnce() public {
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _none);
        vm.expectRevert(ModelRegistry.ModelUnknown.selector);
        _models.addHead(id, _head);
        _models.approve(id, _none);
        vm.prank(address(0xBAD));
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(0xBAD)));
        _models.addHead(id, _head);
        vm.expectRevert(ModelRegistry.HeadDiffers.selector);
        _models.addHead(id, _none);
        vm.expectRevert(ModelRegistry.BadHead.selector);
        _models.addHead(id, ModelRegistry.Head("root", 1, 897, 1));
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.HeadAdded(id, _head);
        _models.addHead(id, _head);
        ok(_models.headOf(id).root == "root", "added");
        vm.expectRevert(ModelRegistry.HeadDiffers.selector);
        _models.addHead(id, ModelRegistry.Head("other", 1, 1, 1));
    }

    function test_aHeadIsWholeOrNone() public {
        ModelRegistry.Head[7] memory bad = [
            ModelRegistry.Head(0, 1, 1, 1),
            ModelRegistry.Head(0, 0, 1, 0),
            ModelRegistry.Head(0, 0, 0, 1),
            ModelRegistry.Head("root", 0, 1, 1),
            ModelRegistry.Head("root", 1, 0, 1),
            ModelRegistry.Head("root", 1, 897, 1),
            ModelRegistry.Head("root", 1, 1, 31)
        ];
        for (uint256 i; i < bad.length; ++i) {
            vm.expectRevert(ModelRegistry.BadHead.selector);
            _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, bad[i]);
        }
        _models.propose("a", "f", SUM, WORDS, CHAT, ModelRegistry.Head("root", 1, 896, 30));
        _models.propose("b", "f", SUM, 0, 0, ModelRegistry.Head("root", 1, 1, 0));
    }

    function test_statusGoesForthAndBack() public {
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _none);
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.ModelApproved(id);
        _models.approve(id, _none);
        ok(_models.isApproved(id), "approved");
        vm.expectRevert(ModelRegistry.StatusUnchanged.selector);
        _models.approve(id, _none);
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.ModelDeprecated(id);
        _models.deprecate(id);
        ok(!_models.isApproved(id), "deprecated");
        vm.expectRevert(ModelRegistry.ModelKnown.selector);
        _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _none);
        _models.approve(id, _none);
        ok(_models.isApproved(id), "approved again");
    }

    function test_onlyTheOwnerDecides() public {
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM, WORDS, CHAT, _none);
        bytes memory reason = abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(0xBAD));
        vm.prank(address(0xBAD));
        vm.expectRevert(reason);
        _models.approve(id, _none);
        vm.prank(address(0xBAD));
        vm.expectRevert(reason);
        _models.deprecate(id);
    }

    function test_unknownModelHasNoStatus() public {
        vm.expectRevert(ModelRegistry.ModelUnknown.selector);
        _models.approve("unknown", _none);
        vm.expectRevert(ModelRegistry.ModelUnknown.selector);
        _models.deprecate("unknown");
    }

    function test_namesAreBounded() public {
        string memory long = string(new bytes(257));
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose("", "q8.gguf", SUM, WORDS, CHAT, _none);
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose("org/model", "", SUM, WORDS, CHAT, _none);
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose(long, "q8.gguf", SUM, WORDS, CHAT, _none);
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose("org/model", long, SUM, WORDS, CHAT, _none);
        vm.expectRevert(ModelRegistry.BadHash.selector);
        _models.propose("org/model", "q8.gguf", 0, WORDS, CHAT, _none);
        _models.propose(string(new bytes(256)), "q8.gguf", SUM, WORDS, CHAT, _none);
    }

    function test_pagesCoverAll() public {
        bytes32 first = _models.propose("a", "f", SUM, WORDS, CHAT, _none);
        _models.propose("b", "f", SUM, WORDS, CHAT, _none);
        bytes32 last = _models.propose("c", "f", SUM, WORDS, CHAT, _none);
        (bytes32[] memory ids, ModelRegistry.Model[] memory page, uint256 next) = _models.models(0, 2);
        eq(2, ids.length, "full page");
        eq(2, next, "cursor");
        ok(ids[0] == first && keccak256(bytes(page[0].repository)) == keccak256("a"), "in order");
        (ids,, next) = _models.models(next, 2);
        eq(1, ids.length, "rest");
        eq(0, next, "end");
        ok(ids[0] == last, "last");
        (ids,, next) = _models.models(99, type(uint256).max);
        eq(0, ids.length + next, "beyond the end");
        vm.expectRevert(ModelRegistry.ZeroLimit.selector);
        _models.models(0, 0);
    }
}

contract NodeRegistryTest is TestBase {
    uint96 private constant MINIMUM = 1000;
    address private constant NATIVE = address(0);
    address private constant USDC = address(0xDC);
    bytes32 private constant KEY = "x25519";

    ModelRegistry private _models = new ModelRegistry(address(this));
    ModelRegistry.Head private _none;
    MoodyToken private _token = new MoodyToken();
    HostStake private _stakes =
        new HostStake(address(this), IERC20(address(_token)), address(0x7EA), MINIMUM, MINIMUM, MINIMUM);
    NodeRegistry private _nodes = new NodeRegistry(_models, _stakes);
    bytes32[] private _ids;

    function setUp() public {
        _stakes.announce(address(_token)); // any contract: these tests slash in its name
        for (uint96 i; i < 3; ++i) {
            bytes32 id =
                _models.propose("org/model", string(abi.encodePacked(bytes1(uint8(65 + i)))), "sha256", 0, 0, _none);
            _models.approve(id, _none);
            _ids.push(id);
        }
    }

    function stake(address account) internal {
        _token.mint(account, MINIMUM);
        vm.prank(account);
        _stakes.stake(MINIMUM);
    }

    /// The first `count` models, for the native coin at 100, 101, ..
    function some(uint96 count) internal view returns (NodeRegistry.Offer[] memory offers) {
        offers = new NodeRegistry.Offer[](count);
        for (uint96 i; i < count; ++i) {
            offers[i] = NodeRegistry.Offer(_ids[i], NATIVE, 100 + i);
        }
    }

    /// One model in two currencies.
    function twoCurrencies(bytes32 id) internal pure returns (NodeRegistry.Offer[] memory offers) {
        offers = new NodeRegistry.Offer[](2);
        offers[0] = NodeRegistry.Offer(id, NATIVE, 7);
        offers[1] = NodeRegistry.Offer(id, USDC, 8);
    }

    function register(address account, string memory url, uint96 count) internal {
        if (!_stakes.isStaked(account)) stake(account);
        NodeRegistry.Offer[] memory offers = some(count);
        vm.prank(account);
        _nodes.register(url, KEY, offers);
    }

    function refused(bytes memory reason, string memory url, NodeRegistry.Offer[] memory offers) internal {
        vm.expectRevert(reason);
        _nodes.register(url, KEY, offers);
    }

    function serving(bytes32 id) internal view returns (uint256) {
        (NodeRegistry.Node[] memory page,) = _nodes.nodesForModel(id, 0, 10);
        return page.length;
    }

    function test_registeredNodeIsFound() public {
        stake(address(0xA));
        vm.expectEmit(true, true, true, true);
        emit NodeRegistry.NodeRegistered(address(0xA), "http://a", KEY, some(2));
        register(address(0xA), "http://a", 2);
        ok(_nodes.isActive(address(0xA)), "active");
        eq(100, _nodes.priceOf(address(0xA), _ids[0], NATIVE), "price");
        eq(0, _nodes.priceOf(address(0xA), _ids[0], USDC), "not for that currency");
        eq(0, _nodes.priceOf(address(0xA), _ids[2], NATIVE), "not offered");
        NodeRegistry.Node memory n = _nodes.node(address(0xA));
        ok(n.active && n.account == address(0xA) && keccak256(bytes(n.url)) == keccak256("http://a"), "node");
        ok(n.encryptionKey == KEY, "key");
        ok(keccak256(abi.encode(n.offers)) == keccak256(abi.encode(some(2))), "offers");
    }

    function test_registeringAgainReplacesAll() public {
        register(address(0xA), "http://a", 3);
        NodeRegistry.Offer[] memory offers = twoCurrencies(_ids[2]);
        vm.expectEmit(true, true, true, true);
        emit NodeRegistry.NodeUpdated(address(0xA), "http://b", "new key", offers);
        vm.prank(address(0xA));
        _nodes.register("http://b", "new key", offers);
        eq(0, _nodes.priceOf(address(0xA), _ids[0], NATIVE), "gone");
        eq(7, _nodes.priceOf(address(0xA), _ids[2], NATIVE), "new price");
        eq(0, serving(_ids[0]), "not listed where it does not serve");
        (NodeRegistry.Node[] memory page,) = _nodes.nodes(0, 10);
        eq(1, page.length, "listed once");
        ok(page[0].encryptionKey == "new key", "new key");
        ok(keccak256(abi.encode(page[0].offers)) == keccak256(abi.encode(offers)), "only the new offers");
    }

    /// A model in two currencies has two prices and one place in its list, and leaves both.
    function test_oneModelInTwoCurrencies() public {
        register(address(0xB), "http://b", 1);
        stake(address(0xA));
        NodeRegistry.Offer[] memory offers = twoCurrencies(_ids[0]);
        vm.prank(address(0xA));
        _nodes.register("http://a", KEY, offers);
        register(address(0xC), "http://c", 1);
        eq(7, _nodes.priceOf(address(0xA), _ids[0], NATIVE), "native");
        eq(8, _nodes.priceOf(address(0xA), _ids[0], USDC), "token");
        eq(3, serving(_ids[0]), "each listed once");
        vm.prank(address(0xA));
        _nodes.register("http://a", KEY, offers);
        eq(3, serving(_ids[0]), "still once");
        vm.prank(address(0xA));
        _nodes.unregister();
        eq(0, _nodes.priceOf(address(0xA), _ids[0], NATIVE), "no native price");
        eq(0, _nodes.priceOf(address(0xA), _ids[0], USDC), "no token price");
        (NodeRegistry.Node[] memory page,) = _nodes.nodesForModel(_ids[0], 0, 10);
        ok(page.length == 2 && page[0].account == address(0xB) && page[1].account == address(0xC), "the others stay");
    }

    /// Who has less than the minimum, or takes it away, neither registers nor changes anything; it can leave.
    function test_registrationNeedsTheStake() public {
        bytes memory reason = abi.encodeWithSelector(NodeRegistry.StakeTooLow.selector, MINIMUM, 0);
        refused(reason, "u", some(1));
        _token.mint(address(this), MINIMUM);
        _stakes.stake(MINIMUM);
        _nodes.register("u", KEY, some(1));
        _stakes.requestUnstake(1);
        refused(abi.encodeWithSelector(NodeRegistry.StakeTooLow.selector, MINIMUM, MINIMUM - 1), "u", some(1));
        _nodes.unregister();
        _stakes.requestUnstake(0);
        _nodes.register("u", KEY, some(1));
    }

    /// Active is who is staked now: a request or a slash ends it, a new stake brings it back.
    function test_activeWhileStaked() public {
        register(address(0xA), "http://a", 1);
        vm.prank(address(0xA));
        _stakes.requestUnstake(1);
        ok(!_nodes.isActive(address(0xA)) && !_nodes.node(address(0xA)).active, "leaving");
        vm.prank(address(0xA));
        _stakes.requestUnstake(0);
        ok(_nodes.isActive(address(0xA)), "staying");
        vm.prank(address(_token));
        _stakes.slash(address(0xA), address(0xB));
        (NodeRegistry.Node[] memory page,) = _nodes.nodes(0, 10);
        ok(page.length == 1 && !page[0].active, "slashed: listed, not active");
        stake(address(0xA));
        ok(_nodes.node(address(0xA)).active, "staked again");
        stake(address(0xB));
        ok(!_nodes.isActive(address(0xB)), "a stake alone is no registration");
    }

    function test_leavingRemovesOneOfMany() public {
        register(address(0xA), "http://a", 3);
        register(address(0xB), "http://b", 2);
        register(address(0xC), "http://c", 1);
        vm.expectEmit(true, true, true, true);
        emit NodeRegistry.NodeUnregistered(address(0xA));
        vm.prank(address(0xA));
        _nodes.unregister();
        ok(!_nodes.isActive(address(0xA)) && _nodes.isActive(address(0xC)), "active");
        eq(0, _nodes.priceOf(address(0xA), _ids[0], NATIVE), "no price");
        NodeRegistry.Node memory gone = _nodes.node(address(0xA));
        ok(gone.encryptionKey == 0 && gone.offers.length == 0 && bytes(gone.url).length == 0, "nothing is left");
        (NodeRegistry.Node[] memory page,) = _nodes.nodes(0, 10);
        ok(page.length == 2 && page[0].account == address(0xC) && page[1].account == address(0xB), "the others stay");
        eq(0, serving(_ids[2]), "nobody serves it");
        vm.prank(address(0xC));
        _nodes.unregister();
        vm.prank(address(0xB));
        _nodes.unregister();
        (page,) = _nodes.nodes(0, 10);
        eq(0, page.length, "empty");
        register(address(0xA), "http://a", 1);
        ok(_nodes.isActive(address(0xA)), "back again");
    }

    function test_strangerCannotLeave() public {
        vm.expectRevert(NodeRegistry.NotRegistered.selector);
        _nodes.unregister();
    }

    function test_pagesCoverAll() public {
        for (uint160 i = 1; i < 6; ++i) {
            register(address(i), "http://x", 1);
        }
        (NodeRegistry.Node[] memory page, uint256 next) = _nodes.nodesForModel(_ids[0], 0, 2);
        ok(page.length == 2 && next == 2, "first");
        (page, next) = _nodes.nodesForModel(_ids[0], next, 2);
        ok(page.length == 2 && next == 4, "second");
        (page, next) = _nodes.nodesForModel(_ids[0], next, 2);
        ok(page.length == 1 && next == 0, "last");
        (page, next) = _nodes.nodes(5, 2);
        ok(page.length == 0 && next == 0, "beyond");
        vm.expectRevert(NodeRegistry.ZeroLimit.selector);
        _nodes.nodes(0, 0);
    }

    function test_badOffersAreRefused() public {
        stake(address(this));
        NodeRegistry.Offer[] memory offers = some(2);
        refused(abi.encodePacked(NodeRegistry.BadUrl.selector), "", offers);
        refused(abi.encodePacked(NodeRegistry.BadUrl.selector), string(new bytes(257)), offers);
        refused(abi.encodePacked(NodeRegistry.BadOfferCount.selector), "u", new NodeRegistry.Offer[](0));
        refused(abi.encodePacked(NodeRegistry.BadOfferCount.selector), "u", new NodeRegistry.Offer[](65));
        offers[1].price = 0;
        refused(abi.encodeWithSelector(NodeRegistry.ZeroPrice.selector, _ids[1], NATIVE), "u", offers);
        (offers[1].modelId, offers[1].price) = (_ids[0], 5);
        refused(abi.encodeWithSelector(NodeRegistry.DuplicateOffer.selector, _ids[0], NATIVE), "u", offers);
        offers[1].modelId = "unknown";
        refused(abi.encodeWithSelector(NodeRegistry.ModelNotApproved.selector, offers[1].modelId), "u", offers);
        _models.deprecate(_ids[1]);
        offers[1].modelId = _ids[1];
        refused(abi.encodeWithSelector(NodeRegistry.ModelNotApproved.selector, _ids[1]), "u", offers);
    }

    /// As many offers as may be: one model in 64 currencies.
    function test_sixtyFourOffersFit() public {
        stake(address(this));
        NodeRegistry.Offer[] memory offers = new NodeRegistry.Offer[](64);
        for (uint160 i; i < 64; ++i) {
            offers[i] = NodeRegistry.Offer(_ids[0], address(i), uint96(i + 1));
        }
        _nodes.register(string(new bytes(256)), 0, offers);
        eq(64, _nodes.priceOf(address(this), _ids[0], address(63)), "the last one");
        eq(1, serving(_ids[0]), "listed once");
        _nodes.unregister();
        eq(0, serving(_ids[0]), "gone");
    }
}
