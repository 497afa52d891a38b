// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {TestBase} from "./Base.sol";

contract ModelRegistryTest is TestBase {
    ModelRegistry private _models = new ModelRegistry(address(this));
    bytes32 private constant SUM = "sha256";

    function test_idIsWhatTheModelIs() public view {
        ok(_models.idOf("org/model", "q8.gguf", SUM) == keccak256(abi.encode("org/model", "q8.gguf", SUM)), "id");
        ok(_models.idOf("ab", "c", SUM) != _models.idOf("a", "bc", SUM), "names do not run together");
    }

    function test_anyoneProposesOnce() public {
        bytes32 expected = _models.idOf("org/model", "q8.gguf", SUM);
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.ModelProposed(expected, address(0xA), "org/model", "q8.gguf", SUM);
        vm.prank(address(0xA));
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM);
        ModelRegistry.Model memory m = _models.model(id);
        ok(m.status == ModelRegistry.Status.Proposed && m.sha256Hash == SUM, "kept");
        ok(!_models.isApproved(id), "not by itself");
        vm.expectRevert(ModelRegistry.ModelKnown.selector);
        _models.propose("org/model", "q8.gguf", SUM);
    }

    function test_statusGoesForthAndBack() public {
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM);
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.ModelApproved(id);
        _models.approve(id);
        ok(_models.isApproved(id), "approved");
        vm.expectRevert(ModelRegistry.StatusUnchanged.selector);
        _models.approve(id);
        vm.expectEmit(true, true, true, true);
        emit ModelRegistry.ModelDeprecated(id);
        _models.deprecate(id);
        ok(!_models.isApproved(id), "deprecated");
        vm.expectRevert(ModelRegistry.ModelKnown.selector);
        _models.propose("org/model", "q8.gguf", SUM);
        _models.approve(id);
        ok(_models.isApproved(id), "approved again");
    }

    function test_onlyTheOwnerDecides() public {
        bytes32 id = _models.propose("org/model", "q8.gguf", SUM);
        bytes memory reason = abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(0xBAD));
        vm.prank(address(0xBAD));
        vm.expectRevert(reason);
        _models.approve(id);
        vm.prank(address(0xBAD));
        vm.expectRevert(reason);
        _models.deprecate(id);
    }

    function test_unknownModelHasNoStatus() public {
        vm.expectRevert(ModelRegistry.ModelUnknown.selector);
        _models.approve("unknown");
        vm.expectRevert(ModelRegistry.ModelUnknown.selector);
        _models.deprecate("unknown");
    }

    function test_namesAreBounded() public {
        string memory long = string(new bytes(257));
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose("", "q8.gguf", SUM);
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose("org/model", "", SUM);
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose(long, "q8.gguf", SUM);
        vm.expectRevert(ModelRegistry.BadName.selector);
        _models.propose("org/model", long, SUM);
        vm.expectRevert(ModelRegistry.BadHash.selector);
        _models.propose("org/model", "q8.gguf", 0);
        _models.propose(string(new bytes(256)), "q8.gguf", SUM);
    }

    function test_pagesCoverAll() public {
        bytes32 first = _models.propose("a", "f", SUM);
        _models.propose("b", "f", SUM);
        bytes32 last = _models.propose("c", "f", SUM);
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
    ModelRegistry private _models = new ModelRegistry(address(this));
    NodeRegistry private _nodes = new NodeRegistry(_models);
    bytes32[] private _ids;
    uint96[] private _prices;

    function setUp() public {
        for (uint96 i; i < 3; ++i) {
            bytes32 id = _models.propose("org/model", string(abi.encodePacked(bytes1(uint8(65 + i)))), "sha256");
            _models.approve(id);
            _ids.push(id);
            _prices.push(100 + i);
        }
    }

    function some(uint256 count) internal view returns (bytes32[] memory ids, uint96[] memory prices) {
        (ids, prices) = (new bytes32[](count), new uint96[](count));
        for (uint256 i; i < count; ++i) {
            (ids[i], prices[i]) = (_ids[i], _prices[i]);
        }
    }

    function register(address account, string memory url, uint256 count) internal {
        (bytes32[] memory ids, uint96[] memory prices) = some(count);
        vm.prank(account);
        _nodes.register(url, ids, prices);
    }

    function refused(bytes memory reason, string memory url, bytes32[] memory ids, uint96[] memory prices) internal {
        vm.expectRevert(reason);
        _nodes.register(url, ids, prices);
    }

    function test_registeredNodeIsFound() public {
        (bytes32[] memory ids, uint96[] memory prices) = some(2);
        vm.expectEmit(true, true, true, true);
        emit NodeRegistry.NodeRegistered(address(0xA), "http://a", ids, prices);
        register(address(0xA), "http://a", 2);
        ok(_nodes.isActive(address(0xA)), "active");
        eq(100, _nodes.priceOf(address(0xA), _ids[0]), "price");
        eq(0, _nodes.priceOf(address(0xA), _ids[2]), "not offered");
        NodeRegistry.Node memory n = _nodes.node(address(0xA));
        ok(n.active && n.account == address(0xA) && keccak256(bytes(n.url)) == keccak256("http://a"), "node");
        ok(n.models.length == 2 && n.models[1] == _ids[1] && n.prices[1] == 101, "offer");
    }

    function test_registeringAgainReplacesAll() public {
        register(address(0xA), "http://a", 3);
        bytes32[] memory ids = new bytes32[](1);
        uint96[] memory prices = new uint96[](1);
        (ids[0], prices[0]) = (_ids[2], 7);
        vm.expectEmit(true, true, true, true);
        emit NodeRegistry.NodeUpdated(address(0xA), "http://b", ids, prices);
        vm.prank(address(0xA));
        _nodes.register("http://b", ids, prices);
        eq(0, _nodes.priceOf(address(0xA), _ids[0]), "gone");
        eq(7, _nodes.priceOf(address(0xA), _ids[2]), "new price");
        (NodeRegistry.Node[] memory page,) = _nodes.nodesForModel(_ids[0], 0, 10);
        eq(0, page.length, "not listed where it does not serve");
        (page,) = _nodes.nodes(0, 10);
        eq(1, page.length, "listed once");
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
        eq(0, _nodes.priceOf(address(0xA), _ids[0]), "no price");
        (NodeRegistry.Node[] memory page,) = _nodes.nodes(0, 10);
        ok(page.length == 2 && page[0].account == address(0xC) && page[1].account == address(0xB), "the others stay");
        (page,) = _nodes.nodesForModel(_ids[2], 0, 10);
        eq(0, page.length, "nobody serves it");
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
        (bytes32[] memory ids, uint96[] memory prices) = some(2);
        refused(abi.encodePacked(NodeRegistry.BadUrl.selector), "", ids, prices);
        refused(abi.encodePacked(NodeRegistry.BadUrl.selector), string(new bytes(257)), ids, prices);
        refused(abi.encodePacked(NodeRegistry.LengthMismatch.selector), "u", ids, new uint96[](1));
        refused(abi.encodePacked(NodeRegistry.BadModelCount.selector), "u", new bytes32[](0), new uint96[](0));
        refused(abi.encodePacked(NodeRegistry.BadModelCount.selector), "u", new bytes32[](33), new uint96[](33));
        prices[1] = 0;
        refused(abi.encodeWithSelector(NodeRegistry.ZeroPrice.selector, ids[1]), "u", ids, prices);
        (ids[1], prices[1]) = (ids[0], 5);
        refused(abi.encodeWithSelector(NodeRegistry.DuplicateModel.selector, ids[0]), "u", ids, prices);
        ids[1] = "unknown";
        refused(abi.encodeWithSelector(NodeRegistry.ModelNotApproved.selector, ids[1]), "u", ids, prices);
        _models.deprecate(_ids[1]);
        ids[1] = _ids[1];
        refused(abi.encodeWithSelector(NodeRegistry.ModelNotApproved.selector, ids[1]), "u", ids, prices);
    }
}
